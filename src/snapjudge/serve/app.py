"""The application: routes, error bodies, and the gate around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from snapjudge import __version__
from snapjudge.core.api import ErrorResponse
from snapjudge.errors import RequestInvalid, SnapjudgeError
from snapjudge.serve import api_page, guarding, health, native, streaming
from snapjudge.serve.bodies import describe, problems_of
from snapjudge.serve.deferred import batches, files, observations, reviews
from snapjudge.serve.gate import Gate, error_response, fault, no_such_path, wrong_method
from snapjudge.serve.proxy import routes as proxy
from snapjudge.serve.service import Service
from snapjudge.serve.settings import ServeSettings
from snapjudge.serve.wires import chat, decisions, galileo, litellm, models, moderations, systemone, vllm

_ABOUT = "Single-token judges in front of live traffic: each content is read once and judged by many. Every refusal has the same body, with the next step."
_REFUSALS = {
    401: "no API key, or an unknown one",
    403: "a key that may not do this",
    404: "no such thing",
    408: "a body that took too long",
    409: "in the way of something else",
    413: "a body that is too large",
    415: "a compression that is not known",
    422: "a body that cannot be read",
    429: "busy, or a key's rate: `Retry-After` says when to come again",
    503: "stopping, or no engine runs just now: `Retry-After` says when to come again",
    504: "its turn came after its deadline",
}


def make_app(settings: ServeSettings) -> tuple[Gate, Service]:
    """A server's application and its parts; the engines start with its lifespan."""
    service = Service(settings)
    app = make_routes(service)
    return Gate(app, settings, service.keys, service.metrics, service), service


def make_routes(service: Service) -> FastAPI:
    """All routes, without the gate around them."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.begin()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(
        title="snapjudge",
        version=__version__,
        summary="Single-token judges in front of live traffic.",
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={status: {"model": ErrorResponse, "description": told} for status, told in _REFUSALS.items()},
    )
    app.state.service = service
    wires = (decisions, systemone, models, moderations, chat, vllm, litellm, galileo) if service.settings.upstream is None else (proxy,)
    for part in (api_page, native, guarding, streaming, observations, files, batches, reviews, health, *wires):
        app.include_router(part.router)
    app.add_exception_handler(SnapjudgeError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _plain)
    app.add_exception_handler(Exception, _fault)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    return app


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, SnapjudgeError)
    return _response(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _response(request, RequestInvalid("the request", problems_of(error.errors()), hint="GET /openapi.json tells what each path takes"))


async def _fault(request: Request, _: Exception) -> Response:
    """A fault of ours: the gate logs it, for it is raised again."""
    return _response(request, fault())


async def _plain(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    found = wrong_method(request.method, request.url.path) if error.status_code == 405 else no_such_path(request.url.path)
    return _response(request, found)


def _response(request: Request, error: SnapjudgeError) -> Response:
    request.app.state.service.metrics.refused.labels(error.code).inc()
    request.state.code = error.code
    status, headers, body = error_response(error, request.state.request_id)
    response = Response(body, status_code=status)
    response.raw_headers += [header for header in headers if header[0] != b"content-length"]
    return response
