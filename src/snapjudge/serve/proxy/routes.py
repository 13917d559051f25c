"""What a proxy serves: guarded chat completions, and the paths of its endpoint that go through as they are."""

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Path, Request, Response
from pydantic import ConfigDict, Field
from starlette.responses import StreamingResponse

from snapjudge.core.api import GuardResponse
from snapjudge.core.frozen import Frozen
from snapjudge.errors import UpstreamFailed
from snapjudge.guard.guarding import Guarded
from snapjudge.serve.bodies import parsed, takes
from snapjudge.serve.gate import no_such_path
from snapjudge.serve.guarding import noted
from snapjudge.serve.proxy.stages import Exchange, instead_of
from snapjudge.serve.proxy.streamed import DONE, guarded_events
from snapjudge.serve.proxy.upstream import body_of, told_headers
from snapjudge.serve.service import caller_of, service_of

router = APIRouter(tags=["proxy"])
_EVENTS = {"cache-control": "no-store", "x-accel-buffering": "no"}


class ProxiedRequest(Frozen):
    """A chat request; what is not named here goes on as it came."""

    model_config = ConfigDict(frozen=True, extra="allow")

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=4096)
    model: str = Field(default="", max_length=256)
    stream: bool | None = None
    n: int | None = Field(default=None, ge=1, le=128)


@router.post("/v1/chat/completions", openapi_extra=takes(ProxiedRequest), summary="A guarded chat completion")
async def complete(request: Request) -> Response:
    """What is asked is looked at before it is sent, what is answered before it is given back: streams as they are written, tool calls once they are whole.

    What the policy stops is answered with its message and `finish_reason: content_filter`; what the guard found stands under `snapjudge`.
    """
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    body = parsed(await request.body(), ProxiedRequest)

    def note(found: Guarded, inputs: Mapping[str, Any]) -> None:
        noted(service, found.response, found.calls)
        service.review_soon(found, inputs, "", caller.name)

    exchange = Exchange(
        judges=service.judges,
        policy=service.policies.find(service.upstream_terms.policy.name),
        request_id=request.state.request_id,
        elsewhere=service.elsewhere,
        note=note,
        messages=[dict(one) for one in body.messages],
    )
    found = await exchange.before()
    if found is not None:
        return _answered_instead(body, exchange, found)
    sent = json.dumps({**body.model_dump(exclude_unset=True), "messages": exchange.messages}, ensure_ascii=False).encode(errors="replace")
    response = await service.upstream.send("POST", "/chat/completions", request.headers, sent, request.url.query)
    if response.status_code != 200:
        return Response(await body_of(response), status_code=response.status_code, headers=told_headers(response))
    if body.stream:
        return StreamingResponse(guarded_events(response, exchange, body.n or 1), media_type="text/event-stream", headers={**told_headers(response), **_EVENTS})
    whole = _completion(await body_of(response))
    for choice in whole["choices"]:
        await exchange.after(choice)
    whole["snapjudge"] = exchange.told
    return Response(json.dumps(whole, ensure_ascii=False).encode(errors="replace"), headers=told_headers(response), media_type="application/json")


@router.api_route("/v1/{path:path}", methods=["GET", "POST", "DELETE"], include_in_schema=False)
async def pass_through(request: Request, path: Annotated[str, Path(max_length=512)]) -> Response:
    """A path that goes through as it is; others are not there."""
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    if not any(f"/{path}" == one or f"/{path}".startswith(f"{one}/") for one in service.upstream_terms.passed) or ".." in path:
        raise no_such_path(request.url.path)
    response = await service.upstream.send(request.method, f"/{path}", request.headers, await request.body(), request.url.query)
    return Response(await body_of(response), status_code=response.status_code, headers=told_headers(response))


def _completion(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
        choices = found["choices"]
        if not all(isinstance(one, dict) for one in choices):
            raise TypeError
    except (ValueError, TypeError, KeyError):
        raise UpstreamFailed("the endpoint's answer is no chat completion", hint="is --upstream an OpenAI-compatible chat endpoint?") from None
    assert isinstance(found, dict)
    return found


def _answered_instead(body: ProxiedRequest, exchange: Exchange, found: GuardResponse) -> Response:
    """The answer of a policy, without the model being asked."""
    text, reason = instead_of(found)
    own = {"id": f"chatcmpl-{uuid4().hex}", "created": int(time.time()), "model": body.model}
    told = {"snapjudge": exchange.told}
    if not body.stream:
        message = {"role": "assistant", "content": text, "refusal": None}
        choices = [{"index": index, "message": message, "finish_reason": reason, "logprobs": None} for index in range(body.n or 1)]
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        whole = {**own, "object": "chat.completion", "choices": choices, "usage": usage, **told}
        return Response(json.dumps(whole, ensure_ascii=False).encode(errors="replace"), media_type="application/json")
    events = []
    for index in range(body.n or 1):
        for delta, why in (({"role": "assistant", "content": text}, None), ({}, reason)):
            choice = {"index": index, "delta": delta, "finish_reason": why, "logprobs": None}
            events.append({**own, "object": "chat.completion.chunk", "choices": [choice], **(told if why else {})})
    lines = [f"data: {json.dumps(one, ensure_ascii=False)}\n\n".encode(errors="replace") for one in events]
    return StreamingResponse(iter([*lines, DONE]), media_type="text/event-stream", headers=_EVENTS)
