"""Batches of files: made, followed, stopped, gone on with, their results read; and schedules that make them."""

import time
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from starlette.responses import StreamingResponse

from snapjudge.core.later import Batch, BatchList, BatchRequest, Schedule, ScheduleList, ScheduleRequest
from snapjudge.errors import EngineBusy, NotFound, RunConflict
from snapjudge.live.later import asked_json
from snapjudge.serve.bodies import answered, read_body, takes
from snapjudge.serve.deferred.deferred import Deferred
from snapjudge.serve.deferred.observations import at
from snapjudge.serve.keys import Caller
from snapjudge.serve.service import Service, caller_of, deferred_of, service_of
from snapjudge.store.records import batches

router = APIRouter(tags=["later"])
BatchName = Annotated[str, Path(max_length=80)]
LISTED = 100


@router.post("/v1/batches", response_model=Batch, status_code=202, openapi_extra=takes(BatchRequest), summary="Judge a file's records later")
async def make_batch(request: Request) -> Response:
    """One batch after another, when the engines have room; live requests go first. Its results can be read while it runs."""
    service, caller = service_of(request), caller_of(request)
    caller.check("observe")
    body = await read_body(request, BatchRequest)
    deferred = await service.deferred()
    asked = await _checked(service, caller, deferred, body)
    await _room(deferred, service, caller)
    now, told = time.time(), body.model_dump(mode="json")
    number = await deferred.database.write(lambda connection: batches.make(connection, caller.name, told, asked, now))
    deferred.batches.wake()
    return answered(await _found(deferred, caller, number), status=202)


@router.get("/v1/batches", response_model=BatchList, summary="Batches, the newest first")
async def list_batches(request: Request) -> Response:
    """The last hundred of this key."""
    deferred, caller = await deferred_of(request)
    rows = await deferred.database.read(lambda connection: batches.newest(connection, caller.name, LISTED))
    return answered(BatchList(batches=tuple(_of(row) for row in rows)))


@router.get("/v1/batches/{batch}", response_model=Batch, summary="How a batch stands")
async def show_batch(request: Request, batch: BatchName) -> Response:
    """How far it is, and how long it still needs."""
    deferred, caller = await deferred_of(request)
    return answered(await _found(deferred, caller, batch))


@router.get("/v1/batches/{batch}/results", summary="What was judged so far, as JSON lines", response_class=StreamingResponse)
async def batch_results(request: Request, batch: BatchName) -> Response:
    """One `BatchLine` for each record, in the file's order. Only what is sure to stay is given."""
    deferred, caller = await deferred_of(request)
    row = await _row(deferred, caller, batch)
    return StreamingResponse(_first(deferred.batches.results(batch), row.out_bytes), media_type="application/jsonl")


@router.post("/v1/batches/{batch}/cancel", response_model=Batch, summary="Stop a batch")
async def cancel_batch(request: Request, batch: BatchName) -> Response:
    """What was judged stays, and it can be gone on with."""
    deferred, caller = await deferred_of(request)
    await _row(deferred, caller, batch)
    now = time.time()
    if not await deferred.database.write(lambda connection: batches.cancel(connection, caller.name, batch, now)):
        raise RunConflict(f"{batch} has ended already", hint="GET /v1/batches/{batch} tells how", received=batch)
    return answered(await _found(deferred, caller, batch))


@router.post("/v1/batches/{batch}/resume", response_model=Batch, summary="Go on with a batch that was stopped or failed")
async def resume_batch(request: Request, batch: BatchName) -> Response:
    """From where it was."""
    service = service_of(request)
    deferred, caller = await deferred_of(request)
    await _row(deferred, caller, batch)
    await _room(deferred, service, caller)
    if not await deferred.database.write(lambda connection: batches.resume(connection, caller.name, batch)):
        raise RunConflict(f"{batch} was neither stopped nor did it fail", hint="GET /v1/batches/{batch} tells how it stands", received=batch)
    deferred.batches.wake()
    return answered(await _found(deferred, caller, batch))


@router.post("/v1/schedules", response_model=Schedule, status_code=201, openapi_extra=takes(ScheduleRequest), summary="Plan a batch, once or again and again")
async def make_schedule(request: Request) -> Response:
    """Each turn makes a batch; turns that were missed while no server ran are made up for by one."""
    service = service_of(request)
    deferred, caller = await deferred_of(request)
    body = await read_body(request, ScheduleRequest)
    asked = await _checked(service, caller, deferred, body.batch)
    await _room(deferred, service, caller)
    now, told = time.time(), body.batch.model_dump(mode="json")
    first, every = body.first_at.timestamp(), body.every_s
    number = await deferred.database.write(lambda connection: batches.plan(connection, caller.name, told, asked, first, every, now))
    found = next(one for one in (await _schedules(deferred, caller)).schedules if one.schedule == number)
    return answered(found, status=201)


@router.get("/v1/schedules", response_model=ScheduleList, summary="Planned batches")
async def list_schedules(request: Request) -> Response:
    """All of this key."""
    return answered(await _schedules(*await deferred_of(request)))


@router.delete("/v1/schedules/{schedule}", status_code=204, summary="Forget a planned batch")
async def drop_schedule(request: Request, schedule: BatchName) -> Response:
    """Batches that it has made go on."""
    deferred, caller = await deferred_of(request)
    if not await deferred.database.write(lambda connection: batches.drop_plan(connection, caller.name, schedule)):
        raise NotFound(f"no schedule {schedule!r}", hint="GET /v1/schedules lists them", received=schedule)
    return Response(status_code=204)


async def _checked(service: Service, caller: Caller, deferred: Deferred, body: BatchRequest) -> dict[str, Any]:
    """See that a batch can be made; whom it asks, for later.

    Raises:
        JudgeUnknown, KeyForbidden, NotFound, StorageFailed.
    """
    service.check_judges(caller, body.judges)
    asked = asked_json(service.judges, body.judges, body.questions)
    if body.webhook is not None or body.path:
        caller.check("manage")  # it calls wherever it says, and reads what its sender may not
    if body.path:
        deferred.batches.from_inbox(body.path)
    if body.file and await deferred.database.read(lambda connection: batches.find_file(connection, caller.name, body.file)) is None:
        raise NotFound(f"no file {body.file!r}", hint="POST /v1/files takes one", received=body.file)
    return asked


async def _room(deferred: Deferred, service: Service, caller: Caller) -> None:
    most = service.settings.bounds.batches
    open_ones = await deferred.database.read(lambda connection: batches.unended(connection, caller.name))
    if open_ones >= most:
        raise EngineBusy(f"{open_ones} batches and schedules are open, the most for one key", hint="wait for some, or cancel some", retry_after=60.0)


async def _row(deferred: Deferred, caller: Caller, number: str) -> Any:
    row = await deferred.database.read(lambda connection: batches.find(connection, caller.name, number))
    if row is None:
        raise NotFound(f"no batch {number!r}", hint="GET /v1/batches lists them", received=number)
    return row


async def _found(deferred: Deferred, caller: Caller, number: str) -> Batch:
    return _of(await _row(deferred, caller, number))


async def _schedules(deferred: Deferred, caller: Caller) -> ScheduleList:
    rows = await deferred.database.read(lambda connection: batches.plans(connection, caller.name))
    return ScheduleList(
        schedules=tuple(
            Schedule(schedule=row.id, next_at=None if row.next_at is None else at(row.next_at), every_s=row.every_s, batch=row.request) for row in rows
        )
    )


def _of(row: Any) -> Batch:
    eta = None
    if row.state == "running" and row.done and row.total and row.begun_at:
        eta = round((time.time() - row.begun_at) / row.done * (row.total - row.done), 1)
    return Batch(
        batch=row.id,
        state=row.state,
        total=row.total,
        done=row.done,
        abstained=row.abstained,
        flagged=row.flagged,
        made_at=at(row.made_at),
        begun_at=None if row.begun_at is None else at(row.begun_at),
        ended_at=None if row.ended_at is None else at(row.ended_at),
        eta_s=eta,
        schedule=row.schedule or "",
        error=row.error,
    )


def _first(path: FilePath, size: int) -> Iterator[bytes]:
    """So many bytes of a file that may be growing."""
    if not size:
        return
    with path.open("rb") as file:
        while size and (part := file.read(min(size, 1 << 16))):
            size -= len(part)
            yield part
