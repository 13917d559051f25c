"""ASGI middleware: JSON requests and answers of an application, looked at by policies on their way.

    app.add_middleware(GuardMiddleware, paths={"/chat": Guarded(input="/message", output="/reply")}, policy="support")

A JSON pointer (RFC 6901) says which text is looked at; what a policy changes is put back there. A blocked request is answered with 403 and what the policy
says.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from snapjudge.client.asynchronous import AsyncClient
from snapjudge.client.guards import PolicyLike, passed
from snapjudge.errors import Blocked, OptionInvalid

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
MOST = 4 << 20  # bytes of a body that is looked at


@dataclass(frozen=True)
class Guarded:
    """Where in a path's JSON the texts are; None: not looked at."""

    input: str | None = None
    output: str | None = None


class GuardMiddleware:
    """Wraps an application.

    Args:
        paths: which are looked at, and where in their JSON.
        policy: a name, or all of it; its stages `input` and `output` are used.
        client: one of SNAPJUDGE_URL and SNAPJUDGE_API_KEY unless said.
    """

    def __init__(self, app: App, *, paths: Mapping[str, Guarded], policy: PolicyLike, client: AsyncClient | None = None) -> None:
        if odd := [at for one in paths.values() for at in (one.input, one.output) if at is not None and not at.startswith("/")]:
            raise OptionInvalid(f"{odd[0]!r} is no JSON pointer", hint="such as /message or /messages/0/content", received=odd[0])
        self._app, self._paths, self._policy = app, dict(paths), policy
        self._client = client or AsyncClient()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        terms = self._paths.get(scope.get("path", "")) if scope["type"] == "http" else None
        if terms is None:
            await self._app(scope, receive, send)
            return
        try:
            body = await _whole(receive)
            asked, instead = "", False
            if terms.input is not None:
                body, asked, instead = await self._input(body, terms)
            if instead:
                await _answer(send, 200, {"text": asked})
                return
            if terms.output is None:
                await self._app(_sized(scope, body), _once(body, receive), send)
            else:
                await self._output(_sized(scope, body), _once(body, receive), send, terms.output, asked)
        except Blocked as error:
            await _answer(send, error.status, {"error": error.as_dict()})

    async def _input(self, body: bytes, terms: Guarded) -> tuple[bytes, str, bool]:
        """The body with its text as it came through, that text, and whether it is an answer already."""
        data = _parsed(body)
        text = at(data, terms.input or "")
        if not isinstance(text, str) or not text:
            return body, "", False
        found = passed(await self._client.guard(self._policy, "input", input=text))
        if found.instead:
            return body, found.text, True
        return (body if found.text == text else json.dumps(put(data, terms.input or "", found.text)).encode()), found.text, False

    async def _output(self, scope: MutableMapping[str, Any], receive: Receive, send: Send, pointer: str, asked: str) -> None:
        """Hold the answer back until it was looked at."""
        start: Message = {}
        parts: list[bytes] = []

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif message["type"] == "http.response.body":
                parts.append(message.get("body", b""))

        await self._app(scope, receive, hold)
        body = b"".join(parts)
        data = _parsed(body) if 200 <= int(start.get("status", 500)) < 300 else None
        text = at(data, pointer)
        if isinstance(text, str) and text:
            fields: dict[str, Any] = {"output": text, **({"input": asked} if asked else {})}
            left = passed(await self._client.guard(self._policy, "output", **fields)).text
            if left != text:
                body = json.dumps(put(data, pointer, left), ensure_ascii=False).encode()
        headers = [(name, value) for name, value in start.get("headers", ()) if name.lower() != b"content-length"]
        await send({**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})


def at(data: Any, pointer: str) -> Any:
    """What a JSON pointer points at; None where there is nothing."""
    for part in _parts(pointer):
        if isinstance(data, list):
            index = int(part) if part.lstrip("-").isdigit() else len(data)
            data = data[index] if -len(data) <= index < len(data) else None
        else:
            data = data.get(part) if isinstance(data, dict) else None
    return data


def put(data: Any, pointer: str, value: str) -> Any:
    """The data with another value there."""
    *way, last = _parts(pointer)
    inner = data
    for part in way:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    inner[int(last) if isinstance(inner, list) else last] = value
    return data


def _parts(pointer: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


async def _whole(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if sum(map(len, parts)) > MOST:
            raise Blocked(f"the request is larger than the {MOST} bytes that are looked at", hint="send less at once")
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return b"".join(parts)


def _once(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _sized(scope: MutableMapping[str, Any], body: bytes) -> MutableMapping[str, Any]:
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}


async def _answer(send: Send, status: int, body: Mapping[str, Any]) -> None:
    raw = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": raw})
