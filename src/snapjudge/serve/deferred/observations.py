"""Observations: traffic that is judged later, for monitoring. They are answered once they are on the disk."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response

from snapjudge.core.later import Observation, ObservationList, ObservationRequest, ObservationsTaken
from snapjudge.errors import EngineBusy, NotFound
from snapjudge.live.later import asked_json
from snapjudge.serve.bodies import answered, read_body, takes
from snapjudge.serve.service import caller_of, deferred_of, service_of
from snapjudge.store.records import observations
from snapjudge.store.records.observations import New

router = APIRouter(tags=["later"])
MOST_LISTED = 1000


@router.post(
    "/v1/observations", response_model=ObservationsTaken, status_code=202, openapi_extra=takes(ObservationRequest), summary="Take items in, to be judged later"
)
async def observe(request: Request) -> Response:
    """Answered once they are on the server's disk. They are judged when the engines have room, each once in the record however often the server stops."""
    service, caller = service_of(request), caller_of(request)
    caller.check("observe")
    body = await read_body(request, ObservationRequest)
    service.check_judges(caller, body.judges)
    asked = asked_json(service.judges, body.judges, body.questions)
    deferred = await service.deferred()
    new = [New(one.id, one.model_dump(mode="json"), asked) for one in body.items]
    most, now = service.settings.bounds.waiting, time.time()
    ids = await deferred.database.write(lambda connection: observations.take(connection, caller.name, new, now, most))
    if ids is None:
        raise EngineBusy(f"{most} observations wait, as many as may", hint="they are judged when the engines have room; try again later", retry_after=30.0)
    deferred.later.wake()
    return answered(ObservationsTaken(request_id=request.state.request_id, observations=tuple(ids)), status=202)


@router.get("/v1/observations", response_model=ObservationList, summary="What was judged")
async def list_observations(
    request: Request,
    after: Annotated[int, Query(ge=0, le=1 << 62, description="the place after which to go on: `next` of the list before")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
    source: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    """In the order in which it was: whoever goes on from `next` misses nothing and reads nothing twice."""
    deferred, caller = await deferred_of(request)
    rows = await deferred.database.read(lambda connection: observations.since(connection, caller.name, after, limit, source))
    return answered(ObservationList(observations=tuple(_of(row) for row in rows), next=rows[-1].seq if rows else after))


@router.get("/v1/observations/{observation}", response_model=Observation, summary="One observation")
async def show_observation(request: Request, observation: Annotated[str, Path(max_length=80)]) -> Response:
    """Whether it waits, or what was answered."""
    deferred, caller = await deferred_of(request)
    found = await deferred.database.read(lambda connection: observations.find(connection, caller.name, observation))
    if found is None:
        raise NotFound(f"no observation {observation!r}", hint="it is another key's, was forgotten, or never was", received=observation)
    row, done = found
    return answered(_of(row) if done else Observation(observation=row.id, id=row.given_id or "", state="waiting", taken_at=at(row.taken_at)))


def _of(row: Any) -> Observation:
    return Observation(
        observation=row.id,
        id=row.given_id or "",
        source=row.source,
        state="judged" if row.error is None else "failed",
        taken_at=at(row.taken_at),
        judged_at=at(row.judged_at),
        answers=tuple(row.answers),
        error=row.error,
        inputs=None if row.item is None else row.item.get("inputs"),
        place=row.seq,
    )


def at(seconds: float) -> datetime:
    """Seconds of the epoch as a time for the wire."""
    return datetime.fromtimestamp(seconds, UTC)
