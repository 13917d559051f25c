"""Clients of a snapjudge server: light, with no torch and no numpy.

from snapjudge.client import Client

with Client() as client:
if client.score("toxicity", output="...").flagged:
...
"""

from snapjudge.client.asynchronous import AsyncClient, AsyncConversation
from snapjudge.client.synchronous import Client, Conversation

__all__ = ["AsyncClient", "AsyncConversation", "Client", "Conversation"]
