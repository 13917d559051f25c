"""The guard policy: stages of prioritised rulesets, rules over judges, and what is done when they fire. Knows nothing of files or of how judges are asked.

A rule is a mapping with one of `judge`, `judges`, `question`, `keywords`, `pattern` (what is looked at) and at most one operator, or one of `all`, `any`, `not`
over further rules. Without an operator a judge's rule fires where the judge flags.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from snapjudge.core.frozen import Frozen
from snapjudge.core.metric import InputName
from snapjudge.core.policy_terms import Action, Route, Streaming, Webhook
from snapjudge.core.question import OpenQuestion

Stage = Literal["input", "output", "tool_call", "retrieval"]
STAGES: tuple[Stage, ...] = ("input", "output", "tool_call", "retrieval")
STAGE_FIELDS: dict[Stage, InputName] = {"input": "input", "output": "output", "tool_call": "output", "retrieval": "context"}
Operator = Literal["gt", "gte", "lt", "lte", "eq", "neq", "in", "contains", "all", "any", "empty", "not_empty"]
OPERATORS: tuple[Operator, ...] = ("gt", "gte", "lt", "lte", "eq", "neq", "in", "contains", "all", "any", "empty", "not_empty")
NUMERIC, LISTED = ("gt", "gte", "lt", "lte"), ("all", "any", "empty", "not_empty")
Value = Literal["score", "label", "labels", "flagged", "confidence", "escalated", "out_of_distribution", "windowed"]
Fail = Literal["open", "closed"]
LONGEST_MS = 600_000.0
_KINDS = ("judge", "judges", "question", "keywords", "pattern")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]


class Rule(Frozen):
    """One condition, or several under `all`, `any` or `not`.

    Args:
        reads: the field that its judges are given as their text; all that they read of the request unless said.
        of: what of the answer the operator looks at: the score for numbers, the label for texts, the flagged labels for lists, unless said.
        label: the probability of this label, instead.
        value: what the operator compares with.
        fail: whether a judge that fails or is late counts as bad (closed) or as fine (open); the policy's own unless said.
        deadline_ms: within which its judge has to answer; the policy's own unless said.
        fallback: keywords or a pattern that decide where its judge fails or is late, before it fails open or closed.
    """

    judge: str | None = None
    judges: tuple[str, ...] = ()
    question: OpenQuestion | None = None
    keywords: tuple[str, ...] = ()
    pattern: str | None = None
    field: InputName | None = Field(default=None, description="of keywords and patterns; the stage's own unless said")
    reads: InputName | None = None
    of: Value | None = None
    label: str | None = None
    op: Operator | None = None
    value: Any = None
    all_of: tuple["Rule", ...] = ()
    any_of: tuple["Rule", ...] = ()
    none_of: tuple["Rule", ...] = ()
    fail: Fail | None = None
    deadline_ms: float | None = Field(default=None, gt=0, le=LONGEST_MS)
    fallback: "Rule | None" = None

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        """The short form people write: `{judge: toxicity, gte: 0.8}`, `{any: [...]}`, a judge's name alone, a question's text alone."""
        if isinstance(given, str):
            return {"judge": given}
        if not isinstance(given, dict):
            return given
        known = dict(given)
        if isinstance(known.get("question"), str):
            known["question"] = {"instructions": known["question"]}
        looked_at = any(known.get(kind) for kind in _KINDS)
        for key, name in (("all", "all_of"), ("any", "any_of"), ("not", "none_of")):
            if key in known and not (looked_at and key != "not"):
                some = known.pop(key)
                known[name] = some if isinstance(some, list | tuple) else [some]
        operators = [name for name in OPERATORS if name in known]
        if len(operators) > 1 or (operators and "op" in known):
            raise ValueError(f"{' and '.join(operators)}: one operator for a rule; put several rules under `all`")
        if operators:
            known["op"], known["value"] = operators[0], known.pop(operators[0])
        return known

    @model_validator(mode="after")
    def _whole(self) -> "Rule":
        looked_at = [kind for kind in _KINDS if getattr(self, kind)]
        nested = [name for name in ("all_of", "any_of", "none_of") if getattr(self, name)]
        if len(looked_at) + len(nested) != 1:
            raise ValueError(f"a rule looks at one of {', '.join(_KINDS)}, or has rules under all, any or not; found {', '.join(looked_at + nested) or 'none'}")
        if self.fallback is not None and (nested or not (self.fallback.keywords or self.fallback.pattern)):
            raise ValueError("fallback is for a rule with a judge, and has keywords or a pattern")
        if self.op is not None and (nested or self.keywords or self.pattern):
            raise ValueError(f"{self.op} needs a judge or a question to look at")
        if self.op in NUMERIC and not (isinstance(self.value, int | float) and not isinstance(self.value, bool)):
            raise ValueError(f"{self.op} needs a number; found {self.value!r}")
        if self.op in ("in", "all", "any") and not isinstance(self.value, list | tuple):
            raise ValueError(f"{self.op} needs a list; found {self.value!r}")
        if self.judges and self.op not in (None, *LISTED, "contains"):
            raise ValueError(f"several judges are looked at together by {', '.join(LISTED)} and contains; found {self.op}")
        return self

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
        return pattern

    @property
    def nested(self) -> tuple["Rule", ...]:
        """The rules under all, any or not."""
        return self.all_of or self.any_of or self.none_of

    @property
    def leaves(self) -> Iterator["Rule"]:
        """It, or all rules below it that look at something."""
        if not self.nested:
            yield self
        for one in self.nested:
            yield from one.leaves

    @property
    def looked_at(self) -> Value:
        """What of an answer its operator looks at."""
        if self.of is not None:
            return self.of
        if self.op in NUMERIC:
            return "score"
        if self.op in LISTED or self.judges:
            return "labels"
        return "flagged" if self.op is None else "label"

    @property
    def patient(self) -> "Rule":
        """The same without deadlines."""
        nested = {name: tuple(one.patient for one in getattr(self, name)) for name in ("all_of", "any_of", "none_of")}
        return self.model_copy(update={"deadline_ms": None, **nested})

    @property
    def names(self) -> tuple[str, ...]:
        """Whom it asks: its judges, or its question."""
        return (self.question.name or self.question.instructions,) if self.question is not None else (self.judge,) if self.judge else self.judges

    @property
    def keys(self) -> tuple[str, ...]:
        """What its answers are found by: whom it asks, and the field that they read where it says one."""
        return tuple(f"{name} of {self.reads}" for name in self.names) if self.reads else self.names

    def __str__(self) -> str:
        if self.nested:
            sign = "all of" if self.all_of else "any of" if self.any_of else "none of"
            return f"{sign} ({'; '.join(map(str, self.nested))})"
        who = self.judge or ", ".join(self.judges) or (self.question.instructions if self.question else "")
        if self.keywords or self.pattern:
            return f"keywords {', '.join(self.keywords)}" if self.keywords else f"pattern {self.pattern}"
        who += f" of {self.reads}" if self.reads else ""
        what = f"P({self.label})" if self.label else self.looked_at
        return f"{who}: {what} {self.op} {self.value}" if self.op else f"{who} is flagged"


class Ruleset(Frozen):
    """Rules that fire together, all of them unless `when` says any, and what is done then. Those of a smaller priority go first."""

    name: Name
    priority: int = 100
    rules: tuple[Rule, ...] = Field(min_length=1)
    when: Literal["all", "any"] = "all"
    action: Action
    webhooks: tuple[Webhook, ...] = ()
    paused: bool = False

    @property
    def rule(self) -> Rule:
        """All its rules as one."""
        if len(self.rules) == 1:
            return self.rules[0]
        return Rule(all_of=self.rules) if self.when == "all" else Rule(any_of=self.rules)


class Policy(Frozen):
    """What is looked at, and done, at each stage of a request.

    Args:
        fail: of rules that do not say.
        deadline_ms: of rules that do not say.
    """

    name: Name
    version: int = Field(default=1, ge=1)
    stages: dict[Stage, tuple[Ruleset, ...]] = Field(min_length=1)
    fail: Fail = "open"
    deadline_ms: float = Field(default=1000.0, gt=0, le=LONGEST_MS)
    paused: bool = False
    streaming: Streaming = Streaming()
    routing: tuple[Route, ...] = ()
    about: str = ""

    @model_validator(mode="after")
    def _apart(self) -> "Policy":
        for stage, rulesets in self.stages.items():
            names = [one.name for one in rulesets]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{stage}: two rulesets are called {', '.join(twice)}")
        return self

    @property
    def signature(self) -> str:
        """Name and version, as in `support@3`."""
        return f"{self.name}@{self.version}"

    def rulesets(self, stage: Stage) -> list[Ruleset]:
        """Those of a stage in the order in which they are looked at."""
        return sorted(self.stages.get(stage, ()), key=lambda one: one.priority)

    def leaves(self, stage: Stage) -> list[Rule]:
        """The rules of a stage that look at something, of rulesets that are not paused."""
        return [leaf for one in self.rulesets(stage) if not one.paused for rule in one.rules for leaf in rule.leaves]

    @property
    def patient(self) -> "Policy":
        """The same with all the time there is, as for what was recorded."""
        stages = {
            stage: tuple(one.model_copy(update={"rules": tuple(rule.patient for rule in one.rules)}) for one in rulesets)
            for stage, rulesets in self.stages.items()
        }
        return self.model_copy(update={"deadline_ms": LONGEST_MS, "stages": stages})

    def fail_of(self, rule: Rule) -> Fail:
        """How a rule fails."""
        return rule.fail or self.fail

    def seconds_of(self, rule: Rule) -> float:
        """Within which its judge has to answer."""
        return (rule.deadline_ms or self.deadline_ms) / 1000
