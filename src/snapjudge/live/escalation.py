"""Language models that answer where judges should not: in order of preference, within budgets, hedged, and left alone while they are down.

They are asked with the metric's own policy, and answer strictly in its labels (`llm.judging`); what cannot be read is no answer. Knows nothing of guards.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError

from snapjudge.core.api import Answer, Flags, Reasoning
from snapjudge.core.example import check_inputs
from snapjudge.core.frozen import Frozen
from snapjudge.core.metric import Metric
from snapjudge.errors import EndpointFailed, EndpointInvalid, Problem, SnapjudgeError, Unanswered
from snapjudge.llm.endpoints import Endpoint
from snapjudge.store.files import read_record, write_file

ANY = "any"
Count = Callable[[str, str, float], None]  # endpoint, outcome, dollars


class EscalationTerms(Frozen):
    """Endpoints in order of preference, and what they may cost."""

    endpoints: tuple[Endpoint, ...] = Field(min_length=1)
    per_minute: int | None = Field(default=None, ge=0, description="calls, of all endpoints together")
    per_day: int | None = Field(default=None, ge=0, description="calls, by the day in UTC; counted across restarts")
    dollars_per_day: float | None = Field(default=None, ge=0)
    hedge_ms: float | None = Field(default=None, gt=0, description="without an answer after which the next endpoint is asked, too; the first answer counts")
    seconds: float = Field(default=20.0, gt=0, description="for one answer")
    failures: int = Field(default=5, ge=1, description="in a row after which an endpoint is left alone")
    pause_seconds: float = Field(default=30.0, gt=0, description="for that long; then one call tries it")


@dataclass(frozen=True)
class Verdict:
    """What a language model said."""

    label: str
    rationale: str
    endpoint: Endpoint
    dollars: float
    seconds: float


def read_escalation(path: Path) -> EscalationTerms:
    """The terms of a YAML file.

    Raises:
        EndpointInvalid: with every problem.
    """
    try:
        return EscalationTerms.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise EndpointInvalid(path.name, [Problem("(file)", str(error).splitlines()[0], "YAML with endpoints and budgets")], hint=_HINT) from error
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        problems = [Problem(".".join(map(str, one["loc"])) or "(file)", repr(one["input"])[:60], str(one["msg"])) for one in found]
        raise EndpointInvalid(path.name, problems, hint=_HINT) from None


class Escalation:
    """One server's. For one event loop.

    Args:
        spent: the file that remembers what today has cost.
        count: is told how each call ended.
        now: seconds of the epoch.

    Raises:
        EndpointInvalid: a key is not set.
    """

    def __init__(self, terms: EscalationTerms, spent: Path | None = None, count: Count = lambda *_: None, now: Callable[[], float] = time.time) -> None:
        from snapjudge.llm.asking import client_of  # noqa: PLC0415 - the openai package, for whoever escalates

        self.terms, self._file, self._count, self._now = terms, spent, count, now
        self._doors = {one.name: _Door(one, client_of(one), terms, now) for one in terms.endpoints}
        self._minute: deque[float] = deque()
        told = read_record(spent) if spent is not None else {}
        self._day, self._calls, self._dollars = str(told.get("day", "")), int(told.get("calls", 0)), float(told.get("dollars", 0.0))

    async def ask(self, metric: Metric, inputs: Mapping[str, Any], *, endpoint: str = ANY, deadline: float | None = None) -> Verdict:
        """The label that a language model gives by a metric's policy.

        Args:
            endpoint: a name, or any, in order of preference.
            deadline: on the monotonic clock.

        Raises:
            Unanswered: with the reason. InputInvalid.
        """
        own = check_inputs(inputs, metric.ordered_inputs, metric.optional)
        doors = [door for door in self._doors.values() if endpoint in (ANY, door.endpoint.name)]
        if not doors:
            raise Unanswered(f"no endpoint {endpoint!r}", hint=f"one of {', '.join(self._doors)}, or {ANY}")
        left = self.terms.seconds if deadline is None else min(self.terms.seconds, deadline - time.monotonic())
        try:
            async with asyncio.timeout(max(0.0, left)):
                return await self._first([door for door in doors if door.open], metric, own)
        except TimeoutError:
            raise Unanswered(f"no language model answered within {left:.1f} s", hint="a longer deadline, or a faster endpoint") from None

    def knows(self, endpoint: str) -> bool:
        """Whether there is an endpoint of that name."""
        return endpoint == ANY or endpoint in self._doors

    @property
    def standing(self) -> dict[str, bool]:
        """The endpoints, and whether each is asked just now."""
        return {name: door.open for name, door in self._doors.items()}

    async def close(self) -> None:
        """Close all connections."""
        for door in self._doors.values():
            await door.client.close()

    async def _first(self, doors: list["_Door"], metric: Metric, inputs: Mapping[str, Any]) -> Verdict:
        """The first answer; the next endpoint is asked when one has failed, or takes longer than a hedge."""
        hedge = None if self.terms.hedge_ms is None else self.terms.hedge_ms / 1000
        left, running, reasons = list(doors), set[asyncio.Task[Verdict]](), []
        try:
            while left or running:
                if left:
                    running.add(asyncio.create_task(self._one(left.pop(0), metric, inputs)))
                done, running = await asyncio.wait(running, timeout=hedge if left else None, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    error = task.exception()
                    if error is None:
                        return task.result()
                    if not isinstance(error, SnapjudgeError):
                        raise error
                    reasons.append(error.message)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        raise Unanswered("; ".join(reasons) or "all endpoints are left alone just now, for they have failed", hint="what the judge said stands")

    async def _one(self, door: "_Door", metric: Metric, inputs: Mapping[str, Any]) -> Verdict:
        """One endpoint's answer, if the budgets allow to ask it."""
        from snapjudge.llm.asking import Ask, ask_once  # noqa: PLC0415
        from snapjudge.llm.judging import judging_prompt, read_opinion  # noqa: PLC0415

        own, began = door.endpoint, time.monotonic()
        ask = Ask(own, judging_prompt(metric, inputs))
        self._charge(ask.expected_cost)
        cost, outcome = ask.expected_cost, "left"
        try:
            answer, told = await ask_once(ask, door.client)
            cost = answer.cost
            opinion = None if answer.text is None else read_opinion(answer.text, metric)
            label = None if opinion is None else opinion.label
            outcome = answer.failure or ("answered" if label is not None else str(opinion.unusable if opinion else "malformed"))
            door.note(well=answer.failure is None)
        except EndpointFailed as error:
            outcome, cost, label, opinion, told = "rejected", 0.0, None, None, error.message
            door.note(well=False)
        finally:
            self._dollars += cost - ask.expected_cost
            self._count(own.name, outcome, cost)
            await asyncio.shield(asyncio.ensure_future(self._remember()))
        if label is None or opinion is None:
            raise Unanswered(f"{own.name}: {told or outcome}", hint="see that the endpoint runs and takes such requests")
        return Verdict(label, opinion.rationale, own, cost, time.monotonic() - began)

    def _charge(self, cost: float) -> None:
        """Count a call against the budgets.

        Raises:
            Unanswered: it is one too many.
        """
        now, terms = self._now(), self.terms
        day = time.strftime("%Y-%m-%d", time.gmtime(now))
        if day != self._day:
            self._day, self._calls, self._dollars = day, 0, 0.0
        while self._minute and self._minute[0] <= now - 60:
            self._minute.popleft()
        for spent, most, what in (
            (len(self._minute) + 1, terms.per_minute, "calls a minute"),
            (self._calls + 1, terms.per_day, "calls a day"),
            (self._dollars + cost, terms.dollars_per_day, "dollars a day"),
        ):
            if most is not None and spent > most:
                self._count("", "over_budget", 0.0)
                raise Unanswered(f"the budget of {most:g} {what} is spent", hint="raise it in the escalation file, or route less to it")
        self._minute.append(now)
        self._calls += 1
        self._dollars += cost

    async def _remember(self) -> None:
        if self._file is None:
            return
        told = json.dumps({"day": self._day, "calls": self._calls, "dollars": round(self._dollars, 6)})
        with suppress(SnapjudgeError):  # a full disk keeps nobody from an answer
            await asyncio.to_thread(write_file, self._file, told)


class _Door:
    """An endpoint with its circuit breaker."""

    def __init__(self, endpoint: Endpoint, client: Any, terms: EscalationTerms, now: Callable[[], float]) -> None:
        self.endpoint, self.client = endpoint, client
        self._terms, self._now = terms, now
        self._failed, self._until = 0, 0.0

    @property
    def open(self) -> bool:
        """Whether it may be asked; after a pause one call tries it."""
        if self._failed < self._terms.failures:
            return True
        if self._now() < self._until:
            return False
        self._until = self._now() + self._terms.pause_seconds  # for whoever asks next, while this call tries it
        return True

    def note(self, *, well: bool) -> None:
        """Note how a call went."""
        self._failed = 0 if well else self._failed + 1
        if self._failed >= self._terms.failures:
            self._until = self._now() + self._terms.pause_seconds


def answer_of(asked: str, metric: Metric, verdict: Verdict, flags: Flags, routed: str) -> Answer:
    """A verdict as an answer in the place of a judge's; it has no calibrated probability, and says so by having none but 0 and 1."""
    probabilities = {label: float(label == verdict.label) for label in metric.labels}
    return Answer(
        asked=asked,
        judge=f"{verdict.endpoint.name}:{verdict.endpoint.model}",
        digest="",
        label=verdict.label,
        score=metric.score_of(probabilities),
        probabilities=probabilities,
        flagged=verdict.label in metric.positive_labels,
        flags=flags.model_copy(update={"escalated": True, "abstained": False}),
        routed=routed,
        reasoning=Reasoning(by=verdict.endpoint.name, text=verdict.rationale),
    )


_HINT = "endpoints: [{name: gpt, base_url: 'https://...', model: ..., key_env: ...}], per_minute: 60, dollars_per_day: 5 (docs/guard.md)"
