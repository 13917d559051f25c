"""Whether the server lives and is ready, what it counts, which version it is."""

from fastapi import APIRouter, Request, Response

from snapjudge import __version__
from snapjudge.core.api import Health, Version
from snapjudge.serve.bodies import answered
from snapjudge.serve.service import service_of

router = APIRouter(tags=["operations"])


@router.get("/healthz", response_model=Health, summary="Alive")
async def healthz() -> Response:
    """200 as long as the process answers at all."""
    return answered(Health(status="ok"))


@router.get("/readyz", response_model=Health, summary="Ready", responses={503: {"model": Health}})
async def readyz(request: Request) -> Response:
    """200 once the judges are loaded and every backbone has an engine that runs; 503 while they start, while none runs, and while the server stops."""
    health = service_of(request).health
    return answered(health, status=200 if health.status in ("ok", "degraded") else 503)


@router.get("/version", response_model=Version, summary="Version")
async def version() -> Response:
    """Of the server."""
    return answered(Version(snapjudge=__version__))


@router.get("/metrics", summary="Metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    return Response(service_of(request).metrics.text, media_type="text/plain; version=0.0.4")
