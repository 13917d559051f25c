"""Calls of webhooks that outlive the server: made at least once, signed, tried again for about a day."""

import asyncio
import logging
import time

from snapjudge.live.rounds import Rounds
from snapjudge.serve.webhooks import Webhooks
from snapjudge.store.records import calls
from snapjudge.store.records.database import Database

_log = logging.getLogger(__name__)
LOOK_EVERY = 2.0


class Outbox:
    """One server's. For one event loop.

    Attributes:
        wake: says that there is somebody to be told.
        run: calls until cancelled.
    """

    def __init__(self, database: Database, webhooks: Webhooks) -> None:
        self._database, self._webhooks = database, webhooks
        self._rounds = Rounds("calls of webhooks", self._some, LOOK_EVERY)
        self.wake, self.run = self._rounds.wake, self._rounds.run

    async def _some(self) -> bool:
        """Make the calls whose time has come; whether there were any."""
        now = time.time()
        due = await self._database.read(lambda connection: calls.due(connection, now))
        await asyncio.gather(*(self._call(row.id, row.url, row.body, row.secret_env) for row in due))
        return bool(due)

    async def _call(self, number: str, url: str, body: dict[str, object], secret_env: str) -> None:
        outcome = await self._webhooks.once(url, body, secret_env=secret_env)
        now = time.time()
        told, hopeless = outcome == "sent", outcome == "refused"
        if await self._database.write(lambda connection: calls.settle(connection, number, now, told=told, hopeless=hopeless)):
            _log.warning("a webhook was given up: it %s", "refuses what it is told" if hopeless else "does not answer")
