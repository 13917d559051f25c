"""The endpoint behind a proxy: asked with what callers send, less what is between them and the proxy alone. Knows nothing of guards."""

import json
import os
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx

from snapjudge.errors import EndpointInvalid, Problem, UpstreamFailed
from snapjudge.serve.settings import Upstream

_CONNECT_SECONDS = 10.0
_CONNECTION = ("host", "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade")
_BODY = ("content-length", "content-encoding", "accept-encoding")  # it is written anew
_OURS = frozenset({*_CONNECTION, *_BODY, "x-deadline-ms", "x-request-id"})
_KEYS = ("authorization", "x-api-key", "api-key")
_DONE = "[DONE]"


class UpstreamClient:
    """One endpoint. For one event loop.

    Raises:
        EndpointInvalid: its key is not in the environment.
    """

    def __init__(self, terms: Upstream) -> None:
        self._base = str(terms.url).rstrip("/")
        self._key = os.environ.get(terms.key_env, "") if terms.key_env else ""
        if terms.key_env and not self._key:
            raise EndpointInvalid("the proxy's endpoint", [Problem("key", f"{terms.key_env} is not set", "the endpoint's key in that environment variable")])
        timeout = httpx.Timeout(terms.seconds, connect=_CONNECT_SECONDS)
        self._client = httpx.AsyncClient(timeout=timeout, follow_redirects=False, limits=httpx.Limits(max_connections=None, max_keepalive_connections=64))

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes, query: str = "") -> httpx.Response:
        """Ask it; the response's body is still to be read, and the response to be closed.

        Raises:
            UpstreamFailed: it cannot be reached.
        """
        own = {name: value for name, value in headers.items() if name.lower() not in _OURS}
        if self._key:
            own = {name: value for name, value in own.items() if name.lower() not in _KEYS}
            own["authorization"] = f"Bearer {self._key}"
        url = f"{self._base}{path}{f'?{query}' if query else ''}"
        request = self._client.build_request(method, url, headers={**own, "accept-encoding": "identity"}, content=body)
        try:
            return await self._client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise _failed(error) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


async def body_of(response: httpx.Response) -> bytes:
    """All of a response's body; it is closed.

    Raises:
        UpstreamFailed.
    """
    try:
        return await response.aread()
    except httpx.HTTPError as error:
        raise _failed(error) from error
    finally:
        await response.aclose()


async def events_of(response: httpx.Response) -> AsyncGenerator[dict[str, Any]]:
    """The chunks of a streamed completion, up to its end.

    Raises:
        UpstreamFailed: it breaks off, or sends something else.
    """
    try:
        async for line in response.aiter_lines():
            if not line.startswith("data:"):
                continue
            data = line[5:].strip()
            if data == _DONE:
                return
            chunk = json.loads(data)
            if not isinstance(chunk, dict):
                raise UpstreamFailed("the endpoint's stream holds something that is no chunk", hint="is it an OpenAI-compatible chat endpoint?")
            yield chunk
    except httpx.HTTPError as error:
        raise _failed(error) from error
    except ValueError as error:
        raise UpstreamFailed("the endpoint's stream holds something that is no JSON", hint="is it an OpenAI-compatible chat endpoint?") from error


def told_headers(response: httpx.Response) -> dict[str, str]:
    """The headers of a response that callers get."""
    kept = {name: value for name, value in response.headers.items() if name.lower() not in _OURS and name.lower() != "set-cookie"}
    theirs = response.headers.get("x-request-id")
    return {**kept, "x-upstream-request-id": theirs} if theirs else kept


def _failed(error: httpx.HTTPError) -> UpstreamFailed:
    return UpstreamFailed(
        f"the endpoint behind the proxy: {type(error).__name__}: {error}"[:300], hint="is it up, and --upstream right? The call was not repeated"
    )
