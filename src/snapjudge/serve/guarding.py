"""`POST /v1/guard`, and the policies that are loaded."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from pydantic import RootModel
from starlette.requests import HTTPConnection

from snapjudge.core.api import GuardRequest, GuardResponse, PolicyList, PolicyState
from snapjudge.core.policy import Policy, Stage
from snapjudge.errors import JudgeUnknown, PolicyInvalid
from snapjudge.guard.guarding import Call, guard
from snapjudge.guard.policies import check_own, state_of
from snapjudge.guard.policy_file import policy_of
from snapjudge.serve.bodies import answered, read_body, takes
from snapjudge.serve.service import Service, caller_of, service_of

router = APIRouter(tags=["guard"])
PolicyName = Annotated[str, Path(max_length=140)]


class PolicyBody(RootModel[dict[str, Any]]):
    """A policy as docs/guard.md describes it, in JSON."""


@router.post("/v1/guard", response_model=GuardResponse, openapi_extra=takes(GuardRequest), summary="What to do with one stage of one request")
async def guard_stage(request: Request) -> Response:
    """The policy's judges are asked in one reading, each rule is waited for as long as it says, and a judge that fails makes its rule fail open or closed.

    A policy in the request itself may hold neither patterns nor webhooks, unless the key may manage.
    """
    caller_of(request).check("judge")
    body = await read_body(request, GuardRequest)
    policy = asked_for(request, body.policy, body.stage)
    return answered(await guarded(request, policy, body.stage, body.inputs, source=body.source, deadline_ms=body.deadline_ms))


async def guarded(
    request: Request, policy: Policy, stage: Stage, inputs: Mapping[str, Any], *, source: str = "", deadline_ms: float | None = None
) -> GuardResponse:
    """Let a policy look at one stage; what came of it is counted, and its webhooks are sent."""
    service = service_of(request)
    deadline = service.deadline(request, deadline_ms)
    found = await guard(
        service.judges, policy, stage, inputs, source=source, deadline=deadline, request_id=request.state.request_id, elsewhere=service.elsewhere
    )
    noted(service, found.response, found.calls)
    numbers = await service.review(found, inputs, source, caller_of(request).name)
    return found.response.model_copy(update={"timings": service.timings(request, found.spent), "reviews": numbers})


@router.get("/v1/policies", response_model=PolicyList, summary="The policies that are loaded")
async def list_policies(request: Request) -> Response:
    """With the rulesets of each stage, in the order in which they are looked at."""
    caller_of(request).check("judge")
    return answered(PolicyList(policies=tuple(state_of(one) for one in service_of(request).policies)))


@router.get("/v1/policies/{name}", summary="A policy")
async def show_policy(request: Request, name: PolicyName) -> Response:
    """All of it, in JSON."""
    caller_of(request).check("manage")
    return answered(service_of(request).policies.find(name))


@router.put("/v1/policies/{name}", response_model=PolicyState, openapi_extra=takes(PolicyBody), summary="Load a policy, or a newer version of one")
async def put_policy(request: Request, name: PolicyName) -> Response:
    """From the next request on. A changed policy gets a higher version."""
    caller_of(request).check("manage")
    body = await read_body(request, PolicyBody)
    policy = policy_of({"name": name, **body.root}, "the policy")
    if policy.name != name:
        raise PolicyInvalid.one("the policy", "name", policy.name, f"{name}, as in the path")
    return answered(state_of(service_of(request).policies.put(policy)))


@router.post("/v1/policies/{name}/pause", response_model=PolicyState, summary="Pause a policy")
async def pause_policy(request: Request, name: PolicyName) -> Response:
    """It allows everything, and says that it is paused."""
    caller_of(request).check("manage")
    return answered(state_of(service_of(request).policies.pause(name, paused=True)))


@router.post("/v1/policies/{name}/resume", response_model=PolicyState, summary="Resume a policy")
async def resume_policy(request: Request, name: PolicyName) -> Response:
    """From the next request on."""
    caller_of(request).check("manage")
    return answered(state_of(service_of(request).policies.pause(name, paused=False)))


@router.delete("/v1/policies/{name}", status_code=204, summary="Forget a policy")
async def drop_policy(request: Request, name: PolicyName) -> Response:
    """Its file is gone, too, where policies are kept in a folder."""
    caller_of(request).check("manage")
    service_of(request).policies.drop(name)
    return Response(status_code=204)


def asked_for(request: HTTPConnection, given: str | dict[str, Any], stage: Stage) -> Policy:
    """The policy that a request names, or brings along.

    Raises:
        PolicyUnknown, PolicyInvalid. KeyForbidden: its key may not ask the policy's judges.
    """
    if isinstance(given, str):
        policy = service_of(request).policies.find(given)
    else:
        policy = policy_of(given, "the policy")
        if "manage" not in caller_of(request).may:
            check_own(policy)
    _check_judges(request, policy, stage)
    return policy


def _check_judges(request: HTTPConnection, policy: Policy, stage: Stage) -> None:
    """See that the caller may ask the judges of a policy that comes with its request; a loaded policy is for whoever may judge."""
    caller, roster = caller_of(request), service_of(request).judges.roster
    if "*" in caller.judges:
        return
    for leaf in policy.leaves(stage):
        for name in (leaf.judge,) if leaf.judge else leaf.judges:
            try:
                caller.check_judges([roster.find(name).judge])
            except JudgeUnknown:
                continue


def noted(service: Service, response: GuardResponse, calls: Sequence[Call]) -> None:
    """Count what came of a stage, and send its webhooks."""
    service.count(response.answers)
    service.metrics.actions.labels(response.policy, response.stage, response.action).inc()
    for outcome in response.rulesets:
        service.metrics.rulesets.labels(response.policy, outcome.name, outcome.status).inc()
    for call in calls:
        service.webhooks.send(str(call.webhook.url), call.body, secret_env=call.webhook.secret_env)
