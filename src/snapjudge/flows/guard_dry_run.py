"""A policy tried on recorded traffic: what it would do, and what that changes against what was done, or against another policy.

Nothing is acted on and nobody is called. Deadlines do not count: everybody answers.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

from snapjudge.core.example import shortened
from snapjudge.core.metric import INPUT_NAMES
from snapjudge.core.policy import STAGE_FIELDS, STAGES, Policy, Stage
from snapjudge.core.policy_terms import STRENGTH, ActionType
from snapjudge.core.precision import Precision
from snapjudge.core.progress import Progress
from snapjudge.curate.read import Record, records
from snapjudge.errors import DataInvalid, OptionInvalid, Problem
from snapjudge.guard.evaluate import text_of
from snapjudge.guard.guarding import guard_unhurried
from snapjudge.live.host import HostTerms
from snapjudge.live.judges import LiveJudges

CHUNK = 64
SHOWN = 400  # characters of a text on a page


@dataclass(frozen=True)
class DryRunRequest:
    """A policy and a file of records.

    Args:
        against: what it is held against; what the records say was done (`action`) where None.
        stage: of records that name none; by default `output` where there is one, else `input`.
    """

    policy: Policy
    on: Path | None
    against: Policy | None = None
    stage: Stage | None = None
    mapping: Mapping[str, str] | None = None
    precision: Precision = Precision.float32


@dataclass(frozen=True)
class Row:
    """One record: what was done, what would be, and why."""

    id: str
    line: int
    stage: Stage
    before: ActionType | None
    after: ActionType
    text: str
    left: str | None
    why: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether something else would be done."""
        return self.before is not None and self.before != self.after


@dataclass
class DryRun:
    """All rows, and the counts of what was and would be done."""

    policy: str
    against: str
    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """(before, after) -> rows; before is - where nothing is known of it."""
        return dict(Counter((row.before or "-", row.after) for row in self.rows))

    @property
    def after(self) -> dict[str, int]:
        """Action -> rows."""
        found = Counter(row.after for row in self.rows)
        return {action: found[action] for action in STRENGTH if found[action]}

    @property
    def changed(self) -> list[Row]:
        """The rows where something else would be done."""
        return [row for row in self.rows if row.changed]


def dry_run(request: DryRunRequest, progress: Progress) -> DryRun:
    """Try a policy.

    Raises:
        DataInvalid: no record can be read. BundleNotFound: a judge that the policy names is not there. OptionInvalid.
    """
    return asyncio.run(_run(request, progress))


async def _run(request: DryRunRequest, progress: Progress) -> DryRun:
    policies = [request.policy, *([request.against] if request.against else [])]
    names = dict.fromkeys(name for policy in policies for stage in policy.stages for leaf in policy.leaves(stage) for name in _names(leaf.judge, leaf.judges))
    asks = any(leaf.question for policy in policies for stage in policy.stages for leaf in policy.leaves(stage))
    terms = HostTerms(precision=request.precision, open_questions=asks)
    judges = await LiveJudges.start(terms, list(names))
    found = DryRun(request.policy.signature, request.against.signature if request.against else "what was done")
    try:
        source = iter(records(request.on, request.mapping))
        progress.start("records", 0)
        while chunk := list(islice(source, CHUNK)):
            rows = await asyncio.gather(*(_row(judges, request, record, found) for record in chunk))
            found.rows += [row for row in rows if row is not None]
            progress.advance(len(chunk), f"{len(found.changed)} would change")
    finally:
        await judges.close()
    if not found.rows:
        problems = found.problems[:20] or [Problem("(file)", "no records", "one JSON object per line with inputs")]
        raise DataInvalid(str(request.on or "standard input"), problems, hint='lines such as {"inputs": {"output": "..."}, "action": "block"}')
    return found


async def _row(judges: LiveJudges, request: DryRunRequest, record: Record, found: DryRun) -> Row | None:
    problem = record.problem or _problem(record)
    if problem is not None or record.data is None:
        found.problems.append(problem or Problem("(line)", "nothing", "an object", record.line))
        return None
    inputs = _inputs(record.data)
    stage = cast(Stage, record.data.get("stage") or request.stage or ("output" if "output" in inputs else "input"))
    after = (await guard_unhurried(judges, request.policy, stage, inputs)).response
    if request.against is not None:
        before: ActionType | None = (await guard_unhurried(judges, request.against, stage, inputs)).response.action
    else:
        before = record.data.get("action")
    text = text_of(inputs, STAGE_FIELDS[stage])
    fired = [one for one in after.reasons if one.status == "triggered"]
    why = tuple(f"{one.ruleset}: {one.rule}" + ("" if one.found is None else f" (found {_shown(one.found)})") for one in fired)
    return Row(record.id or str(record.line), record.line, stage, before, after.action, shortened(text, SHOWN), after.text, why)


def _problem(record: Record) -> Problem | None:
    data = record.data or {}
    if not _inputs(data):
        return Problem("inputs", "none", "an object of fields such as output", record.line)
    if data.get("stage") not in (None, *STAGES):
        return Problem("stage", repr(data["stage"])[:40], f"one of {', '.join(STAGES)}", record.line)
    if data.get("action") not in (None, *STRENGTH):
        return Problem("action", repr(data["action"])[:40], f"one of {', '.join(STRENGTH)}", record.line)
    return None


def _inputs(data: Mapping[str, Any]) -> Mapping[str, Any]:
    given = data.get("inputs")
    return given if isinstance(given, Mapping) else {name: data[name] for name in INPUT_NAMES if name in data}


def _names(judge: str | None, judges: Sequence[str]) -> Iterator[str]:
    yield from (judge,) if judge else judges


def _shown(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def checked_stage(name: str | None) -> Stage | None:
    """A stage by its name.

    Raises:
        OptionInvalid.
    """
    if name is not None and name not in STAGES:
        raise OptionInvalid(f"no stage is called {name!r}", hint=f"one of {', '.join(STAGES)}", received=name)
    return name
