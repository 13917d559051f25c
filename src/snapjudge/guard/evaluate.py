"""What a policy decides from answers: pure, and the same for live traffic, for a dry run and for what was recorded.

Truth has three values. A judge that failed, was late or has not answered yet makes its rule unknown; what stays unknown of a ruleset is decided by how the
rules that failed are to fail. Touches no engine, no clock and no network.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from snapjudge.core.api import Answer
from snapjudge.core.policy import STAGE_FIELDS, Fail, Policy, Rule, Ruleset, Stage
from snapjudge.core.policy_terms import ENDING, STRENGTH, Action, ActionType, Status

Trouble = Literal["error", "timeout", "skipped", "pending"]


@dataclass(frozen=True)
class Finding:
    """What one rule found.

    Args:
        fired: None where it is not known.
        trouble: why not.
        fails: how it is to fail, where it has.
        found: the value that was looked at.
    """

    rule: Rule
    fired: bool | None
    trouble: Trouble | None = None
    found: Any = None
    judge: str = ""
    fails: Fail | None = None


@dataclass(frozen=True)
class Outcome:
    """How a ruleset came out, and what each of its rules found."""

    ruleset: Ruleset
    status: Status
    findings: tuple[Finding, ...] = ()

    @property
    def fired(self) -> bool:
        """Whether its action is taken: it was triggered, or it is not known whether it was, for something failed that is to fail closed."""
        failed = self.status in ("error", "timeout") and any(one.fired is None and one.fails == "closed" for one in self.findings)
        return self.status == "triggered" or failed


@dataclass(frozen=True)
class Verdict:
    """What a stage comes to.

    Args:
        action: the strongest of those taken.
        taken: the outcomes whose actions are taken, in order.
        outcomes: of all rulesets that were looked at.
    """

    action: ActionType
    taken: tuple[Outcome, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    @property
    def actions(self) -> list[Action]:
        """What is done, in order."""
        return [one.ruleset.action for one in self.taken]


@dataclass(frozen=True)
class Evidence:
    """What is known at a moment.

    Args:
        answers: by what rules ask for: a judge's name as the policy writes it, or a question's text.
        fields: the item's inputs, for keywords and patterns.
        failed: what kept the judges from answering, if anything did.
        elapsed: seconds since they were asked, for rules that wait no longer; None where all that will come is there.
    """

    answers: Mapping[str, Answer] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    failed: str = ""
    elapsed: float | None = None


def decide(policy: Policy, stage: Stage, evidence: Evidence) -> Verdict | None:
    """What a stage comes to; None while something that could change it has not been answered."""
    outcomes: list[Outcome] = []
    taken: list[Outcome] = []
    for ruleset in policy.rulesets(stage):
        outcome = _outcome(policy, stage, ruleset, evidence)
        if outcome is None:
            return None
        outcomes.append(outcome)
        if outcome.fired:
            taken.append(outcome)
            if ruleset.action.type in ENDING:
                break
    kinds = [one.ruleset.action.type for one in taken]
    return Verdict(max(kinds, key=STRENGTH.index, default="allow"), tuple(taken), tuple(outcomes))


def _outcome(policy: Policy, stage: Stage, ruleset: Ruleset, evidence: Evidence) -> Outcome | None:
    if ruleset.paused or policy.paused:
        return Outcome(ruleset, "paused")
    findings = tuple(_finding(policy, stage, leaf, evidence) for rule in ruleset.rules for leaf in rule.leaves)
    by_rule = {id(one.rule): one for one in findings}
    fired = _truth(ruleset.rule, lambda leaf: by_rule[id(leaf)].fired)
    if fired is not None:
        skipped = not fired and all(one.trouble == "skipped" for one in findings)
        return Outcome(ruleset, "triggered" if fired else "skipped" if skipped else "not_triggered", findings)
    if any(one.trouble == "pending" for one in findings):
        return None
    return Outcome(ruleset, "timeout" if any(one.trouble == "timeout" for one in findings) else "error", findings)


def _truth(rule: Rule, leaf: Callable[[Rule], bool | None]) -> bool | None:
    """Kleene's logic: unknown is not true, but may be."""
    if not rule.nested:
        return leaf(rule)
    values = [_truth(one, leaf) for one in rule.nested]
    if rule.all_of:
        return False if False in values else None if None in values else True
    found = True if True in values else None if None in values else False
    return found if rule.any_of or found is None else not found


def _finding(policy: Policy, stage: Stage, rule: Rule, evidence: Evidence) -> Finding:
    found = _asked(policy, stage, rule, evidence)
    if rule.fallback is not None and found.trouble in ("error", "timeout"):
        return replace(_plain(stage, rule.fallback, evidence.fields), rule=rule, judge="")
    return found


def _asked(policy: Policy, stage: Stage, rule: Rule, evidence: Evidence) -> Finding:
    if rule.keywords or rule.pattern:
        return _plain(stage, rule, evidence.fields)
    names = rule.keys
    late = evidence.elapsed is not None and evidence.elapsed >= policy.seconds_of(rule)
    answers = [evidence.answers.get(name) for name in names]
    if any(one is None for one in answers):
        trouble: Trouble = "error" if evidence.failed else "timeout" if late else "pending"
        return Finding(rule, None, trouble, judge=", ".join(names), fails=None if trouble == "pending" else policy.fail_of(rule))
    known = [one for one in answers if one is not None]
    if bad := [one for one in known if one.abstention is not None]:
        code = bad[0].abstention.code if bad[0].abstention is not None else ""
        if code == "input_invalid":  # there is nothing of what the judge reads
            return Finding(rule, False, "skipped", judge=bad[0].judge)
        return Finding(rule, None, "error", judge=bad[0].judge, fails=policy.fail_of(rule))
    found = _value(rule, known)
    return Finding(rule, _holds(rule, found), None, found, ", ".join(one.judge for one in known))


def _value(rule: Rule, answers: Sequence[Answer]) -> Any:
    if rule.judges:
        return [name for name, one in zip(rule.judges, answers, strict=True) if one.flagged]
    (answer,) = answers
    if rule.label is not None:
        return answer.probabilities.get(rule.label, 0.0)
    what = rule.looked_at
    if what == "labels":
        return [answer.label] if answer.flagged else []
    if what == "flagged" and answer.flags.zero_shot:
        return (answer.score or 0.0) >= 0.5
    if what in ("out_of_distribution", "windowed", "escalated"):
        return getattr(answer.flags, what)
    return getattr(answer, what)


def _holds(rule: Rule, found: Any) -> bool:
    operator, value = rule.op, rule.value
    if operator is None:
        return bool(found)
    if operator in ("empty", "not_empty"):
        return (not found) == (operator == "empty")
    listed = list(value) if isinstance(value, list | tuple) else [value]
    checks: dict[str, Callable[[], bool]] = {
        "gt": lambda: found > value,
        "gte": lambda: found >= value,
        "lt": lambda: found < value,
        "lte": lambda: found <= value,
        "eq": lambda: bool(found == value),
        "neq": lambda: bool(found != value),
        "in": lambda: found in listed,
        "contains": lambda: value in found if found is not None else False,
        "all": lambda: all(one in found for one in listed),
        "any": lambda: any(one in found for one in listed),
    }
    return checks[operator]()


def _plain(stage: Stage, rule: Rule, fields: Mapping[str, Any]) -> Finding:
    """Keywords as whole words whatever their case; a pattern anywhere."""
    text = text_of(fields, rule.field or STAGE_FIELDS[stage])
    if rule.pattern:
        match = re.search(rule.pattern, text)
        return Finding(rule, match is not None, None, match[0][:80] if match else None)
    hit = next((word for word in rule.keywords if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)), None)
    return Finding(rule, hit is not None, None, hit)


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """A field as text; that of the last message where there are messages instead."""
    value = fields.get(name)
    if value is None and isinstance(fields.get("messages"), list) and fields["messages"]:
        value = fields["messages"][-1].get("content")
    return value if isinstance(value, str) else "" if value is None else str(value)
