"""Texts that are guarded while they are written: what has come of each so far, for whoever appends to it and whoever reads it. Knows nothing of HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from uuid import uuid4

from snapjudge.core.api import StreamEnd, StreamPiece
from snapjudge.errors import EngineFailed, InputInvalid, SnapjudgeError
from snapjudge.guard.streaming import Ending, StreamGuard
from snapjudge.serve.owned import Owned
from snapjudge.serve.settings import Bounds

Event = StreamPiece | StreamEnd


@dataclass(eq=False)
class Stream:
    """One text.

    Args:
        guard: what looks at it.
        told: called once with how it ended; gives what its reader is told of that.
    """

    number: str
    owner: str
    guard: StreamGuard
    told: Callable[[Ending], StreamEnd]
    used: float = 0.0
    events: list[Event] = field(default_factory=list)
    failure: SnapjudgeError | None = None
    task: "asyncio.Task[None] | None" = None
    _chunks: "asyncio.Queue[str | None]" = field(default_factory=asyncio.Queue)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _closed: bool = False  # nothing more may be appended
    _taken: int = 0  # events that whoever appends has been told of

    @property
    def busy(self) -> bool:
        """Whether all of it is there and it is being looked at."""
        return self._closed and not self.ended

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.task is not None and self.task.done()

    @property
    def end(self) -> StreamEnd | None:
        """How it ended, once it has."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, StreamEnd) else None

    def append(self, text: str, *, done: bool) -> None:
        """Add to it; what comes after it was stopped is dropped.

        Raises:
            InputInvalid: it was said to be whole already.
        """
        if self._closed and not (self.end is not None and self.end.stopped):
            raise InputInvalid("the text was said to be done", hint="open another stream for another text")
        if text and not self.ended:
            self._chunks.put_nowait(text)
        if done:
            self._closed = True
            self._chunks.put_nowait(None)

    def news(self) -> str:
        """What may go on to the reader since this was last asked.

        Raises:
            What kept it from being looked at.
        """
        new, self._taken = self.events[self._taken :], len(self.events)
        if self.failure is not None:
            raise self.failure
        return "".join(one.text for one in new if isinstance(one, StreamPiece))

    async def follow(self, after: int = 0) -> AsyncIterator[tuple[int, Event]]:
        """Its events with their numbers, from some on, as they come.

        Raises:
            What kept it from being looked at.
        """
        place = after
        while True:
            while place < len(self.events):
                place += 1
                yield place, self.events[place - 1]
            if self.failure is not None:
                raise self.failure
            if self.ended:
                return
            self._changed.clear()
            await self._changed.wait()

    async def work(self) -> None:
        """Look at it until it ends."""
        try:
            async for one in self.guard.run(self._written()):
                self.events.append(self.told(one) if isinstance(one, Ending) else StreamPiece(text=one.text))
                self._changed.set()
        except SnapjudgeError as error:
            self.failure = error
        except Exception as error:  # a fault of ours: whoever reads it hears that there was one
            self.failure = EngineFailed(f"{type(error).__name__}: {error}", hint="the server's log has the details")
            raise
        finally:
            asyncio.get_running_loop().call_soon(self._changed.set)  # once the task is done

    async def _written(self) -> AsyncIterator[str]:
        while (chunk := await self._chunks.get()) is not None:
            yield chunk


class Streams(Owned[Stream]):
    """All of a server's. For one event loop."""

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("stream", bounds.sessions, bounds.session_seconds, _stop, clock)

    def open(self, owner: str, guard: StreamGuard, told: Callable[[Ending], StreamEnd]) -> Stream:
        """A new one.

        Raises:
            EngineBusy: its key has as many as it may.
        """
        self.check_room(owner)
        stream = Stream(f"str_{uuid4().hex}", owner, guard, told)
        stream.task = asyncio.create_task(stream.work())
        return self.add(stream)


def _stop(stream: Stream) -> None:
    if stream.task is not None:
        stream.task.cancel()
