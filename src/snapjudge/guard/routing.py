"""Answers that should not stand alone, and where they go: another judge, a language model, people, or nowhere. Decided by a policy's routes.

Conditions are looked at only where a route asks for them. Knows nothing of HTTP: what people are to see is told to the caller.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snapjudge.core.api import Answer, Item
from snapjudge.core.example import texts_of
from snapjudge.core.judgement import Abstention
from snapjudge.core.metric import Metric
from snapjudge.core.policy import Policy
from snapjudge.core.policy_terms import Condition, Route
from snapjudge.curate.languages import foreign
from snapjudge.errors import SnapjudgeError, Unanswered
from snapjudge.live.escalation import Escalation, answer_of
from snapjudge.live.judges import LiveJudges
from snapjudge.live.judging import InputsOf
from snapjudge.live.roster import Loaded
from snapjudge.live.signals import odd_form

_log = logging.getLogger(__name__)
Noted = Callable[[str, str, str], None]  # condition, where it led, how that went


@dataclass(frozen=True)
class Elsewhere:
    """Whom a server can turn to beside its judges, and who counts it."""

    escalation: Escalation | None = None
    noted: Noted = lambda *_: None


@dataclass(frozen=True)
class Person:
    """Something that people are to look at."""

    queue: str
    asked: str
    condition: str


@dataclass(frozen=True)
class Question:
    """One answer's question: who was asked by which name, about what.

    Args:
        deadline: on the monotonic clock, after which the answer that is there counts.
    """

    key: str
    metric: Metric
    judge: Loaded | None
    item: Item
    inputs_of: InputsOf
    deadline: float

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What is judged."""
        return self.inputs_of(self.item, self.metric if self.judge is not None else None)


@dataclass
class Routed:
    """What became of the answers: those that others gave instead, by key, and what people are to see."""

    answers: dict[str, Answer] = field(default_factory=dict)
    people: list[Person] = field(default_factory=list)


class Routing:
    """One look at one text.

    Args:
        questions: by the keys of their answers.
    """

    def __init__(self, judges: LiveJudges, policy: Policy, elsewhere: Elsewhere, questions: Sequence[Question]) -> None:
        self._judges, self._policy, self._elsewhere = judges, policy, elsewhere
        self._questions = {one.key: one for one in questions}

    def plan(self, answers: Mapping[str, Answer]) -> dict[str, list[tuple[Condition, Route]]]:
        """The routes that fit each answer, in order; only answers that some fit."""
        planned: dict[str, list[tuple[Condition, Route]]] = {}
        for key, question in self._questions.items():
            answer = answers.get(key)
            if answer is None or (answer.abstention is not None and answer.abstention.code == "input_invalid"):
                continue  # there was nothing to read
            fitting = [
                (condition, route)
                for route in self._policy.routing
                if not route.judges or answer.asked in route.judges or answer.judge in route.judges
                for condition in [next((one for one in route.when if self._holds(one, route, question, answer)), None)]
                if condition is not None
            ]
            if fitting:
                planned[key] = fitting
        return planned

    async def follow(self, planned: Mapping[str, Sequence[tuple[Condition, Route]]], answers: Mapping[str, Answer]) -> Routed:
        """Go where the routes lead; what leads nowhere in time leaves the answer as it is."""
        routed = Routed()
        await asyncio.gather(*(self._one(key, routes, answers[key], routed) for key, routes in planned.items()))
        return routed

    def _holds(self, condition: Condition, route: Route, question: Question, answer: Answer) -> bool:
        if condition == "failed":
            return answer.abstention is not None
        if condition == "low_confidence":
            return answer.unsure(route.below)
        if condition in ("windowed", "out_of_distribution"):
            return bool(getattr(answer.flags, condition))
        text = "\n".join(
            texts_of({name: value for name, value in question.inputs.items() if name in question.metric.inputs or question.judge is None}).values()
        )
        if condition == "language":
            return bool(foreign(text, question.judge.languages if question.judge is not None else ()))
        return bool(odd_form(text, self._judges.generalist.rules.tokens))

    async def _one(self, key: str, routes: Sequence[tuple[Condition, Route]], answer: Answer, routed: Routed) -> None:
        question = self._questions[key]
        for condition, route in routes:
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(0.0, question.deadline - time.monotonic())):
                    instead = await self._led(condition, route, question, answer, routed)
            except (SnapjudgeError, TimeoutError) as error:
                code = "late" if isinstance(error, TimeoutError) else error.code
                self._elsewhere.noted(condition, route.to, code)
                _log.warning("%s was to go to %s (%s): %s", key[:80], route.to, condition, code)
                continue
            self._elsewhere.noted(condition, route.to, "answered")
            routed.answers[key] = instead
            return

    async def _led(self, condition: Condition, route: Route, question: Question, answer: Answer, routed: Routed) -> Answer:
        """The answer at the end of a route.

        Raises:
            Whatever keeps it from being there.
        """
        if route.person:
            routed.people.append(Person(route.person, answer.asked, condition))
            return answer.model_copy(update={"routed": condition})
        if route.abstain:
            told = Abstention(judge=answer.judge, code="routed", message=f"not to be answered by {answer.judge}: {condition}")
            return answer.model_copy(update={"abstention": told, "flags": answer.flags.model_copy(update={"abstained": True}), "routed": condition})
        if route.llm:
            if self._elsewhere.escalation is None:
                raise Unanswered("this server knows no language model", hint="start it with --escalation FILE")
            verdict = await self._elsewhere.escalation.ask(question.metric, question.inputs, endpoint=route.llm, deadline=question.deadline)
            return answer_of(answer.asked, question.metric, verdict, answer.flags, condition)
        asked = self._judges.asked([route.judge])
        ((found,), _) = await self._judges.answer([question.item], asked, deadline=question.deadline, inputs_of=question.inputs_of)
        (other,) = found.answers
        if other.abstention is not None:
            raise Unanswered(f"{other.judge} has no answer either: {other.abstention.code}", hint=other.abstention.hint)
        return other.model_copy(update={"asked": answer.asked, "routed": condition})
