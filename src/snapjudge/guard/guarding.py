"""A policy at work: its judges asked in one go, each rule waited for as long as it says, and what was decided done to the text.

Knows nothing of HTTP: webhooks are told to the caller, who sends them.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from snapjudge.core.api import Answer, GuardResponse, Item, Reason, RulesetResult, Timings
from snapjudge.core.judgement import Abstention
from snapjudge.core.metric import InputName, Metric
from snapjudge.core.policy import STAGE_FIELDS, Action, Policy, Rule, Stage, Webhook
from snapjudge.core.question import OpenQuestion
from snapjudge.errors import SnapjudgeError
from snapjudge.guard.evaluate import Evidence, Finding, Outcome, Verdict, decide, text_of
from snapjudge.guard.redaction import redact
from snapjudge.live.judges import LiveJudges
from snapjudge.live.judging import Growing, InputsOf, Spent, as_given


@dataclass(frozen=True)
class Call:
    """A webhook to be called, and what it is to be told."""

    webhook: Webhook
    body: dict[str, Any]


@dataclass(frozen=True)
class Guarded:
    """What came of a stage: the answer for the caller, and the webhooks to be called."""

    response: GuardResponse
    spent: Spent
    calls: tuple[Call, ...] = ()


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
) -> Guarded:
    """Look at one stage of one request.

    Judges that fail or are late make their rules fail open or closed, as the policy says; nothing is raised for them.

    Args:
        deadline: on the monotonic clock; no rule waits longer.
        growing: what is known of a text that is looked at again and again as it grows.
    """
    evidence, spent = await _asked(judges, policy, stage, Item(inputs=dict(inputs), source=source), deadline, growing)
    return await _done(judges, policy, stage, evidence, spent, source=source, deadline=deadline, request_id=request_id)


async def guard_unhurried(judges: LiveJudges, policy: Policy, stage: Stage, inputs: Mapping[str, Any], *, source: str = "") -> Guarded:
    """The same without deadlines, as for what was recorded."""
    unknown, groups = _who(judges, _asking(policy, stage))
    answers, spent = await _answers(judges, stage, groups, Item(inputs=dict(inputs), source=source), None)
    return await _done(judges, policy, stage, Evidence({**unknown, **answers}, inputs), spent, source=source)


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


def _asking(policy: Policy, stage: Stage) -> list[Rule]:
    """The rules of a stage that ask somebody."""
    return [] if policy.paused else [leaf for leaf in policy.leaves(stage) if not (leaf.keywords or leaf.pattern)]


def _inputs_of(stage: Stage) -> InputsOf:
    return _retrieved if stage == "retrieval" else as_given


async def _asked(judges: LiveJudges, policy: Policy, stage: Stage, item: Item, deadline: float | None, growing: Growing | None) -> tuple[Evidence, Spent]:
    """Ask all judges of a stage; return as soon as what is known decides it, or when no rule waits any longer."""
    began = time.monotonic()
    leaves = _asking(policy, stage)
    unknown, groups = _who(judges, leaves)
    evidence = Evidence(unknown, item.inputs)
    if not groups:
        return evidence, Spent()
    waits = sorted({policy.seconds_of(leaf) for leaf in leaves})
    most = waits[-1] if deadline is None else min(waits[-1], max(0.0, deadline - began))
    asking = asyncio.create_task(_answers(judges, stage, groups, item, began + most, growing))
    try:
        for wait in [one for one in waits if one < most] + [most]:
            await asyncio.wait([asking], timeout=max(0.0, began + wait - time.monotonic()))
            if asking.done():
                break
            evidence = replace(evidence, elapsed=float("inf") if wait == most else wait)
            if decide(policy, stage, evidence) is not None:
                return evidence, Spent(waited=wait)
        answers, spent = await asking
    except SnapjudgeError as error:
        return replace(evidence, failed=error.code, elapsed=None), Spent()
    finally:
        asking.cancel()
    elapsed = time.monotonic() - began
    return Evidence({**unknown, **answers}, item.inputs, elapsed=elapsed), spent


@dataclass
class _Group:
    """Who is asked about the same: by name, and in open questions."""

    names: list[str] = field(default_factory=list)
    questions: dict[str, OpenQuestion] = field(default_factory=dict)


Groups = dict[InputName | None, _Group]  # by the field that they read as their text; None: all that they read of the request


def _who(judges: LiveJudges, leaves: Sequence[Rule]) -> tuple[dict[str, Answer], Groups]:
    """Whom to ask; a judge that is not loaded has its abstention already."""
    unknown: dict[str, Answer] = {}
    groups: Groups = {}
    for leaf in leaves:
        if leaf.question is not None:
            groups.setdefault(leaf.reads, _Group()).questions[leaf.question.name or leaf.question.instructions] = leaf.question
            continue
        for name, key in zip((leaf.judge,) if leaf.judge else leaf.judges, leaf.keys, strict=True):
            try:
                judges.roster.find(name)
            except SnapjudgeError as error:
                unknown[key] = Answer.of(name, "", Abstention.of(name, error))
                continue
            names = groups.setdefault(leaf.reads, _Group()).names
            if name not in names:
                names.append(name)
    return unknown, groups


async def _answers(
    judges: LiveJudges, stage: Stage, groups: Groups, item: Item, deadline: float | None, growing: Growing | None = None
) -> tuple[dict[str, Answer], Spent]:
    """Everybody's answers, by what rules find them by."""
    asked = [judges.asked(group.names, list(group.questions.values())) for group in groups.values()]
    items = [item if reads is None else Item(inputs={"input": text_of(item.inputs, reads)}, source=item.source) for reads in groups]
    ways = [_inputs_of(stage) if reads is None else _as_text for reads in groups]
    calls = zip(items, asked, ways, strict=True)
    found = await asyncio.gather(*(judges.answer([one], who, deadline=deadline, inputs_of=way, growing=growing) for one, who, way in calls))
    spent = Spent()
    answers: dict[str, Answer] = {}
    for reads, ((each,), part) in zip(groups, found, strict=True):
        spent.join(part)
        answers |= {f"{one.asked} of {reads}" if reads else one.asked: one for one in each.answers}
    return answers, spent


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
    names = sorted({name for finding in findings for name in ((finding.rule.judge,) if finding.rule.judge else finding.rule.judges)})
    kinds = [kind for one in verdict.actions if one.type == "redact" for kind in one.kinds]

    async def flagged(texts: Sequence[str]) -> Sequence[bool]:
        if not names:
            return [False] * len(texts)
        items = [Item(inputs={"input": text}, source=source) for text in texts]
        found, _ = await judges.answer(items, judges.asked(names), deadline=deadline, inputs_of=_as_text)
        return [any(answer.flagged for answer in item.answers) for item in found]

    try:
        left = await redact(response.text or "", flagged, kinds)
    except SnapjudgeError as error:
        return response.model_copy(update={"action": "block", "text": None, "failed": error.code})
    if left is None:
        told = response.message or "it holds personal data that could not be taken out"
        return response.model_copy(update={"action": "block", "text": None, "message": told})
    return response.model_copy(update={"text": left})


def _as_text(item: Item, metric: Metric | None) -> Mapping[str, Any]:
    """The item's text in the field where the judge reads texts without a name."""
    return item.inputs if metric is None else {metric.place_of_text(): item.inputs["input"]}


def _retrieved(item: Item, metric: Metric | None) -> Mapping[str, Any]:
    """What was retrieved stands in `context`; a judge that reads none gets it as its text."""
    if metric is None or "context" in metric.inputs or "context" not in item.inputs:
        return item.inputs
    return {metric.place_of_text(): item.inputs["context"]}


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
