"""`GET /v1/models` as both the `openai` and the `typesafe-sdk` package read it, in both shapes at once: the judges that answer, and the backbone."""

from typing import Any

from fastapi import APIRouter, Request, Response

from snapjudge.core.frozen import Frozen
from snapjudge.errors import JudgeUnknown
from snapjudge.serve.bodies import answered
from snapjudge.serve.service import Service, caller_of, service_of
from snapjudge.serve.wires.questions import OURS

router = APIRouter(tags=["openai", "typesafe"])


class Models(Frozen):
    """The same models in two shapes."""

    object: str = "list"
    data: list[dict[str, Any]]
    models: list[dict[str, str]]


class Model(Frozen):
    """One of them, as the openai package reads it."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "snapjudge"


@router.get("/v1/models", response_model=Models, summary="Models, as the openai and typesafe-sdk packages list them")
async def list_models(request: Request) -> Response:
    """Every name that a judge answers to, and the backbone."""
    caller_of(request).check("judge")
    service = service_of(request)
    told = _names(service)
    data = [Model(id=name, created=service.started).model_dump() for name in told]
    models = [{"name": name, "description": about, "release_date": service.started_on} for name, about in told.items()]
    headers = {"x-typesafe-request-id": request.state.request_id}
    return answered(Models(data=data, models=models), headers=headers)


@router.get("/v1/models/{model}", response_model=Model, summary="One model, as the openai package reads it")
async def show_model(request: Request, model: str) -> Response:
    """By any of its names."""
    caller_of(request).check("judge")
    service = service_of(request)
    if model not in _names(service):
        raise JudgeUnknown(f"no model {model[:200]!r}", hint="GET /v1/models lists them", received=model[:200])
    return answered(Model(id=model, created=service.started))


def _names(service: Service) -> dict[str, str]:
    judges = service.judges
    return {name: one.question for one in judges.roster.described() for name in one.names} | {OURS[0]: f"Open questions, put to {judges.generalist.name}."}
