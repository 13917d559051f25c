"""Work that is looked for again and again: at once when somebody says that there is some, else now and then. Knows nothing of what it is."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from snapjudge.errors import StorageFailed

_log = logging.getLogger(__name__)
PAUSE = 1.0  # seconds after the engines or the disk would not


class Rounds:
    """For one event loop.

    Args:
        what: is worked on, for the log.
        some: does some of it; whether there was any.
        every: seconds between looks that nobody asked for.
    """

    def __init__(self, what: str, some: Callable[[], Awaitable[bool]], every: float) -> None:
        self._what, self._some, self._every = what, some, every
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Say that there is something to do."""
        self._news.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self._news.clear()
            try:
                if await self._some():
                    continue
            except StorageFailed as error:
                _log.error("%s: %s", self._what, error)
                await asyncio.sleep(PAUSE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._news.wait()
