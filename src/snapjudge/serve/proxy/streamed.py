"""A streamed chat completion, guarded as it is written: each text of each choice by a guard of its own, tool calls once they are whole.

What goes on is written anew from what was judged: `logprobs`, which spell out the text, and fields that nobody judged stay behind.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx

from snapjudge.errors import SnapjudgeError
from snapjudge.guard.streaming import Ending
from snapjudge.serve.gate import told_of
from snapjudge.serve.proxy.stages import SPOKEN, Exchange, instead_of
from snapjudge.serve.proxy.upstream import events_of

_OWN = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
DONE = b"data: [DONE]\n\n"


async def guarded_events(response: httpx.Response, exchange: Exchange, choices: int) -> AsyncIterator[bytes]:
    """The events that a caller gets; the endpoint is left as soon as all choices have ended.

    Args:
        choices: how many the caller asked for.
    """
    own = _Streamed(response, exchange, choices)
    work = asyncio.create_task(own.work())
    try:
        while (event := await own.events.get()) is not None:
            yield event
        yield DONE
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


class _Streamed:
    def __init__(self, response: httpx.Response, exchange: Exchange, choices: int) -> None:
        self._response, self._exchange, self._wanted = response, exchange, choices
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._own: dict[str, Any] = {"object": "chat.completion.chunk"}
        self._choices: dict[int, _Choice] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._usage: Any = None
        self._all_stopped = asyncio.Event()

    async def work(self) -> None:
        """Read the endpoint, and let every choice run to its end."""
        reading, stopped = asyncio.create_task(self._read()), asyncio.create_task(self._all_stopped.wait())
        try:
            await asyncio.wait([reading, stopped], return_when=asyncio.FIRST_COMPLETED)
            failure = reading.exception() if reading.done() else None
            for choice in self._choices.values():
                choice.close(broken=failure is not None)
            await asyncio.gather(*self._tasks)
            if failure is not None:
                raise failure
            if self._usage is not None:
                self._send({"choices": [], "usage": self._usage})
        except SnapjudgeError as error:
            self.events.put_nowait(_data({"error": told_of(error).model_dump(exclude_defaults=True)}))
        finally:
            for task in (reading, stopped, *self._tasks):
                task.cancel()
            await asyncio.gather(reading, stopped, *self._tasks, return_exceptions=True)
            await self._response.aclose()
            self.events.put_nowait(None)

    async def _read(self) -> None:
        """Hand the endpoint's chunks to the choices."""
        async with aclosing(events_of(self._response)) as chunks:
            async for chunk in chunks:
                self._take(chunk)

    def _take(self, chunk: dict[str, Any]) -> None:
        self._own = {name: chunk[name] for name in _OWN if name in chunk} or self._own
        self._usage = chunk.get("usage") or self._usage
        if "error" in chunk:
            self.events.put_nowait(_data({"error": chunk["error"]}))
        for one in chunk.get("choices") or ():
            index = int(one.get("index") or 0)
            if index not in self._choices:
                self._choices[index] = choice = _Choice(self._exchange, lambda delta, reason, index=index: self._choice(index, delta, reason))
                self._tasks.append(asyncio.create_task(choice.work()))
                self._choice(index, {"role": "assistant", "content": ""}, None)
            self._choices[index].take(one.get("delta") or {}, one.get("finish_reason"))

    def _choice(self, index: int, delta: dict[str, Any], reason: str | None) -> None:
        more = {"snapjudge": self._exchange.told} if reason else {}
        if len(self._choices) >= self._wanted and all(one.stopped for one in self._choices.values()):
            self._all_stopped.set()  # nobody waits for what the endpoint still has to say
        self._send({"choices": [{"index": index, "delta": delta, "finish_reason": reason, "logprobs": None}], **more})

    def _send(self, chunk: dict[str, Any]) -> None:
        self.events.put_nowait(_data({**self._own, **chunk}))


class _Choice:
    """One choice: its texts by the fields they stand in, and its tool calls."""

    def __init__(self, exchange: Exchange, send: Any) -> None:
        self._exchange, self._send = exchange, send
        self._texts: dict[str, asyncio.Queue[str | None]] = {}
        self._guards: list[asyncio.Task[None]] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._reason = "stop"
        self._whole = asyncio.Event()
        self._broken = False
        self.stopped = False

    def take(self, delta: dict[str, Any], reason: str | None) -> None:
        """The next part of it."""
        self._reason = reason or self._reason
        if self.stopped:
            return
        for name in SPOKEN:
            if isinstance(delta.get(name), str) and delta[name]:
                if name not in self._texts:
                    self._texts[name] = asyncio.Queue()
                    self._guards.append(asyncio.create_task(self._guard(name, self._texts[name])))
                self._texts[name].put_nowait(delta[name])
        for call in delta.get("tool_calls") or ():
            self._join(int(call.get("index") or 0), call)
        if delta.get("function_call"):
            self._join(-1, {"function": delta["function_call"]})

    def close(self, *, broken: bool) -> None:
        """Nothing more comes; where the endpoint broke off, it has no end."""
        self._broken = broken
        for text in self._texts.values():
            text.put_nowait(None)
        self._whole.set()

    async def work(self) -> None:
        """Let it run to its end."""
        try:
            await self._whole.wait()
            await asyncio.gather(*self._guards)
            if not (self.stopped or self._broken):
                await self._call()
        finally:
            for task in self._guards:
                task.cancel()
            await asyncio.gather(*self._guards, return_exceptions=True)

    async def _guard(self, name: str, text: "asyncio.Queue[str | None]") -> None:
        async def written() -> AsyncIterator[str]:
            while (part := await text.get()) is not None:
                yield part

        guard = self._exchange.stream()
        async with aclosing(guard.run(written())) as looked_at:
            async for one in looked_at:
                if self.stopped:  # another of its texts was
                    return
                if not isinstance(one, Ending):
                    self._send({name: one.text}, None)
                    continue
                self._exchange.noted(one.guarded, guard.inputs)
                if one.stopped:
                    _, reason = instead_of(one.response)
                    self._stop(one.instead, reason)

    async def _call(self) -> None:
        """Look at its tool calls, and end it."""
        for call in self._calls.values():
            function = call.get("function") or call.get("custom")
            found = await self._exchange.call(function) if isinstance(function, dict) else None
            if found is not None:
                self._stop(*instead_of(found))
                return
        for index, call in sorted(self._calls.items()):
            self._send({"function_call": call["function"]} if index < 0 else {"tool_calls": [{"index": index, **call}]}, None)
        self._send({}, self._reason)

    def _stop(self, instead: str, reason: str) -> None:
        self.stopped = True
        if instead:
            self._send({"content": instead}, None)
        self._send({}, reason)

    def _join(self, index: int, part: dict[str, Any]) -> None:
        """A tool call comes in parts: its arguments are put together, the rest is said once."""
        call = self._calls.setdefault(index, {})
        for name, value in part.items():
            if name in ("function", "custom") and isinstance(value, dict):
                own = call.setdefault(name, {})
                for key, text in value.items():
                    own[key] = own.get(key, "") + text if key in ("arguments", "input") and isinstance(text, str) else text or own.get(key)
            elif name != "index" and value is not None:
                call[name] = value


def _data(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode(errors="replace") + b"\n\n"
