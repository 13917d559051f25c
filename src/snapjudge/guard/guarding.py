"""A policy at work: its judges are asked, and what was decided is done to the text.

Knows nothing of HTTP: webhooks are told to the caller, who sends them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from snapjudge.core.api import GuardResponse, Item, Reason, RulesetResult, Timings
from snapjudge.core.policy import STAGE_FIELDS, Policy, Stage
from snapjudge.core.policy_terms import Action, Webhook
from snapjudge.errors import EngineFailed, SnapjudgeError
from snapjudge.guard.asking import Asking, as_text
from snapjudge.guard.evaluate import Evidence, Finding, Outcome, Verdict, decide, text_of
from snapjudge.guard.redaction import redact
from snapjudge.guard.routing import Elsewhere, Person
from snapjudge.live.judges import LiveJudges
from snapjudge.live.judging import Growing, Spent


@dataclass(frozen=True)
class Call:
    """A webhook to be called, and what it is to be told."""

    webhook: Webhook
    body: dict[str, Any]


@dataclass(frozen=True)
class Guarded:
    """What came of a stage: the answer for the caller, the webhooks to be called, and what people are to see."""

    response: GuardResponse
    spent: Spent
    calls: tuple[Call, ...] = ()
    people: tuple[Person, ...] = ()


async def guard(
    judges: LiveJudges,
    policy: Policy,
    stage: Stage,
    inputs: Mapping[str, Any],
    *,
    source: str = "",
    deadline: float | None = None,
    request_id: str = "",
    growing: Growing | None = None,
    elsewhere: Elsewhere | None = None,
) -> Guarded:
    """Look at one stage of one request.

    Judges that fail or are late make their rules fail open or closed, as the policy says; nothing is raised for them.

    Args:
        deadline: on the monotonic clock; no rule waits longer.
        growing: what is known of a text that is looked at again and again as it grows.
        elsewhere: whom the policy's routes may lead to; only to other judges without.
    """
    asking = Asking(judges, policy, stage, Item(inputs=dict(inputs), source=source), elsewhere or Elsewhere(), deadline, growing)
    evidence, spent = await asking.evidence()
    found = await _done(judges, policy, stage, evidence, spent, source=source, deadline=deadline, request_id=request_id)
    return replace(found, people=tuple(asking.people))


async def guard_unhurried(judges: LiveJudges, policy: Policy, stage: Stage, inputs: Mapping[str, Any], *, source: str = "") -> Guarded:
    """The same without deadlines, as for what was recorded.

    Raises:
        EngineFailed: judges did not answer, and what is decided without them tells nothing.
    """
    found = await guard(judges, policy.patient, stage, inputs, source=source)
    if found.response.failed:
        raise EngineFailed(f"the judges did not answer: {found.response.failed}", hint="the log has the details; try again")
    return found


async def _done(
    judges: LiveJudges, policy: Policy, stage: Stage, evidence: Evidence, spent: Spent, *, source: str, deadline: float | None = None, request_id: str = ""
) -> Guarded:
    """Decide, and do to the text what was decided."""
    verdict = decide(policy, stage, evidence)
    assert verdict is not None, "nothing is on its way any more"
    response = _response(policy, stage, verdict, evidence, spent, request_id)
    if verdict.action == "redact":
        response = await _redacted(judges, response, verdict, source, deadline)
    return Guarded(response, spent, tuple(_calls(verdict, response)))


def _response(policy: Policy, stage: Stage, verdict: Verdict, evidence: Evidence, spent: Spent, request_id: str) -> GuardResponse:
    text: str | None = text_of(evidence.fields, STAGE_FIELDS[stage])
    message = next((one.message for one in verdict.actions if one.type == "block"), "")
    override = next(((outcome, one) for outcome, one in zip(verdict.taken, verdict.actions, strict=True) if one.type == "override"), None)
    if verdict.action == "block":
        text = None
    elif verdict.action == "override" and override is not None:
        text = _filled(override[1], override[0], evidence, text or "")
    return GuardResponse(
        request_id=request_id,
        policy=policy.signature,
        stage=stage,
        action=verdict.action,
        text=text,
        message=message,
        steer=tuple(one.message for one in verdict.actions if one.type == "steer"),
        escalate_to=next((one.to for one in verdict.actions if one.type == "escalate"), ""),
        reasons=tuple(
            reason for outcome in verdict.outcomes for finding in outcome.findings if (reason := _reason(outcome, finding)).status not in ("not_triggered",)
        ),
        rulesets=tuple(
            RulesetResult(name=one.ruleset.name, status=one.status, taken=one in verdict.taken, action=one.ruleset.action.type) for one in verdict.outcomes
        ),
        answers=tuple(evidence.answers.values()),
        failed=evidence.failed,
        usage=spent.usage,
        timings=Timings(waited_ms=round(spent.waited * 1000, 3), engine_ms=round(spent.seconds * 1000, 3)),
    )


def _reason(outcome: Outcome, finding: Finding) -> Reason:
    trouble = finding.trouble
    status = "triggered" if finding.fired else "not_triggered" if trouble is None else "timeout" if trouble == "pending" else trouble
    return Reason(ruleset=outcome.ruleset.name, rule=str(finding.rule), status=status, judge=finding.judge, found=finding.found)


def _filled(action: Action, outcome: Outcome, evidence: Evidence, text: str) -> str:
    """An override's text with what was found in it; what it does not know stays as it is written."""
    fired = next((one for one in outcome.findings if one.fired), None)
    answer = None if fired is None else next((evidence.answers[key] for key in fired.rule.keys if key in evidence.answers), None)
    known = {
        "ruleset": outcome.ruleset.name,
        "text": text,
        "judge": answer.judge if answer else "",
        "label": (answer.label or "") if answer else "",
        "score": f"{answer.score:.3f}" if answer and answer.score is not None else "",
    }
    filled = action.text
    for name, value in known.items():
        filled = filled.replace(f"{{{name}}}", value) if name != "text" else filled
    return filled.replace("{text}", known["text"])


async def _redacted(judges: LiveJudges, response: GuardResponse, verdict: Verdict, source: str, deadline: float | None) -> GuardResponse:
    """What is left of a text; where personal data stays whatever is taken out, it is blocked."""
    findings = [finding for one in verdict.taken if one.ruleset.action.type == "redact" for finding in one.findings if finding.fired]
    names = sorted({name for finding in findings if finding.rule.question is None for name in finding.rule.names})
    kinds = [kind for one in verdict.actions if one.type == "redact" for kind in one.kinds]

    async def flagged(texts: Sequence[str]) -> Sequence[bool]:
        if not names:
            return [False] * len(texts)
        items = [Item(inputs={"input": text}, source=source) for text in texts]
        found, _ = await judges.answer(items, judges.asked(names), deadline=deadline, inputs_of=as_text)
        return [any(answer.flagged for answer in item.answers) for item in found]

    try:
        left = await redact(response.text or "", flagged, kinds)
    except SnapjudgeError as error:
        return response.model_copy(update={"action": "block", "text": None, "failed": error.code})
    if left is None:
        told = response.message or "it holds personal data that could not be taken out"
        return response.model_copy(update={"action": "block", "text": None, "message": told})
    return response.model_copy(update={"text": left})


def _calls(verdict: Verdict, response: GuardResponse) -> list[Call]:
    """The webhooks that a stage's outcomes call; no text of the request is in what they are told."""
    calls = []
    for outcome in verdict.outcomes:
        for webhook in outcome.ruleset.webhooks:
            if outcome.status in webhook.on:
                told = {
                    "policy": response.policy,
                    "stage": response.stage,
                    "ruleset": outcome.ruleset.name,
                    "status": outcome.status,
                    "action": outcome.ruleset.action.type,
                    "request_id": response.request_id,
                    "reasons": [one.model_dump(mode="json") for one in response.reasons if one.ruleset == outcome.ruleset.name],
                }
                calls.append(Call(webhook, told))
    return calls
