"""A guard as a LangChain runnable: `prompt | GuardRunnable("support", stage="input") | model | GuardRunnable("support", stage="output")`.

It takes and gives what stands in its place in the chain: texts, messages, lists of messages, prompt values. Blocked texts raise `Blocked`.
"""

from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages
from langchain_core.messages.utils import convert_to_openai_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig

from snapjudge.client.asynchronous import AsyncClient
from snapjudge.client.guards import Passed, PolicyLike, passed
from snapjudge.client.synchronous import Client
from snapjudge.core.policy import STAGE_FIELDS, Stage


class GuardRunnable(Runnable[Any, Any]):
    """One stage of a policy.

    Args:
        policy: a name, or all of it.
        client, async_client: for `invoke` and `ainvoke`; those of SNAPJUDGE_URL and SNAPJUDGE_API_KEY unless said.
    """

    def __init__(self, policy: PolicyLike, stage: Stage = "input", *, client: Client | None = None, async_client: AsyncClient | None = None) -> None:
        self.policy, self.stage = policy, stage
        self._client, self._async_client = client, async_client

    def invoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> Any:  # noqa: A002, ARG002 - LangChain's names
        """Look at what comes, and give on what comes through."""
        client = self._client = self._client or Client()
        return _through(input, passed(client.guard(self.policy, self.stage, **_asked(input, self.stage))))

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **_: Any) -> Any:  # noqa: A002, ARG002
        """The same, awaited."""
        client = self._async_client = self._async_client or AsyncClient()
        return _through(input, passed(await client.guard(self.policy, self.stage, **_asked(input, self.stage))))


def _asked(value: Any, stage: Stage) -> dict[str, Any]:
    if isinstance(value, str):
        return {STAGE_FIELDS[stage]: value}
    if isinstance(value, BaseMessage) and isinstance(value.content, str):
        return {STAGE_FIELDS[stage]: value.content}
    messages = value.to_messages() if isinstance(value, PromptValue) else convert_to_messages([value] if isinstance(value, BaseMessage) else value)
    return {"messages": convert_to_openai_messages(messages)}


def _through(value: Any, found: Passed) -> Any:
    """The same kind of value with its last text as it came through."""
    if isinstance(value, str):
        return found.text
    if isinstance(value, BaseMessage):
        return value.model_copy(update={"content": found.text}) if isinstance(value.content, str) else value
    messages = value.to_messages() if isinstance(value, PromptValue) else convert_to_messages(value)
    last = messages[-1]
    return [*messages[:-1], last.model_copy(update={"content": found.text}) if isinstance(last.content, str) else last]
