"""`POST /v1/chat/completions` with a judge as the model: its label is the answer, its probabilities the `logprobs`. Streamed where asked for, in one piece.

What is judged is the conversation that is sent; one user's message alone is a text.
"""

import json
import math
import time
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field
from starlette.responses import StreamingResponse

from snapjudge.core.api import Answer
from snapjudge.core.frozen import Frozen
from snapjudge.errors import InputInvalid, JudgeUnknown
from snapjudge.live.judging import Asked
from snapjudge.serve.bodies import answered, read_body, takes
from snapjudge.serve.service import caller_of, service_of
from snapjudge.serve.wires.material import of_messages
from snapjudge.serve.wires.questions import ask

router = APIRouter(tags=["openai"])


class ChatRequest(Frozen):
    """What of a chat request counts here; sampling options are taken and have nothing to sample."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str = Field(min_length=1, max_length=256)
    messages: tuple[dict[str, Any], ...] = Field(min_length=1, max_length=4096)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=255)
    stream: bool | None = None


class ChatCompletion(Frozen):
    """One choice: the judge's label."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, int]


@router.post("/v1/chat/completions", response_model=ChatCompletion, openapi_extra=takes(ChatRequest), summary="A judge as a chat model")
async def complete(request: Request) -> Response:
    """`logprobs` are those of the calibrated probabilities, one for each label with `top_logprobs`."""
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    body = await read_body(request, ChatRequest)
    try:
        judge = service.judges.roster.find(body.model)
    except JudgeUnknown as error:
        raise JudgeUnknown(
            f"no judge {body.model!r} to chat with", hint="the model is a loaded judge; GET /v1/models lists them", received=body.model
        ) from error
    caller.check_judges([judge.judge])
    (item,), spent = await ask(request, [of_messages(body.messages)], Asked(((0, body.model, judge),)))
    (answer,) = item.answers
    if answer.abstention is not None or answer.label is None:
        told = answer.abstention
        raise InputInvalid(told.message if told else "no answer", hint=told.hint if told else "")
    choice = {"index": 0, "finish_reason": "stop", "logprobs": _logprobs(answer, body.top_logprobs or 0) if body.logprobs else None}
    found = ChatCompletion(
        id=f"chatcmpl-{uuid4().hex}",
        created=int(time.time()),
        model=judge.judge,
        choices=[{**choice, "message": {"role": "assistant", "content": answer.label}}],
        usage={"prompt_tokens": spent.tokens, "completion_tokens": 1, "total_tokens": spent.tokens + 1},
    )
    return _streamed(found, choice, answer.label) if body.stream else answered(found)


def _logprobs(answer: Answer, top: int) -> dict[str, Any]:
    ranked = sorted(answer.probabilities.items(), key=lambda pair: -pair[1])
    alternatives = [_token(label, p) for label, p in ranked[:top]]
    return {"content": [{**_token(str(answer.label), answer.probabilities[str(answer.label)]), "top_logprobs": alternatives}], "refusal": None}


def _token(label: str, p: float) -> dict[str, Any]:
    return {"token": label, "logprob": math.log(max(p, 1e-300)), "bytes": list(label.encode())}


def _streamed(found: ChatCompletion, choice: dict[str, Any], label: str) -> Response:
    own = {"id": found.id, "object": "chat.completion.chunk", "created": found.created, "model": found.model}
    first = {**own, "choices": [{**choice, "finish_reason": None, "delta": {"role": "assistant", "content": label}}]}
    last = {**own, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": None}], "usage": found.usage}
    lines = [f"data: {json.dumps(one)}\n\n" for one in (first, last)]
    return StreamingResponse(iter([*lines, "data: [DONE]\n\n"]), media_type="text/event-stream")
