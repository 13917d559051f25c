"""vLLM's `POST /classify`, and its loading and unloading of adapters: an adapter's name is an alias, its path a bundle's folder."""

import time
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field, model_validator

from snapjudge.core.api import Answer
from snapjudge.core.frozen import Frozen
from snapjudge.errors import InputInvalid
from snapjudge.live.judging import Asked
from snapjudge.serve.bodies import answered, read_body, takes
from snapjudge.serve.service import caller_of, service_of
from snapjudge.serve.wires.material import Material, of_messages
from snapjudge.serve.wires.questions import ask

router = APIRouter(tags=["vllm"])


class ClassifyRequest(Frozen):
    """Texts, or a conversation, for one judge."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str = Field(min_length=1, max_length=256)
    input: str | tuple[str, ...] | None = Field(default=None, max_length=65_536_000)
    messages: tuple[dict[str, Any], ...] | None = None

    @model_validator(mode="after")
    def _one(self) -> "ClassifyRequest":
        if (self.input is None) == (self.messages is None) or self.input == ():
            raise ValueError("either `input` or `messages` has to be there, and not both")
        return self


class Classified(Frozen):
    """One class for each text, with the probabilities of all labels in the metric's order."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[dict[str, Any]]
    usage: dict[str, Any]


class LoadAdapter(Frozen):
    """Load a judge under a name."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    lora_name: str = Field(min_length=1, max_length=128)
    lora_path: str = Field(min_length=1, max_length=4096)


class UnloadAdapter(Frozen):
    """Take a name away, and its judge where nothing else points at it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    lora_name: str = Field(min_length=1, max_length=128)


@router.post("/classify", response_model=Classified, openapi_extra=takes(ClassifyRequest), summary="Classify, as vLLM is asked")
async def classify(request: Request) -> Response:
    """The model is a loaded judge."""
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    body = await read_body(request, ClassifyRequest)
    judge = service.judges.roster.find(body.model)
    caller.check_judges([judge.judge])
    if body.messages is not None:
        materials = [of_messages(body.messages)]
    else:
        materials = [Material(body.input)] if isinstance(body.input, str) else [Material(text) for text in body.input or ()]
    found, spent = await ask(request, materials, Asked(((0, body.model, judge),)))
    data = [_told(index, item.answers[0]) for index, item in enumerate(found)]
    usage = {"prompt_tokens": spent.tokens, "total_tokens": spent.tokens, "completion_tokens": 0, "prompt_tokens_details": None}
    return answered(Classified(id=f"classify-{uuid4().hex}", created=int(time.time()), model=judge.judge, data=data, usage=usage))


@router.post("/v1/load_lora_adapter", openapi_extra=takes(LoadAdapter), response_class=Response, summary="Load a judge, as vLLM loads an adapter")
async def load_adapter(request: Request) -> Response:
    """`lora_path` is a bundle's folder on the server's disk, or a judge's name; `lora_name` becomes an alias of it."""
    caller_of(request).check("manage")
    body = await read_body(request, LoadAdapter)
    judges = service_of(request).judges
    loaded = await judges.load(body.lora_path)
    await judges.point(body.lora_name, loaded.judge)
    return Response(f"Success: LoRA adapter '{body.lora_name}' added successfully.", media_type="text/plain")


@router.post("/v1/unload_lora_adapter", openapi_extra=takes(UnloadAdapter), response_class=Response, summary="Unload a judge, as vLLM unloads an adapter")
async def unload_adapter(request: Request) -> Response:
    """The judge stays where another alias points at it."""
    service = service_of(request)
    caller_of(request).check("manage")
    body = await read_body(request, UnloadAdapter)
    judge = service.judges.roster.find(body.lora_name)
    if body.lora_name in service.judges.roster.aliases:
        await service.judges.point(body.lora_name, None)
    if not any(to == judge.judge for to in service.judges.roster.aliases.values()):
        await service.judges.unload(judge.judge)
        service.metrics.forget(judge.judge)
    return Response(f"Success: LoRA adapter '{body.lora_name}' removed successfully.", media_type="text/plain")


def _told(index: int, answer: Answer) -> dict[str, Any]:
    if answer.abstention is not None:
        raise InputInvalid(f"input {index}: {answer.abstention.message}", hint=answer.abstention.hint)
    return {"index": index, "label": answer.label, "probs": list(answer.probabilities.values()), "num_classes": len(answer.probabilities)}
