"""A load generator that takes little itself: HTTP/1.1 over plain sockets, in a closed loop (clients that wait) or an open one (so many a second)."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Loaded:
    """What came back: seconds of accepted and of refused requests, the bodies of the accepted, and how long it all took."""

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def note(self, status: int, seconds: float, body: bytes, *, keep: bool) -> None:
        """Put down one answer."""
        self.statuses[status] = self.statuses.get(status, 0) + 1
        (self.accepted if status == 200 else self.refused).append(seconds)
        if keep and status == 200:
            self.bodies.append(json.loads(body))

    @property
    def rate(self) -> float:
        """Accepted requests a second."""
        return len(self.accepted) / self.seconds


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all lies below, in milliseconds."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def request_of(path: str, body: dict[str, Any], deadline_ms: float | None = None) -> bytes:
    """A request as it travels."""
    raw = json.dumps(body).encode()
    late = f"x-deadline-ms: {deadline_ms:g}\r\n" if deadline_ms else ""
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n{late}content-length: {len(raw)}\r\n\r\n".encode() + raw


class Connection:
    """One connection, opened when it is needed."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """The status and body that a request is answered with."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(int(length or 0))
        if b"connection: close" in head:
            self.close()
        return int(head[9:12]), body

    def close(self) -> None:
        """Close it."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def closed_loop(host: str, port: int, requests: Iterator[bytes], clients: int, count: int) -> Loaded:
    """So many clients, each sending its next request when it has its answer; `count` requests in all."""
    found, left = Loaded(), count

    async def client() -> None:
        nonlocal left
        connection = Connection(host, port)
        while left > 0:
            left -= 1
            request = next(requests)
            began = time.perf_counter()
            status, body = await connection.send(request)
            found.note(status, time.perf_counter() - began, body, keep=True)
        connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    found.seconds = time.perf_counter() - began
    return found


async def open_loop(host: str, port: int, requests: Iterator[bytes], rate: float, seconds: float) -> Loaded:
    """So many requests a second, whether or not the earlier ones are answered."""
    found = Loaded()
    idle: list[Connection] = []
    running: set[asyncio.Task[None]] = set()

    async def one(request: bytes) -> None:
        connection = idle.pop() if idle else Connection(host, port)
        began = time.perf_counter()
        try:
            status, body = await connection.send(request)
        except (OSError, asyncio.IncompleteReadError):
            connection.close()
            found.note(0, time.perf_counter() - began, b"", keep=False)
            return
        found.note(status, time.perf_counter() - began, body, keep=False)
        idle.append(connection)

    began = time.perf_counter()
    sent = 0
    while (elapsed := time.perf_counter() - began) < seconds:
        while sent < rate * elapsed:
            task = asyncio.create_task(one(next(requests)))
            running.add(task)
            task.add_done_callback(running.discard)
            sent += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*running)
    found.seconds = time.perf_counter() - began
    for connection in idle:
        connection.close()
    return found
