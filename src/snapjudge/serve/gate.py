"""What every request passes, before and after it is answered: its id, its size and depth, its key and rate, its client's leaving, its time, its log line.

Plain ASGI, outermost. Nothing of a body is looked at beyond its length and depth. Knows nothing of judges.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol
from uuid import uuid4

from opentelemetry.trace import Span

from snapjudge.core.api import ErrorBody, ErrorResponse
from snapjudge.errors import Draining, EngineBusy, MethodInvalid, NotFound, Problem, RequestInvalid, RequestTooLarge, SnapjudgeError
from snapjudge.serve.keys import Keys
from snapjudge.serve.metrics import Metrics
from snapjudge.serve.settings import ServeSettings
from snapjudge.serve.tracing import note_end, request_span
from snapjudge.serve.unpacking import UNPACKED, too_large

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_log = logging.getLogger("snapjudge.access")
_ID = re.compile(rb"^[A-Za-z0-9._:-]{1,128}$")
_STRINGS, _BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL), re.compile(rb"[\[\]{}]")
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/version", "/healthcheck", "/login/api_key"})  # no key, no rate, and answered while draining
STREAMED = frozenset({("POST", "/v1/files")})  # bodies that are read as they arrive, by bounds of their own
LEFT = 499  # the client is gone


class State(Protocol):
    """What the gate asks of the server."""

    @property
    def draining(self) -> bool:
        """Whether it is stopping."""
        ...

    def check_time(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """See that a request could be answered in time, before its body is read.

        Raises:
            EngineBusy.
        """
        ...


class Gate:
    """Wraps an application."""

    def __init__(self, app: App, settings: ServeSettings, keys: Keys, metrics: Metrics, state: State) -> None:
        self._app, self._settings, self._keys, self._metrics, self._state = app, settings, keys, metrics, state
        self._in_flight, self._most = 0, settings.bounds.body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request, WebSocket, or the lifespan."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        answer = _Answering(send, _request_id(headers), self._settings.bounds.write_seconds)
        scope["state"] = {**scope.get("state", {}), "request_id": answer.request_id, "began": began}
        self._in_flight += 1
        self._metrics.in_flight.set(self._in_flight)
        with request_span(scope["method"], headers, answer.request_id) as span:
            body = await self._guarded(scope, headers, receive, answer)
            self._in_flight -= 1
            self._note(scope, answer, began, body, span)

    async def _guarded(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, answer: "_Answering") -> bytes | None:
        """Answer a request, whatever happens; its body, where all of it was there."""
        body: bytes | None = None
        try:
            streamed = (scope["method"], scope["path"]) in STREAMED
            self._admit(scope, headers, streamed=streamed)
            if streamed:
                await self._app(scope, self._steady(receive), answer)
                return None
            async with asyncio.timeout(self._settings.bounds.body_seconds):
                body = await self._body(headers, receive)
            await self._answered(scope, body, receive, answer)
        except SnapjudgeError as error:
            await self._refuse(answer, error)
        except TimeoutError:
            slow = RequestInvalid("the request", [Problem("body", "not all of it in time", f"within {self._settings.bounds.body_seconds:g} s")])
            slow.status = 408
            await self._refuse(answer, slow, close=True)
        except ConnectionError:
            answer.status = LEFT
        except Exception:  # a fault of ours: the caller hears that there was one, the log has it
            _log.exception("a request failed", extra={"request_id": answer.request_id, "path": scope["path"]})
            await self._refuse(answer, fault())
        return body

    def _admit(self, scope: Scope, headers: Mapping[bytes, bytes], *, streamed: bool = False) -> None:
        """Everything that is decided before a body is read.

        Raises:
            KeyInvalid, RateLimited, RequestTooLarge, RequestInvalid, Draining.
        """
        if scope["path"] in OPEN_PATHS:
            return
        caller = scope["state"]["caller"] = self._keys.caller(headers)
        caller.check_rate()
        if self._state.draining:
            raise Draining("the server is stopping", hint="send it to another one, or again when this one is back", retry_after=1.0)
        if self._in_flight > self._settings.bounds.in_flight:
            raise Draining(f"{self._in_flight - 1} requests are being answered, the most at once", hint="try again in a moment", retry_after=1.0)
        codings = [b"identity"] if streamed else list(UNPACKED)
        if (coding := headers.get(b"content-encoding", b"identity").strip().lower()) not in codings:
            known = ", ".join(name.decode() for name in codings)
            raise _problem("content-encoding", coding.decode("latin-1")[:80], f"one of {known}", status=415)
        most = self._settings.bounds.file_bytes if streamed else self._most
        if (length := headers.get(b"content-length")) is not None and int(length) > most:
            raise too_large(most)
        self._state.check_time(scope["path"], headers)

    def _steady(self, receive: Receive) -> Receive:
        """Its parts have to come one after another without long pauses."""

        async def received() -> Message:
            async with asyncio.timeout(self._settings.bounds.body_seconds):
                return await receive()

        return received

    async def _body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """All of a request's body.

        Raises:
            RequestTooLarge, RequestInvalid. ConnectionError: the client is gone.
        """
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._most:
                raise too_large(self._most)
            if not message.get("more_body", False):
                break
        body = UNPACKED[headers.get(b"content-encoding", b"identity").strip().lower()](parts[0] if len(parts) == 1 else b"".join(parts), self._most)
        if headers.get(b"content-type", b"").startswith(b"multipart/"):
            return body
        if (depth := depth_of(body, self._settings.bounds.body_depth)) > self._settings.bounds.body_depth:
            raise _problem("body", f"JSON nested at least {depth} deep", f"at most {self._settings.bounds.body_depth}")
        return body

    async def _answered(self, scope: Scope, body: bytes, receive: Receive, answer: "_Answering") -> None:
        """Run the application; it is stopped when its client leaves."""
        task, sent = asyncio.current_task(), False
        assert task is not None
        gone = False

        async def whole() -> Message:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.Event().wait()  # nothing more comes; `watch` sees the client leave
            raise AssertionError

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            if not answer.complete:
                gone = True
                task.cancel()

        watcher = asyncio.create_task(watch())
        try:
            await self._app(scope, whole, answer)
        except asyncio.CancelledError:
            if not gone:
                raise
            task.uncancel()
            answer.status = LEFT
        finally:
            watcher.cancel()

    async def _refuse(self, answer: "_Answering", error: SnapjudgeError, *, close: bool = False) -> None:
        """Send an error, unless an answer has begun."""
        self._metrics.refused.labels(error.code).inc()
        answer.code = error.code
        if answer.complete:
            return
        if answer.begun:
            raise ConnectionError
        status, headers, body = error_response(error, answer.request_id)
        if close or isinstance(error, RequestTooLarge | Draining):
            headers.append((b"connection", b"close"))
        try:
            await answer({"type": "http.response.start", "status": status, "headers": headers})
            await answer({"type": "http.response.body", "body": body})
        except ConnectionError:
            answer.status = LEFT

    def _note(self, scope: Scope, answer: "_Answering", began: float, body: bytes | None, span: Span) -> None:
        route = scope.get("route")
        path = getattr(route, "path", "") or (scope["path"] if scope["path"] in OPEN_PATHS else "other")
        seconds = time.perf_counter() - began
        self._metrics.requests.labels(path, str(answer.status)).inc()
        self._metrics.seconds.labels(path).observe(seconds)
        self._metrics.in_flight.set(self._in_flight)
        code = answer.code or str(scope["state"].get("code", ""))
        note_end(span, scope["method"], path, answer.status, code)
        if scope["path"] in OPEN_PATHS and answer.status < 400:
            return
        caller = scope["state"].get("caller")
        extra = {
            "request_id": answer.request_id,
            "method": scope["method"],
            "path": path,
            "status": answer.status,
            "ms": round(seconds * 1000, 2),
            "caller": getattr(caller, "name", ""),
            "code": code,
        }
        if self._settings.log_text and body:
            extra["body"] = body.decode(errors="backslashreplace")
        _log.info("answered", extra=extra)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A WebSocket needs a key as a request does; it is closed before it is accepted where it may not be."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        scope["state"] = {**scope.get("state", {}), "request_id": _request_id(headers), "began": time.perf_counter()}
        try:
            self._admit(scope, headers)
        except SnapjudgeError as error:
            self._metrics.refused.labels(error.code).inc()
            await receive()
            await send({"type": "websocket.close", "code": 1008 if error.status in (401, 403) else 1013, "reason": error.code})
            return
        await self._app(scope, receive, send)


class _Answering:
    """A `send` that adds the request's id, notes the status, and gives up on a client that does not take what it is sent."""

    def __init__(self, send: Send, request_id: str, within: float) -> None:
        self._send, self._within = send, within
        self.request_id = request_id
        self.status, self.code = 0, ""
        self.begun = self.complete = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True
        try:
            async with asyncio.timeout(self._within):
                await self._send(message)
        except TimeoutError:
            raise ConnectionError("the client does not read") from None


def error_response(error: SnapjudgeError, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body that an error becomes."""
    headers = [(b"content-type", b"application/json")]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    wait = error.retry_after if isinstance(error, EngineBusy) else None
    if wait is not None:
        headers += [(b"retry-after", str(max(1, -int(-wait // 1))).encode()), (b"retry-after-ms", str(max(1, round(wait * 1000))).encode())]
    body = ErrorResponse(error=told_of(error), request_id=request_id).model_dump_json(exclude_defaults=True).encode()
    return error.status, [*headers, (b"content-length", str(len(body)).encode())], body


def told_of(error: SnapjudgeError) -> ErrorBody:
    """What callers are told of an error."""
    given = error.as_dict()
    return ErrorBody(
        code=error.code,
        message=_told(given["message"]),
        hint=_told(given["hint"]),
        received=None if error.received is None else _told(error.received)[:200],
        retry_after=error.retry_after if isinstance(error, EngineBusy) else None,
        problems=tuple({name: _told(value) for name, value in vars(one).items() if value is not None} for one in getattr(error, "problems", ())),
    )


def depth_of(body: bytes, most: int) -> int:
    """How deep the brackets of a JSON text are nested, as far as one past `most`; brackets in strings do not count."""
    if body.count(b"[") + body.count(b"{") <= most:
        return 0
    depth = deepest = 0
    for mark in _BRACKETS.findall(_STRINGS.sub(b"", body)):
        depth += 1 if mark in b"[{" else -1
        deepest = max(deepest, depth)
        if deepest > most:
            break
    return deepest


def no_such_path(path: str) -> NotFound:
    """What a path that is not there becomes."""
    return NotFound(f"no such path: {path[:200]}", hint="GET /openapi.json lists all paths", received=path)


def wrong_method(method: str, path: str) -> MethodInvalid:
    """What a method that a path does not take becomes."""
    return MethodInvalid(f"{path[:200]} does not take {method}", hint="GET /openapi.json lists what it takes", received=method)


def _request_id(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _ID.match(given) else f"req_{uuid4().hex}"


def _problem(path: str, found: str, expected: str, *, status: int = 422) -> RequestInvalid:
    error = RequestInvalid("the request", [Problem(path, found, expected)])
    error.status = status
    return error


def fault() -> SnapjudgeError:
    """What callers are told of a fault of ours."""
    error = SnapjudgeError("the server failed on this request", hint="the server's log has the details under this request's id")
    error.code, error.status = "internal", 500
    return error


def _told(value: object) -> str:
    return str(value).encode(errors="backslashreplace").decode()
