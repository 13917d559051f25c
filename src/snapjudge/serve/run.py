"""Running a server: bound, announced, stopped without losing what it has taken in."""

import gc
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from snapjudge.errors import ServeFailed
from snapjudge.serve.app import make_app
from snapjudge.serve.protocol import bounded_protocol
from snapjudge.serve.service import Service
from snapjudge.serve.settings import ServeSettings


def serve(settings: ServeSettings, announce: Callable[[str], None] = lambda _: None) -> None:
    """Serve until told to stop by SIGTERM or Ctrl-C.

    Args:
        announce: is told the server's address once it is bound; /readyz says when the judges answer.

    Raises:
        What `Service.start` raises. ServeFailed: the address cannot be bound, or the TLS files cannot be read.
    """
    server = make_server(settings, announce)
    server.alone = True
    server.run()
    if server.service.failure is not None:
        raise server.service.failure


def make_server(settings: ServeSettings, announce: Callable[[str], None] = lambda _: None) -> "Server":
    """A server that is not running yet."""
    gate, service = make_app(settings)
    bounds = settings.bounds
    config = uvicorn.Config(
        gate,
        host=settings.host,
        port=settings.port,
        http=bounded_protocol(bounds),
        ws="websockets-sansio",
        ws_max_size=bounds.body_bytes,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=bounds.idle_seconds,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.private_key,
    )
    return Server(config, service, announce)


class Server(uvicorn.Server):
    """uvicorn's, with a notice before it stops.

    Attributes:
        alone: whether the process is the server's own, and its garbage may be looked at more rarely.
    """

    alone = False

    def __init__(self, config: uvicorn.Config, service: Service, announce: Callable[[str], None]) -> None:
        super().__init__(config)
        self.service, self._announce = service, announce
        self._stop_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Bind and tell where."""
        try:
            await super().startup(sockets)
        except SystemExit:
            where = f"{self.config.host}:{self.config.port}"
            raise ServeFailed(f"{where} cannot be bound", hint="another server may have the port: choose one with --port, or 0 for any") from None
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self._announce(f"{'https' if self.config.ssl else 'http'}://{f'[{host}]' if ':' in host else host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after the notice; at once when asked twice."""
        if self._stop_at is None and sig in (signal.SIGINT, signal.SIGTERM):
            self.stop()
        else:
            super().handle_exit(sig, frame)
            self.force_exit = True

    def stop(self) -> None:
        """Stop: /readyz says so at once, and after the notice nothing new is taken."""
        self.service.stopping = True
        self._stop_at = time.monotonic() + self.service.settings.notice_seconds

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self.alone and self.service.health.status == "ok":
            self.alone = False
            _settle()
        if self.service.failure is not None:
            self.should_exit = True
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.service.draining = True
            self.should_exit = True
        return await super().on_tick(counter)


def _settle() -> None:
    """Take what was made at the start out of the garbage collector's sight: going through all of it now and then would hold up every request for tens of
    milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
