"""Bodies of requests: read strictly and in one pass, every problem named; and told to OpenAPI, which then knows them as if the framework had read them."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from snapjudge.errors import Problem, RequestInvalid

T = TypeVar("T", bound=BaseModel)
_TAKEN: dict[str, type[BaseModel]] = {}
_REF = "#/components/schemas/{model}"
_MOST_PROBLEMS = 20


def takes(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """What a route says of the body it reads by `read_body`, for `openapi_extra`."""
    _TAKEN[model.__name__] = model
    content = {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
    return {"requestBody": {"required": required, "content": content}}


async def read_body(request: Request, model: type[T]) -> T:
    """The body of a request as a value.

    Raises:
        RequestInvalid: with every problem, by its place.
    """
    return parsed(await request.body(), model)


def parsed(body: bytes, model: type[T]) -> T:
    """JSON as a value.

    Raises:
        RequestInvalid.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> RequestInvalid:
    """The error that a value's problems become."""
    found = error.errors(include_url=False, include_context=False)
    return RequestInvalid("the request", problems_of(found), hint="GET /openapi.json tells what each path takes", more=max(0, len(found) - _MOST_PROBLEMS))


def problems_of(found: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Pydantic's findings as problems."""
    problems = []
    for one in list(found)[:_MOST_PROBLEMS]:
        where = ".".join(str(part) for part in one.get("loc", ())) or "body"
        problems.append(Problem(where, _short(one.get("input")), str(one["msg"]).removeprefix("Value error, ")))
    return problems


def answered(value: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A value as a response."""
    return Response(value.model_dump_json(), status_code=status, media_type="application/json", headers=headers)


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI of an application, the bodies of `takes` among its schemas."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, summary=app.summary, description=app.description, routes=app.routes, tags=app.openapi_tags)
        _, defined = models_json_schema([(model, "validation") for model in _TAKEN.values()], ref_template=_REF)
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        for name, one in defined.get("$defs", {}).items():
            schemas.setdefault(name, one)
        app.openapi_schema = schema
    return app.openapi_schema


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
