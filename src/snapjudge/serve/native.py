"""The native API: judge, judges and sessions."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from snapjudge.core.api import (
    AliasRequest,
    AppendRequest,
    AppendResponse,
    JudgeList,
    JudgeRequest,
    JudgeResponse,
    LoadedJudge,
    LoadRequest,
    SessionRequest,
    SessionState,
)
from snapjudge.live.modes import as_wanted
from snapjudge.serve.bodies import answered, read_body, takes
from snapjudge.serve.service import caller_of, service_of
from snapjudge.serve.sessions import Session

router = APIRouter()
JudgeName = Annotated[str, Path(max_length=200, description="a judge by version (`tone@1`), name or alias")]
SessionName = Annotated[str, Path(max_length=80)]


@router.post("/v1/judge", response_model=JudgeResponse, openapi_extra=takes(JudgeRequest), tags=["judging"], summary="Judge one or many items")
async def judge(request: Request) -> Response:
    """Each item is read once for all judges and questions; an input that a judge cannot read is that answer's abstention, and the rest go on.

    `x-deadline-ms` says within which time the answers are of use: a request that would miss it is refused at once with 429 and `Retry-After`.
    """
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    service.deadline(request)
    body = await read_body(request, JudgeRequest)
    service.check_judges(caller, body.judges)
    judges = service.judges
    asked = judges.asked(body.judges, body.questions)
    caller.check_judges([one.judge for _, _, one in asked.judges])
    deadline = service.deadline(request, body.deadline_ms)
    escalation = service.escalation if body.escalate else None
    results, spent = await judges.answer(body.asked_of, asked, deadline=deadline)
    results, more = await as_wanted(judges, body.asked_of, asked, results, mode=body.mode, escalation=escalation, deadline=deadline, below=body.escalate_below)
    spent.join(more)
    for one in results:
        service.count(one.answers)
    found = JudgeResponse(request_id=request.state.request_id, results=tuple(results), usage=spent.usage, timings=service.timings(request, spent))
    return answered(found)


@router.get("/v1/judges", response_model=JudgeList, tags=["judges"], summary="The judges that answer")
async def list_judges(request: Request) -> Response:
    """With what each reads, answers and promises, and the names it goes by."""
    caller_of(request).check("judge")
    roster = service_of(request).judges.roster
    return answered(JudgeList(judges=tuple(roster.described()), aliases=dict(roster.aliases)))


@router.post("/v1/judges", response_model=LoadedJudge, status_code=201, openapi_extra=takes(LoadRequest), tags=["judges"], summary="Load a judge")
async def load_judge(request: Request) -> Response:
    """While traffic flows: requests that came before do not see it. A judge that is loaded already stays as it is."""
    service = service_of(request)
    caller_of(request).check("manage")
    body = await read_body(request, LoadRequest)
    loaded = await service.judges.load(body.judge)
    if body.alias:
        await service.judges.point(body.alias, loaded.judge)
    described = next(one for one in service.judges.roster.described() if one.judge == loaded.judge)
    return answered(described, status=201)


@router.delete("/v1/judges/{name}", status_code=204, tags=["judges"], summary="Unload a judge")
async def unload_judge(request: Request, name: JudgeName) -> Response:
    """Its aliases go with it; what it was asked before is answered first."""
    service = service_of(request)
    caller_of(request).check("manage")
    gone = await service.judges.unload(name)
    service.metrics.forget(gone.judge)
    return Response(status_code=204)


@router.put("/v1/aliases/{alias}", status_code=204, openapi_extra=takes(AliasRequest), tags=["judges"], summary="Point an alias at a judge")
async def point_alias(request: Request, alias: Annotated[str, Path(max_length=128)]) -> Response:
    """From the next request on; a request keeps the judge it came for."""
    service = service_of(request)
    caller_of(request).check("manage")
    body = await read_body(request, AliasRequest)
    await service.judges.point(alias, body.judge)
    return Response(status_code=204)


@router.delete("/v1/aliases/{alias}", status_code=204, tags=["judges"], summary="Take an alias away")
async def drop_alias(request: Request, alias: Annotated[str, Path(max_length=128)]) -> Response:
    """The judge stays."""
    caller_of(request).check("manage")
    await service_of(request).judges.point(alias, None)
    return Response(status_code=204)


@router.post("/v1/sessions", response_model=SessionState, status_code=201, openapi_extra=takes(SessionRequest), tags=["sessions"], summary="Open a session")
async def open_session(request: Request) -> Response:
    """A conversation that is judged as it grows. It belongs to its key; with another it is not there."""
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    body = await read_body(request, SessionRequest)
    service.check_judges(caller, body.judges)
    session = service.sessions.open(caller.name, body.judges, body.inputs, body.source)
    return answered(_state(request, session), status=201)


@router.post(
    "/v1/sessions/{session}/append", response_model=AppendResponse, openapi_extra=takes(AppendRequest), tags=["sessions"], summary="Append turns and judge"
)
async def append(request: Request, session: SessionName) -> Response:
    """On causal backbones only the new turns are computed; where it fails, the session is as it was before."""
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    body = await read_body(request, AppendRequest)
    own = service.sessions.find(session, caller.name)
    answers, spent = await service.sessions.append(own, body.messages, judge=body.judge, deadline=service.deadline(request, body.deadline_ms))
    service.count(answers)
    found = AppendResponse(
        request_id=request.state.request_id,
        session=own.number,
        turns=len(own.messages),
        answers=answers,
        usage=spent.usage,
        timings=service.timings(request, spent),
    )
    return answered(found)


@router.get("/v1/sessions/{session}", response_model=SessionState, tags=["sessions"], summary="How a session stands")
async def show_session(request: Request, session: SessionName) -> Response:
    """Its judges, how many turns it has, and when it will be forgotten."""
    caller = caller_of(request)
    caller.check("judge")
    return answered(_state(request, service_of(request).sessions.find(session, caller.name)))


@router.delete("/v1/sessions/{session}", status_code=204, tags=["sessions"], summary="Close a session")
async def close_session(request: Request, session: SessionName) -> Response:
    """What was read of it is let go."""
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    service.sessions.close(service.sessions.find(session, caller.name))
    return Response(status_code=204)


def _state(request: Request, session: Session) -> SessionState:
    left = service_of(request).sessions.left(session)
    names = tuple(judge.judge for _, _, judge in session.asked.judges)
    return SessionState(session=session.number, judges=names, turns=len(session.messages), expires_in_s=round(left, 3))
