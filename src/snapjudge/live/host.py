"""The engines of one backbone, each in a process of its own: which is asked, and what happens when one dies.

What is asked goes to the process with the fewest tokens ahead of it, or to the one that has read the same content before. A process that dies is started
again with all its judges; what it was asked goes to another, or waits for it. Knows token ids and keys; nothing of text or HTTP.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Sequence

from pydantic import Field

from snapjudge.core.frozen import Frozen
from snapjudge.core.precision import Precision
from snapjudge.engine.plan import Limits
from snapjudge.engine.requests import EngineStats
from snapjudge.errors import EngineDown, EngineFailed, SnapjudgeError
from snapjudge.live.messages import Ask, Found, Start
from snapjudge.live.process import EngineProcess
from snapjudge.model.hub import chosen_device
from snapjudge.model.prompt import Content
from snapjudge.model.tokens import Ids

_log = logging.getLogger(__name__)

REMEMBERED = 8192  # contents of which it is known who has read them
LOOK_EVERY, ANSWERS_WITHIN = 5.0, 30.0  # seconds between looks at a process, and in which it has to answer one
LONGEST_PAUSE = 30.0  # seconds between two starts of a process that keeps dying
PATIENCE = 15.0  # seconds that a request without a deadline waits for an engine to come back
SMALL = 512  # tokens up to which a request takes the time of requests, and not that of its tokens
DEATHS = 2  # of processes under one request, from which on it is taken for the cause


class HostTerms(Frozen):
    """How a backbone is run.

    A process for each core, with one thread each, answers many small requests soonest; one process with all threads answers one large request soonest.
    """

    backbone: str = Field(default="mini", description="`mini`, a folder in the Hugging Face layout, or a hub name")
    precision: Precision = Field(default=Precision.float32)
    device: str | None = Field(default=None, description="cpu, cuda, cuda:1; by default what SNAPJUDGE_DEVICE says, else a CUDA device where there is one")
    processes: int | None = Field(default=None, ge=1, le=256, description="engine processes; by default one for each core, and one for an accelerator")
    cache_bytes: int = Field(default=1 << 28, ge=1, description="budget of each process's content cache")
    adapter_bytes: int = Field(default=3 << 29, ge=1, description="budget of each process's adapters")
    limits: Limits = Limits(step_tokens=1024, gather=0.01)
    longest: int = Field(default=131_072, ge=1, description="tokens of one content, over all its windows; a longer one is an abstention")
    open_questions: bool = Field(default=True, description="whether the learned questions are read at the start")

    @property
    def count(self) -> int:
        """How many processes there are."""
        if self.processes is not None:
            return self.processes
        return (os.cpu_count() or 1) if chosen_device(self.device).type == "cpu" else 1

    @property
    def start(self) -> Start:
        """What each process is told."""
        here = chosen_device(self.device).type == "cpu"
        threads = max(1, (os.cpu_count() or 1) // self.count) if here else 0
        return Start(self.backbone, self.precision.value, self.device, threads, self.cache_bytes, self.adapter_bytes, self.limits, self.open_questions)


class Host:
    """Made, then started. For one event loop."""

    def __init__(self, terms: HostTerms) -> None:
        self.terms = terms
        self.digest = ""
        self._processes: list[EngineProcess | None] = [None] * terms.count
        self._loaded: dict[str, tuple[str, str]] = {}  # key -> folder, digest
        self._changing = asyncio.Lock()
        self._keepers: list[asyncio.Task[None]] = []
        self._back = asyncio.Event()
        self._readers: OrderedDict[int, int] = OrderedDict()  # content -> which process has read it
        self._sessions: dict[int, int] = {}
        self._session_numbers = itertools.count()
        self.deaths = 0
        self.stats: dict[int, EngineStats] = {}

    async def start(self) -> None:
        """Start all processes.

        Raises:
            BackboneNotFound, BackboneUnsupported, EngineDown.
        """
        start = self.terms.start
        found = await asyncio.gather(*(EngineProcess.start(start) for _ in self._processes), return_exceptions=True)
        failed = [one for one in found if isinstance(one, BaseException)]
        started = [one for one in found if isinstance(one, EngineProcess)]
        if failed:
            await asyncio.gather(*(one.close() for one in started))
            raise failed[0]
        self._processes = list(started)
        self.digest = started[0].ready.digest
        self._back.set()
        self._keepers = [asyncio.create_task(self._keep(place, one)) for place, one in enumerate(started)]

    @property
    def ready(self) -> bool:
        """Whether there is anybody to ask."""
        return bool(self._there)

    @property
    def alive(self) -> int:
        """How many processes answer."""
        return len(self._there)

    @property
    def pids(self) -> list[int]:
        """The numbers of the processes that answer."""
        return [one.pid for _, one in self._there]

    @property
    def _there(self) -> list[tuple[int, EngineProcess]]:
        return [(place, one) for place, one in enumerate(self._processes) if one is not None and not one.gone.is_set()]

    def seconds_until_done(self, cost: int) -> float:
        """When something of that many tokens would be done if it came now, estimated from all that is on its way."""
        small = min(cost, SMALL)
        return min(((one.outstanding + small) / one.pace + (cost - small) / one.ready.rate for _, one in self._there), default=0.0)

    async def load(self, key: str, folder: str, digest: str) -> int:
        """Load a judge in every process; how many tokens its readout has.

        Raises:
            What loading it raises, and then no process has it. EngineDown.
        """
        async with self._changing:
            processes = [one for _, one in self._there]
            if not processes:
                raise _nobody()
            found = await asyncio.gather(*(one.load(key, folder, digest) for one in processes), return_exceptions=True)
            failed = [one for one in found if isinstance(one, BaseException) and not isinstance(one, EngineDown)]
            sizes = [one for one in found if isinstance(one, int)]
            if failed or not sizes:
                await asyncio.gather(*(one.unload(key) for one in processes), return_exceptions=True)
                raise failed[0] if failed else _nobody()
            self._loaded[key] = folder, digest
            return sizes[0]

    async def unload(self, key: str) -> None:
        """Forget a judge."""
        async with self._changing:
            self._loaded.pop(key, None)
            await asyncio.gather(*(one.unload(key) for _, one in self._there), return_exceptions=True)

    async def ask(
        self,
        content: Content,
        keys: Sequence[str],
        wordings: Sequence[str] = (),
        *,
        cost: int,
        deadline: float | None = None,
        session: int | None = None,
        tail: Ids = (),
    ) -> Found:
        """What the engine finds.

        Args:
            cost: tokens of the content and of all readouts.
            deadline: on the monotonic clock.
            session: a number of `new_session`; the content is then the session's, without `tail`.

        Raises:
            EngineDown: nobody was there in time. EngineFailed: it has brought engines down. What the engine raises.
        """
        asked = Ask(0, content.windows, content.orders, tuple(keys), tuple(wordings), deadline, session, tail)
        for _ in range(DEATHS):
            place, process = await self._choose(content, cost, deadline, session)
            try:
                found = await process.ask(asked, cost)
            except EngineDown:
                continue
            self._readers[hash(content.windows)] = place
            if len(self._readers) > REMEMBERED:
                self._readers.popitem(last=False)
            return found
        raise EngineFailed(f"{DEATHS} engine processes ended while they worked on this request", hint="the server's log has the details; ask for less at once")

    def new_session(self) -> int:
        """A number for a content that grows."""
        return next(self._session_numbers)

    def close_session(self, session: int) -> None:
        """Let a session's content go."""
        place = self._sessions.pop(session, None)
        process = None if place is None else self._processes[place]
        if process is not None:
            process.close_session(session)

    async def close(self) -> None:
        """End all processes."""
        keepers, self._keepers = self._keepers, []
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        processes, self._processes = self._processes, [None] * len(self._processes)
        await asyncio.gather(*(one.close() for one in processes if one is not None))

    async def _choose(self, content: Content, cost: int, deadline: float | None, session: int | None) -> tuple[int, EngineProcess]:
        if not self.ready:
            self._back.clear()
            left = PATIENCE if deadline is None else deadline - time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, left)):
                    await self._back.wait()
        if not self._there:
            raise _nobody()
        place, process = min(self._there, key=lambda one: one[1].outstanding)
        least = process.outstanding
        known = self._readers.get(hash(content.windows)) if session is None else self._sessions.get(session)
        if known is not None:
            reader = self._processes[known]
            if reader is not None and not reader.gone.is_set() and (session is not None or reader.outstanding <= least + cost):
                place, process = known, reader
        if session is not None:
            self._sessions[session] = place
        return place, process

    async def _keep(self, place: int, process: EngineProcess) -> None:
        """Start a process again whenever it has ended."""
        pause = 0.0
        while True:
            began = time.monotonic()
            await self._watch(place, process)
            self.deaths += 1
            _log.error("engine process %d of %s has ended; it is being started again", process.pid, self.terms.backbone)
            await process.close()
            self._processes[place] = None
            pause = 0.0 if time.monotonic() - began > LONGEST_PAUSE else min(LONGEST_PAUSE, pause * 2 or 0.25)
            process = await self._started_again(place, pause)

    async def _started_again(self, place: int, pause: float) -> EngineProcess:
        while True:
            await asyncio.sleep(pause)
            try:
                process = await EngineProcess.start(self.terms.start)
            except (SnapjudgeError, OSError) as error:
                _log.error("engine process of %s could not be started: %s", self.terms.backbone, error)
                pause = min(LONGEST_PAUSE, pause * 2 or 0.25)
                continue
            try:
                async with self._changing:
                    for key, (folder, digest) in self._loaded.items():
                        await process.load(key, folder, digest)
                    self._processes[place] = process
                    self._back.set()
            except BaseException as error:
                await process.close()
                if not isinstance(error, SnapjudgeError):
                    raise
                _log.error("a judge could not be loaded again: %s", error)
                pause = min(LONGEST_PAUSE, pause * 2 or 0.25)
                continue
            return process

    async def _watch(self, place: int, process: EngineProcess) -> None:
        """Return when the process has ended; one that does not answer is ended."""
        while not process.gone.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await process.gone.wait()
            if process.gone.is_set():
                return
            try:
                async with asyncio.timeout(ANSWERS_WITHIN):
                    self.stats[place] = await process.look()
            except TimeoutError:
                _log.error("engine process %d does not answer", process.pid)
                process.kill()
            except EngineDown:
                return


def _nobody() -> EngineDown:
    return EngineDown("no engine runs just now", hint="it is being started; try again in a moment", retry_after=1.0)
