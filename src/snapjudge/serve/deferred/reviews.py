"""What people are to look at: listed, shown, decided. A key sees its own; one that may manage sees all."""

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from snapjudge.core.later import Review, ReviewDecision, ReviewList
from snapjudge.errors import NotFound, RunConflict
from snapjudge.serve.bodies import answered, read_body, takes
from snapjudge.serve.deferred.observations import MOST_LISTED, at
from snapjudge.serve.service import caller_of, service_of
from snapjudge.store.records import reviews

router = APIRouter(tags=["later"])
ReviewName = Annotated[str, Path(max_length=80)]


@router.get("/v1/reviews", response_model=ReviewList, summary="What people are to look at")
async def list_reviews(
    request: Request,
    queue: Annotated[str, Query(max_length=256)] = "",
    state: Annotated[Literal["open", "decided"], Query()] = "open",
    after: Annotated[int, Query(ge=0, le=1 << 62)] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
) -> Response:
    """The oldest first."""
    service, owner = service_of(request), _owner(request)
    deferred = await service.deferred()
    rows = await deferred.database.read(lambda connection: reviews.some(connection, owner, queue, after, limit, decided=state == "decided"))
    return answered(ReviewList(reviews=tuple(_of(row) for row in rows), next=rows[-1].seq if rows else after))


@router.get("/v1/reviews/{review}", response_model=Review, summary="One of them")
async def show_review(request: Request, review: ReviewName) -> Response:
    """With what was judged, the answers, and what was said of it."""
    return answered(_of(await _row(request, review)))


@router.post("/v1/reviews/{review}", response_model=Review, openapi_extra=takes(ReviewDecision), summary="Say what it is")
async def decide_review(request: Request, review: ReviewName) -> Response:
    """Once; it is kept with who said it."""
    service, caller = service_of(request), caller_of(request)
    await _row(request, review)
    body = await read_body(request, ReviewDecision)
    deferred, now = await service.deferred(), time.time()
    if not await deferred.database.write(lambda connection: reviews.decide(connection, review, body.model_dump(), caller.name, now)):
        raise RunConflict(f"{review} was decided already", hint="GET /v1/reviews/{review} tells by whom", received=review)
    return answered(_of(await _row(request, review)))


def _owner(request: Request) -> str | None:
    caller = caller_of(request)
    caller.check("observe")
    return None if "manage" in caller.may else caller.name


async def _row(request: Request, number: str) -> Any:
    owner = _owner(request)
    deferred = await service_of(request).deferred()
    row = await deferred.database.read(lambda connection: reviews.find(connection, number, owner))
    if row is None:
        raise NotFound(f"no review {number!r}", hint="GET /v1/reviews lists them", received=number)
    return row


def _of(row: Any) -> Review:
    return Review(
        review=row.id,
        queue=row.queue,
        policy=row.policy,
        stage=row.stage,
        reasons=tuple(row.reasons),
        inputs=row.inputs,
        source=row.source,
        answers=tuple(row.answers),
        made_at=at(row.made_at),
        decision=row.decision,
        decided_by=row.decided_by or "",
        decided_at=None if row.decided_at is None else at(row.decided_at),
        place=row.seq,
    )
