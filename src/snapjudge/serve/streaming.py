"""Texts guarded while they are written: appended to and read over plain requests, read over server-sent events, or both ways over a WebSocket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response, WebSocket, WebSocketDisconnect
from pydantic import BaseModel
from starlette.requests import HTTPConnection
from starlette.responses import StreamingResponse

from snapjudge.core.api import StreamAppend, StreamEnd, StreamPiece, StreamRequest, StreamState
from snapjudge.errors import RequestInvalid, SnapjudgeError
from snapjudge.guard.streaming import Ending, StreamGuard
from snapjudge.serve.bodies import answered, parsed, read_body, takes
from snapjudge.serve.gate import told_of
from snapjudge.serve.guarding import asked_for, noted
from snapjudge.serve.service import caller_of, service_of
from snapjudge.serve.streams import Stream

router = APIRouter(tags=["guard"])
StreamName = Annotated[str, Path(max_length=80)]
QUIET_SECONDS = 10.0  # after which a reader of events is told that the connection lives
_UNUSED_CODE, _WRONG_DATA = 1000, 1007


@router.post("/v1/streams", response_model=StreamState, status_code=201, openapi_extra=takes(StreamRequest), summary="Guard a text while it is written")
async def open_stream(request: Request) -> Response:
    """It is looked at every few tokens, and only what a look let through is given on. It belongs to its key; with another it is not there."""
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    body = await read_body(request, StreamRequest)
    guard = _guard_of(request, body)
    stream = service.streams.open(caller.name, guard, lambda ending: _end_of(request, guard, body.source, ending))
    return answered(_state(request, stream), status=201)


@router.post("/v1/streams/{stream}/append", response_model=StreamState, openapi_extra=takes(StreamAppend), summary="Append to a text that is being guarded")
async def append_to_stream(request: Request, stream: StreamName) -> Response:
    """Answers at once with what may go on to the reader by now; with `done`, when all of it was looked at. After the end of a stopped text more is ignored."""
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    body = await read_body(request, StreamAppend)
    own = service.streams.find(stream, caller.name)
    own.append(body.text, done=body.done)
    service.streams.touch(own)
    if body.done and own.task is not None:
        await asyncio.wait([own.task])
    else:
        await asyncio.sleep(0)
    return answered(_state(request, own))


@router.get("/v1/streams/{stream}/events", summary="What may go on to the reader, as it comes", response_class=StreamingResponse)
async def stream_events(request: Request, stream: StreamName) -> Response:
    """Server-sent events `text` and `end` (or `error`), numbered: whoever comes again with `Last-Event-ID` goes on after that one."""
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    own = service.streams.find(stream, caller.name)
    last = request.headers.get("last-event-id", "")
    events = _events(request, own, int(last) if last.isascii() and last.isdigit() else 0)
    return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store", "x-accel-buffering": "no"})


@router.delete("/v1/streams/{stream}", status_code=204, summary="Leave a text that is being guarded")
async def close_stream(request: Request, stream: StreamName) -> Response:
    """Whether or not it has ended."""
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    service.streams.close(service.streams.find(stream, caller.name))
    return Response(status_code=204)


@router.websocket("/v1/guard/stream")
async def guard_socket(socket: WebSocket) -> None:
    """One text: first a `StreamRequest`, then `StreamAppend`s; `StreamPiece`s come back as they are let through, and a `StreamEnd`."""
    await socket.accept()
    try:
        caller_of(socket).check("judge")
        body = await _received(socket, StreamRequest)
        guard = _guard_of(socket, body)
        async for one in guard.run(_written(socket)):
            told = _end_of(socket, guard, body.source, one) if isinstance(one, Ending) else StreamPiece(text=one.text)
            await socket.send_text(told.model_dump_json())
        await socket.close(_UNUSED_CODE)
    except SnapjudgeError as error:
        service_of(socket).metrics.refused.labels(error.code).inc()
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # it may be gone already
            await socket.send_json({"type": "error", "error": told_of(error).model_dump(exclude_defaults=True)})
            await socket.close(_WRONG_DATA if isinstance(error, RequestInvalid) else 1008)
    except WebSocketDisconnect:
        return


async def _written(socket: WebSocket) -> AsyncIterator[str]:
    while True:
        part = await _received(socket, StreamAppend)
        yield part.text
        if part.done:
            return


async def _received(socket: WebSocket, model: type[Any]) -> Any:
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1000))
    return parsed((message.get("text") or "").encode(errors="replace") or message.get("bytes") or b"", model)


async def _events(request: Request, stream: Stream, after: int) -> AsyncIterator[bytes]:
    following = stream.follow(after)
    coming: asyncio.Task[Any] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(following))
            done, _ = await asyncio.wait([coming], timeout=QUIET_SECONDS)
            service_of(request).streams.touch(stream)
            if not done:
                yield b": still here\n\n"
                continue
            place, event = coming.result()
            coming = None
            yield _event(event.type, event, place)
    except StopAsyncIteration:
        return
    except SnapjudgeError as error:
        yield _event("error", told_of(error))
    finally:
        if coming is not None:
            coming.cancel()


def _event(kind: str, value: BaseModel, place: int | None = None) -> bytes:
    number = "" if place is None else f"id: {place}\n"
    return f"{number}event: {kind}\ndata: {value.model_dump_json()}\n\n".encode()


def _guard_of(request: HTTPConnection, body: StreamRequest) -> StreamGuard:
    policy = asked_for(request, body.policy, body.stage)
    service, number = service_of(request), request.state.request_id
    return StreamGuard(service.judges, policy, body.stage, body.inputs, source=body.source, request_id=number, elsewhere=service.elsewhere)


def _end_of(request: HTTPConnection, guard: StreamGuard, source: str, ending: Ending) -> StreamEnd:
    """What the reader is told of the end, which is counted, and put before people where the policy says so."""
    service = service_of(request)
    noted(service, ending.response, ending.guarded.calls)
    service.review_soon(ending.guarded, guard.inputs, source, caller_of(request).name)
    service.metrics.looks.observe(ending.looks)
    return StreamEnd(stopped=ending.stopped, instead=ending.instead, looks=ending.looks, response=ending.response)


def _state(request: Request, stream: Stream) -> StreamState:
    left = service_of(request).streams.left(stream)
    return StreamState(stream=stream.number, text=stream.news(), end=stream.end, expires_in_s=round(left, 3))
