"""uvicorn's HTTP protocol with bounds that it lacks: on the time and the size of headers, and on open connections. Knows nothing of what is served."""

import asyncio

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from snapjudge.errors import Problem, RequestInvalid
from snapjudge.serve.gate import error_response
from snapjudge.serve.settings import Bounds


def bounded_protocol(bounds: Bounds) -> type["BoundedProtocol"]:
    """The protocol with some bounds, as uvicorn wants it: a class."""
    return type("Bounded", (BoundedProtocol,), {"bounds": bounds})


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    bounds = Bounds()
    _timer: asyncio.TimerHandle | None = None
    _whole = True  # no headers are on their way
    _unread = 0  # bytes since they began
    _size = 0  # of the headers that were read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or close one too many."""
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            transport.abort()
        else:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless the headers have grown too large."""
        super().data_received(data)
        self._unread = 0 if self._whole else self._unread + len(data)
        if (self._flooded or self._unread > self.bounds.header_bytes) and not self.transport.is_closing():
            self._give_up(431, "headers", f"more than {self.bounds.header_bytes} bytes", f"at most {self.bounds.header_bytes}")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._whole, self._unread, self._size = False, 0, 0
        if self._timer is None:
            self._expect_headers()

    def on_url(self, url: bytes) -> None:
        """A part of its path."""
        super().on_url(url)
        self._size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One of its headers."""
        super().on_header(name, value)
        self._size += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """All headers are there: the request is answered, unless they are too large."""
        self._whole = True
        self._stop_timer()
        if not self._flooded:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        if not self._flooded:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is there."""
        if not self._flooded:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, in the form of every refusal."""
        self._give_up(400, "request", msg.rstrip("."), "HTTP/1.1")

    @property
    def _flooded(self) -> bool:
        return self._size > self.bounds.header_bytes

    def _expect_headers(self) -> None:
        self._timer = self.loop.call_later(self.bounds.header_seconds, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self._give_up(408, "headers", "not all of them in time", f"within {self.bounds.header_seconds:g} s")

    def _give_up(self, status: int, where: str, found: str, expected: str) -> None:
        error = RequestInvalid("the request", [Problem(where, found, expected)])
        _, headers, body = error_response(error, "")
        lines = [*headers, (b"connection", b"close")]
        self.transport.write(b"".join([STATUS_LINE[status], *(b"%s: %s\r\n" % line for line in lines), b"\r\n", body]))
        self.transport.close()
