"""Who is asked about a stage, and what they answer: all its judges in one go, each rule waited for as long as it says; then whoever routes lead to.

Knows nothing of what answers are for.
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from snapjudge.core.api import Answer, Item
from snapjudge.core.judgement import Abstention
from snapjudge.core.metric import INPUT_NAMES, InputName, Metric
from snapjudge.core.policy import Policy, Rule, Stage
from snapjudge.core.question import OpenQuestion
from snapjudge.errors import EngineDown, SnapjudgeError
from snapjudge.guard.evaluate import Evidence, decide, text_of
from snapjudge.guard.routing import Elsewhere, Person, Question, Routing
from snapjudge.live.judges import LiveJudges
from snapjudge.live.judging import Growing, InputsOf, Spent, as_given


class Asking:
    """All judges of a stage, asked once.

    Args:
        deadline: on the monotonic clock; no rule waits longer.

    Attributes:
        people: what people are to see of it.
    """

    def __init__(
        self, judges: LiveJudges, policy: Policy, stage: Stage, item: Item, elsewhere: Elsewhere, deadline: float | None, growing: Growing | None
    ) -> None:
        self._judges, self._policy, self._stage, self._item = judges, policy, stage, item
        self._elsewhere, self._growing = elsewhere, growing
        self._began = time.monotonic()
        self._leaves = _asking(policy, stage)
        waits = sorted({policy.seconds_of(leaf) for leaf in self._leaves})
        self._most = (waits[-1] if deadline is None else min(waits[-1], max(0.0, deadline - self._began))) if waits else 0.0
        self._waits = [one for one in waits if one < self._most] + [self._most]
        self.people: list[Person] = []

    async def evidence(self) -> tuple[Evidence, Spent]:
        """What is known once it decides the stage, or once no rule waits any longer."""
        unknown, groups = _who(self._judges, self._leaves)
        if not groups:
            return await self._routed(Evidence(unknown, self._item.inputs)), Spent()
        evidence, spent = await self._own(unknown, groups)
        return await self._routed(evidence), spent

    async def _own(self, unknown: dict[str, Answer], groups: "Groups") -> tuple[Evidence, Spent]:
        """The answers of the judges that are loaded. Where somebody else may answer instead, an engine that is down is not waited for all the time."""
        evidence = Evidence(unknown, self._item.inputs)
        others = any("failed" in route.when for route in self._policy.routing)
        if others and not self._judges.ready:
            return replace(evidence, failed=EngineDown.code), Spent()
        half = self._began + self._most / 2
        asking = asyncio.create_task(_answers(self._judges, self._stage, groups, self._item, self._began + self._most, self._growing))
        try:
            for wait in sorted({*self._waits, self._most / 2}) if others else self._waits:
                await asyncio.wait([asking], timeout=max(0.0, self._began + wait - time.monotonic()))
                if asking.done():
                    break
                if others and time.monotonic() >= half and not self._judges.ready:
                    return replace(evidence, failed=EngineDown.code, elapsed=None), Spent()
                evidence = replace(evidence, elapsed=float("inf") if wait == self._most else wait)
                if decide(self._policy, self._stage, evidence) is not None:
                    return evidence, Spent(waited=wait)
            answers, spent = await asking
        except SnapjudgeError as error:
            return replace(evidence, failed=error.code, elapsed=None), Spent()
        finally:
            asking.cancel()
        return Evidence({**unknown, **answers}, self._item.inputs, elapsed=time.monotonic() - self._began), spent

    async def _routed(self, evidence: Evidence) -> Evidence:
        """What others say where the policy's routes lead to them, if the stage is not decided without it."""
        if not self._policy.routing or not self._leaves:
            return evidence
        answers = {**self._failures(evidence), **evidence.answers}
        routing = Routing(self._judges, self._policy, self._elsewhere, list(self._questions()))
        planned = routing.plan(answers)
        without = {key: one for key, one in answers.items() if key not in planned}
        if not planned or decide(self._policy, self._stage, Evidence(without, self._item.inputs, elapsed=0.0)) is not None:
            return evidence
        found = await routing.follow(planned, answers)
        self.people += found.people
        if not found.answers:
            return evidence
        return Evidence({**evidence.answers, **found.answers}, self._item.inputs, failed=evidence.failed, elapsed=time.monotonic() - self._began)

    def _failures(self, evidence: Evidence) -> dict[str, Answer]:
        """Abstentions in the place of answers that did not come."""
        code = evidence.failed or "deadline_missed"
        return {
            key: Answer.of(name, "", Abstention(judge=name, code=code, message="it has not answered"))
            for leaf in self._leaves
            for name, key in zip(leaf.names, leaf.keys, strict=True)
        }

    def _questions(self) -> Iterator[Question]:
        """What is asked, for whoever may be asked instead."""
        for leaf in self._leaves:
            item, way = _about(self._stage, self._item, leaf.reads)
            deadline = self._began + min(self._most, self._policy.seconds_of(leaf))
            for name, key in zip(leaf.names, leaf.keys, strict=True):
                judge = self._judges.roster.judges.get(self._judge_of(name))
                if judge is not None:
                    yield Question(key, judge.metric, judge, item, way, deadline)
                elif leaf.question is not None:
                    yield Question(key, leaf.question.metric.model_copy(update={"inputs": INPUT_NAMES, "optional": INPUT_NAMES}), None, item, way, deadline)

    def _judge_of(self, name: str) -> str:
        try:
            return self._judges.roster.find(name).judge
        except SnapjudgeError:
            return ""


def _asking(policy: Policy, stage: Stage) -> list[Rule]:
    """The rules of a stage that ask somebody."""
    return [] if policy.paused else [leaf for leaf in policy.leaves(stage) if not (leaf.keywords or leaf.pattern)]


def _about(stage: Stage, item: Item, reads: InputName | None) -> tuple[Item, InputsOf]:
    """What is judged, and the fields that each judge is given of it: all that it reads at this stage, or one field alone as its text."""
    if reads is None:
        return item, _retrieved if stage == "retrieval" else as_given
    return Item(inputs={"input": text_of(item.inputs, reads)}, source=item.source), as_text


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
        for name, key in zip(leaf.names, leaf.keys, strict=True):
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
    calls = [(who, *_about(stage, item, reads)) for who, reads in zip(asked, groups, strict=True)]
    found = await asyncio.gather(*(judges.answer([one], who, deadline=deadline, inputs_of=way, growing=growing) for who, one, way in calls))
    spent = Spent()
    answers: dict[str, Answer] = {}
    for reads, ((each,), part) in zip(groups, found, strict=True):
        spent.join(part)
        answers |= {f"{one.asked} of {reads}" if reads else one.asked: one for one in each.answers}
    return answers, spent


def as_text(item: Item, metric: Metric | None) -> Mapping[str, Any]:
    """The item's text in the field where the judge reads texts without a name."""
    return item.inputs if metric is None else {metric.place_of_text(): item.inputs["input"]}


def _retrieved(item: Item, metric: Metric | None) -> Mapping[str, Any]:
    """What was retrieved stands in `context`; a judge that reads none gets it as its text."""
    if metric is None or "context" in metric.inputs or "context" not in item.inputs:
        return item.inputs
    return {metric.place_of_text(): item.inputs["context"]}
