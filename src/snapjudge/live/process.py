"""One engine process as the server sees it: started, spoken to, and known to be gone the moment it is.

Knows nothing of which requests go to it; `live.host` decides.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import pickle
import socket
import sys
import time
from typing import Any

from snapjudge.errors import EngineDown, SnapjudgeError
from snapjudge.live.messages import HEADER_BYTES, Ask, Cancel, Close, Done, Failed, Found, Load, Look, Ready, Reply, Request, Start, Unload, framed, length_of

_log = logging.getLogger(__name__)

LEARNS = 0.2  # of each answer, for the pace
GONE_AFTER = 10.0  # seconds that a process has to end by itself once its connection is closed


class EngineProcess:
    """Made by `EngineProcess.start`. For one event loop.

    Attributes:
        ready: what it said of itself.
        outstanding: tokens of what it was asked and has not answered.
        pace: tokens a second, by how long answers take with what was ahead of them: engine, waiting and all between.
        gone: set once it is.
    """

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.ready = Ready("", 1.0, "", "")
        self.outstanding = 0
        self.pace = 1.0
        self.gone = asyncio.Event()
        self._task = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, start: Start) -> "EngineProcess":
        """Start a process and wait until its engine runs.

        Raises:
            BackboneNotFound, BackboneUnsupported: as `load_backbone`. EngineDown: it ended before it was ready.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}  # workers that spin take the server's core
        if start.threads:
            environment["OMP_NUM_THREADS"] = str(start.threads)
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 24)  # first: from where the process is started nothing may be cancelled
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "snapjudge.live.worker", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                env=environment,
            )
        except BaseException:
            writer.close()
            raise
        finally:
            theirs.close()
        own = cls(process, reader, writer)
        try:
            own.ready = await own._call(start)
            own.pace = own.ready.rate
        except BaseException:
            await own.close()
            raise
        return own

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    async def load(self, key: str, folder: str, digest: str) -> int:
        """Load a judge; how many tokens its readout has."""
        found: int = await self._call(Load(next(self._numbers), key, folder, digest))
        return found

    async def unload(self, key: str) -> None:
        """Forget a judge."""
        await self._call(Unload(next(self._numbers), key))

    async def look(self) -> Any:
        """The engine's statistics."""
        return await self._call(Look(next(self._numbers)))

    def close_session(self, session: int) -> None:
        """Let a session's content go."""
        self._send(Close(session))

    async def ask(self, ask: Ask, cost: int) -> Found:
        """The answer to a question whose number is set here.

        Args:
            cost: its tokens, for the balance between processes.

        Raises:
            EngineDown: the process is gone. What the engine raises.
        """
        numbered = Ask(next(self._numbers), ask.windows, ask.orders, ask.keys, ask.wordings, ask.deadline, ask.session, ask.tail)
        self.outstanding += cost
        ahead, began = self.outstanding, time.monotonic()
        try:
            found: Found = await self._call(numbered)
            if 2 * found.cached < found.tokens:
                self.pace += LEARNS * (ahead / max(time.monotonic() - began, 1e-4) - self.pace)
        except asyncio.CancelledError:
            if not self.gone.is_set():
                self._send(Cancel(numbered.number))
            raise
        finally:
            self.outstanding -= cost
        return found

    async def close(self) -> None:
        """End the process: by closing its connection, and by force where that is not enough."""
        self._writer.close()
        try:
            async with asyncio.timeout(GONE_AFTER):  # wait_for loses a cancellation that comes with the end (Python 3.11)
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()
        await self._task

    def kill(self) -> None:
        """End the process at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def _send(self, message: Request) -> None:
        if not self._writer.is_closing():
            self._writer.write(framed(message))

    async def _call(self, message: Start | Load | Unload | Ask | Look) -> Any:
        if self.gone.is_set():
            raise _down()
        number = 0 if isinstance(message, Start) else message.number
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send(message)
        if number == 0:
            next(self._numbers)
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    async def _listen(self) -> None:
        try:
            while True:
                header = await self._reader.readexactly(HEADER_BYTES)
                reply: Reply = pickle.loads(await self._reader.readexactly(length_of(header)))  # noqa: S301 - written by a process that we started
                self._settle(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone.set()
            self._writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(_down())

    def _settle(self, reply: Reply) -> None:
        future = self._waiting.get(reply.number)
        if future is None or future.done():
            return
        if isinstance(reply, Failed):
            future.set_exception(SnapjudgeError.from_dict(reply.error))
        else:
            future.set_result(reply.value if isinstance(reply, Done) else reply)


def _down() -> EngineDown:
    return EngineDown("the engine's process has ended", hint="it is being started again; try again in a moment", retry_after=1.0)
