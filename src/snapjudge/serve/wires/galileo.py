"""Galileo Protect's `POST /protect/invoke`, with what its client asks for before: a health check, a login that gives a token for an API key, the current user.

A local stage brings its rulesets; a central one is a loaded policy of the stage's name. A rule's metric is a judge: `toxicity` of all that it reads,
`input_toxicity` of the input; `pii` and `input_pii` are lists of the kinds of `pii_*` judges that flag.
"""

import hashlib
import secrets
import time
from collections.abc import Mapping
from typing import Any, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from snapjudge.core.api import Answer, GuardResponse
from snapjudge.core.frozen import Frozen
from snapjudge.core.policy import Operator, Policy, Stage
from snapjudge.errors import PolicyInvalid, RequestInvalid
from snapjudge.guard.policies import check_own
from snapjudge.guard.policy_file import policy_of
from snapjudge.serve.bodies import answered, read_body, takes
from snapjudge.serve.guarding import guarded
from snapjudge.serve.service import Service, caller_of, service_of

router = APIRouter(tags=["galileo"])
NAMES = {"sexist": "sexism", "context_adherence": "groundedness", "context_adherence_luna": "groundedness"}  # their metrics -> judges of ours
_NUMERIC = ("gt", "gte", "lt", "lte")


class ProtectRule(Frozen):
    """A metric held against a value."""

    metric: str = Field(min_length=1, max_length=140)
    operator: Operator
    target_value: str | float | int | list[Any] | None = None


class Subscription(Frozen):
    """Whom to tell of a ruleset's status."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str
    statuses: tuple[str, ...] = ("triggered",)


class ProtectAction(Frozen):
    """Another text, one of some, or the text as it is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["OVERRIDE", "PASSTHROUGH"] = "PASSTHROUGH"
    choices: tuple[str, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()


class ProtectRuleset(Frozen):
    """Rules that fire together."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    rules: tuple[ProtectRule, ...] = Field(min_length=1)
    action: ProtectAction | None = None
    description: str | None = None


class Payload(Frozen):
    """What is looked at."""

    input: str | None = None
    output: str | None = None


class ProtectRequest(Frozen):
    """One invocation."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    payload: Payload
    rulesets: tuple[ProtectRuleset, ...] | None = None
    prioritized_rulesets: tuple[ProtectRuleset, ...] | None = None
    stage_name: str | None = None
    stage_version: int | None = None
    timeout: float = Field(default=300.0, gt=0, le=600)
    metadata: dict[str, str] | None = None
    headers: dict[str, str] | None = None


class ProtectResponse(Frozen):
    """The text to use, how it came about, and what each metric said."""

    text: str
    status: str
    trace_metadata: dict[str, Any]
    action_result: dict[str, str]
    metric_results: dict[str, dict[str, Any]]
    ruleset_results: list[dict[str, Any]]
    stage_metadata: dict[str, Any]
    metadata: dict[str, str] | None = None
    headers: dict[str, str] | None = None


class KeyLogin(Frozen):
    """An API key, for a token."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    api_key: str = Field(max_length=512)


@router.get("/healthcheck", summary="Alive, as Galileo's client asks")
async def healthcheck() -> dict[str, str]:
    """As /healthz."""
    return {"api_version": "1", "message": "ok", "version": "1"}


@router.post("/login/api_key", openapi_extra=takes(KeyLogin), summary="A token for an API key, as Galileo's client asks")
async def login(request: Request) -> dict[str, str]:
    """Good for an hour, with the rights of the key."""
    body = await read_body(request, KeyLogin)
    return {"access_token": service_of(request).keys.token(body.api_key.encode(errors="replace")), "token_type": "bearer"}


@router.get("/current_user", summary="Who asks, as Galileo's client wants to know")
async def current_user(request: Request) -> dict[str, Any]:
    """The key's name."""
    name = caller_of(request).name
    return {
        "id": str(UUID(bytes=hashlib.sha256(name.encode()).digest()[:16], version=4)),
        "email": f"{name}@keys.invalid",
        "first_name": name,
        "last_name": "",
        "role": "user",
        "permissions": [],
    }


@router.post("/protect/invoke", response_model=ProtectResponse, openapi_extra=takes(ProtectRequest), summary="Galileo Protect")
async def invoke(request: Request) -> Response:
    """The first ruleset whose rules all fire decides; where one cannot be judged, the status says so and the text passes."""
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    body = await read_body(request, ProtectRequest)
    if not body.payload.input and not body.payload.output:
        raise RequestInvalid.one("the request", "payload", "neither input nor output", "one of them")
    received, inputs = time.time_ns(), body.payload.model_dump(exclude_none=True)
    stage: Stage = "output" if body.payload.output else "input"
    rulesets = body.prioritized_rulesets if body.prioritized_rulesets is not None else body.rulesets
    policy = _local(service, rulesets, stage) if rulesets else _central(service, body)
    if rulesets and "manage" not in caller.may:
        check_own(policy)
    found = await guarded(request, policy, stage, inputs, deadline_ms=body.timeout * 1000)
    told = time.time_ns()
    text = found.text if found.text is not None else found.message
    kind = "PASSTHROUGH" if found.action in ("allow", "flag", "steer") else "OVERRIDE"
    response = ProtectResponse(
        text=text,
        status=_status(found, paused=policy.paused),
        trace_metadata={"id": str(uuid4()), "received_at": received, "response_at": told, "execution_time": (told - received) / 1e9},
        action_result={"type": kind, "value": text},
        metric_results={one.asked: _metric(one) for one in found.answers},
        ruleset_results=[{"name": one.name, "status": one.status.upper(), "action": one.action} for one in found.rulesets],
        stage_metadata={"stage_name": body.stage_name, "stage_version": policy.version, "policy": policy.signature},
        metadata=body.metadata,
        headers=body.headers,
    )
    return answered(response)


def _local(service: Service, rulesets: tuple[ProtectRuleset, ...], stage: Stage) -> Policy:
    """The rulesets of a request as a policy: one of its own for each, in their order, fail open."""
    built = []
    for place, one in enumerate(rulesets):
        action = one.action or ProtectAction()
        if action.type == "OVERRIDE" and not action.choices:
            raise RequestInvalid.one("the request", f"prioritized_rulesets.{place}.action.choices", "none", "at least one text")
        built.append(
            {
                "name": f"ruleset_{place + 1}",
                "priority": place,
                "rules": [_rule(service, rule) for rule in one.rules],
                "action": {"override": {"text": secrets.choice(action.choices)}} if action.type == "OVERRIDE" else "allow",
                "webhooks": [{"url": hook.url, "on": [_ours(status) for status in hook.statuses]} for hook in action.subscriptions],
            }
        )
    try:
        return policy_of({"name": "local", "stages": {stage: built}, "deadline_ms": 600_000}, "prioritized_rulesets")
    except PolicyInvalid as error:
        raise RequestInvalid("the request", error.problems, hint=error.hint) from error


def _central(service: Service, body: ProtectRequest) -> Policy:
    name = body.stage_name or ""
    return service.policies.find(f"{name}@{body.stage_version}" if body.stage_version is not None else name)


def _rule(service: Service, rule: ProtectRule) -> dict[str, Any]:
    """A rule of theirs as one of ours."""
    side = "input" if rule.metric.startswith("input_") else None  # the others look at all that their judge reads
    name = rule.metric.removeprefix("input_")
    judge = NAMES.get(name, name)
    own: dict[str, Any] = {"reads": side} if side else {}
    if judge == "pii" and rule.operator not in _NUMERIC:
        kinds = sorted(one.name for one in service.judges.roster.judges.values() if one.name.startswith("pii_"))
        if kinds:
            wanted = rule.target_value
            ours = [_kind(one) for one in wanted] if isinstance(wanted, list) else _kind(wanted) if isinstance(wanted, str) else wanted
            return {**own, "judges": kinds, rule.operator: True if rule.operator in ("empty", "not_empty") else ours}
    if rule.operator in ("eq", "neq") and isinstance(rule.target_value, int | float):
        return {**own, "judge": judge, "of": "score", rule.operator: rule.target_value}
    if rule.operator == "any" and isinstance(rule.target_value, list):
        return {**own, "judge": judge, "in": rule.target_value}  # a label among some
    return {**own, "judge": judge, rule.operator: True if rule.operator in ("empty", "not_empty") else rule.target_value}


def _kind(name: object) -> str:
    return str(name) if str(name).startswith("pii_") else f"pii_{name}"


def _ours(status: str) -> str:
    return {"failed": "error"}.get(status.lower(), status.lower())


def _status(found: GuardResponse, *, paused: bool) -> str:
    if paused:
        return "PAUSED"
    statuses = [one.status for one in found.rulesets]
    for status in ("triggered", "timeout", "error", "skipped"):
        if status in statuses and (status != "skipped" or set(statuses) == {"skipped"}):
            return status.upper()
    return "NOT_TRIGGERED"


def _metric(answer: Answer) -> Mapping[str, Any]:
    if answer.abstention is not None:
        return {"value": None, "status": "ERROR", "error_message": answer.abstention.message}
    return {"value": answer.score if answer.threshold is not None else answer.label, "status": "SUCCESS"}
