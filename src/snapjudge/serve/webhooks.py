"""Telling others what happened: queued, signed, tried again, and never in anybody's way. A queue that is full drops the newest and counts it.

The header `x-snapjudge-signature` is `t=SECONDS,v1=HEX`, where HEX is HMAC-SHA256 over `SECONDS.BODY` with the webhook's secret.
"""

import asyncio
import hashlib
import hmac
import json
import logging
import os
import time
from typing import Any

import httpx
import stamina

from snapjudge.serve.metrics import Metrics

_log = logging.getLogger(__name__)
WAITING, AT_ONCE = 1000, 4
ATTEMPTS, SECONDS = 5, 10.0
SIGNATURE = "x-snapjudge-signature"


class Webhooks:
    """The queue of one server. For one event loop."""

    def __init__(self, metrics: Metrics, *, attempts: int = ATTEMPTS) -> None:
        self._metrics, self._attempts = metrics, attempts
        self._waiting: asyncio.Queue[tuple[str, str, dict[str, Any]]] = asyncio.Queue(WAITING)
        self._client = httpx.AsyncClient(timeout=SECONDS, follow_redirects=False, trust_env=False)
        self._tasks = [asyncio.create_task(self._work()) for _ in range(AT_ONCE)]

    def send(self, url: str, body: dict[str, Any], *, secret_env: str = "") -> None:
        """Queue a call; nobody waits for it."""
        try:
            self._waiting.put_nowait((url, secret_env, body))
        except asyncio.QueueFull:
            self._metrics.webhooks.labels("dropped").inc()

    async def once(self, url: str, body: dict[str, Any], *, secret_env: str = "") -> str:
        """Call now, one time: `sent`, `failed` where another time may help, `refused` where none does."""
        try:
            await self._posted(url, secret_env, _packed(body))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._metrics.webhooks.labels("failed").inc()
            return "failed" if _again(error) else "refused"
        self._metrics.webhooks.labels("sent").inc()
        return "sent"

    async def close(self, seconds: float) -> None:
        """Send what is queued, as far as the time allows."""
        try:
            async with asyncio.timeout(seconds):
                await self._waiting.join()
        except TimeoutError:
            _log.warning("%d webhooks were not sent", self._waiting.qsize())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.aclose()

    async def _work(self) -> None:
        while True:
            url, secret_env, body = await self._waiting.get()
            try:
                await self._called(url, secret_env, _packed(body))
                self._metrics.webhooks.labels("sent").inc()
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                self._metrics.webhooks.labels("failed").inc()
                _log.warning("a webhook could not be called: %s", type(error).__name__)
            finally:
                self._waiting.task_done()

    async def _called(self, url: str, secret_env: str, body: bytes) -> None:
        async for attempt in stamina.retry_context(on=_again, attempts=self._attempts, timeout=None, wait_initial=0.2, wait_max=10.0):
            with attempt:
                await self._posted(url, secret_env, body)

    async def _posted(self, url: str, secret_env: str, body: bytes) -> None:
        headers = {"content-type": "application/json", **signed(os.environ.get(secret_env, "") if secret_env else "", body)}
        response = await self._client.post(url, content=body, headers=headers)
        response.raise_for_status()


def _packed(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, default=str).encode(errors="replace")


def signed(secret: str, body: bytes, now: float | None = None) -> dict[str, str]:
    """The header that signs a body; none without a secret."""
    if not secret:
        return {}
    stamp = str(int(time.time() if now is None else now))
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {SIGNATURE: f"t={stamp},v1={digest}"}


def _again(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in (408, 429)
    return isinstance(error, httpx.TransportError)
