"""Calls of webhooks that outlive the server: made at least once, signed, tried again for about a day."""

import asyncio
import contextlib
import logging
import time

from snapjudge.errors import StorageFailed
from snapjudge.serve.webhooks import Webhooks
from snapjudge.store.records import calls
from snapjudge.store.records.database import Database

_log = logging.getLogger(__name__)
LOOK_EVERY = 2.0


class Outbox:
    """One server's. For one event loop."""

    def __init__(self, database: Database, webhooks: Webhooks) -> None:
        self._database, self._webhooks = database, webhooks
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Say that there is somebody to be told."""
        self._news.set()

    async def run(self) -> None:
        """Call until cancelled."""
        while True:
            self._news.clear()
            try:
                now = time.time()
                due = await self._database.read(lambda connection, now=now: calls.due(connection, now))  # type: ignore[misc]
                await asyncio.gather(*(self._call(row.id, row.url, row.body, row.secret_env) for row in due))
                if due:
                    continue
            except StorageFailed as error:
                _log.error("calls cannot be read: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._news.wait()

    async def _call(self, number: str, url: str, body: dict[str, object], secret_env: str) -> None:
        outcome = await self._webhooks.once(url, body, secret_env=secret_env)
        now = time.time()
        told, hopeless = outcome == "sent", outcome == "refused"
        if await self._database.write(lambda connection: calls.settle(connection, number, now, told=told, hopeless=hopeless)):
            _log.warning("a webhook was given up: it %s", "refuses what it is told" if hopeless else "does not answer")
