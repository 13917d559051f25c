"""Threshold rules and gates: small sentences people write, parsed to values.

`fpr<=0.02@95%` asks for the threshold whose false-positive rate is at most 2 % with 95 % confidence; `f1>=0.9` is a gate on a figure.
Knows nothing of data.
"""

import re
from typing import Literal

from snapjudge.core.frozen import Frozen
from snapjudge.errors import RuleInvalid

Guarantee = Literal["fpr", "recall", "precision", "cost", "agreement"]
_DIRECTION = {"fpr": "<=", "recall": ">=", "precision": ">=", "cost": "<=", "agreement": ">="}
_NUMBER = r"([0-9.]+)"
_THRESHOLD = re.compile(
    rf"^\s*(\w+)\s*(?:\(\s*fp\s*=\s*{_NUMBER}\s*,\s*fn\s*=\s*{_NUMBER}\s*\))?"
    rf"\s*(<=|>=)\s*{_NUMBER}\s*(%?)\s*@\s*{_NUMBER}\s*%(?:\s*from\s*{_NUMBER})?\s*$"
)
_GATE = re.compile(r"^\s*([a-z][a-z0-9_@.]*?)(\.low|\.high)?\s*(<=|>=)\s*([0-9.]+)\s*$")
_EXAMPLES = "fpr<=0.02@95%, fpr<=0.02@95% from 0.5, recall>=0.9@95%, precision>=0.8@95% or cost(fp=1,fn=5)<=0.3@95%"


class ThresholdRule(Frozen):
    """`figure` at most or at least `bound` with probability `confidence` over the draw of the calibration data.

    `cost` is the mean cost of an example with the two `costs` of a false positive and a false negative; `agreement` the share of right answers among
    those the judge gives itself. With `least`, no score below it is flagged even where the promise would hold: raising a threshold keeps one on `fpr`.
    """

    figure: Guarantee
    bound: float
    confidence: float
    costs: tuple[float, float] | None = None
    least: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "ThresholdRule":
        """Parse a rule for the flagging threshold: `fpr<=0.02@95%` (`from 0.5`), `recall>=0.9@95%`, `precision>=0.8@90%`, `cost(fp=1,fn=5)<=0.3@95%`.

        Raises:
            RuleInvalid: with an example of what would be right.
        """
        found = cls._read(text)
        if found is None or found.figure == "agreement":
            hint = f"a rule such as {_EXAMPLES}: bound in (0, 1), below the larger cost for cost, confidence from 50 to 99.9 %, `from` with fpr only"
            raise RuleInvalid(f"threshold rule {text!r} cannot be read", hint=hint, received=text)
        return found

    @classmethod
    def parse_escalation(cls, text: str) -> "ThresholdRule":
        """Parse a rule for what the judge answers itself: `agreement>=0.95@90%`.

        Raises:
            RuleInvalid: with an example of what would be right.
        """
        found = cls._read(text)
        if found is None or found.figure != "agreement":
            hint = "a rule such as agreement>=0.95@95%: bound in (0, 1), confidence from 50 to 99.9 %"
            raise RuleInvalid(f"escalation rule {text!r} cannot be read", hint=hint, received=text)
        return found

    @classmethod
    def _read(cls, text: str) -> "ThresholdRule | None":
        match = _THRESHOLD.match(text)
        if match is None or match[1] not in _DIRECTION:
            return None
        figure, fp, fn, sign, number, percent, confidence, least = match.groups()
        try:
            bound, sure = float(number) / (100 if percent else 1), float(confidence) / 100
            costs = None if fp is None else (float(fp), float(fn))
            floor = float(least or 0)
        except ValueError:
            return None
        fits = (costs is not None and max(costs) > bound > 0 and min(costs) > 0) if figure == "cost" else (costs is None and 0 < bound < 1)
        fits = fits and floor < 1 and (least is None or figure == "fpr")
        if not fits or sign != _DIRECTION[figure] or not 0.5 <= sure < 1:
            return None
        return cls.model_validate({"figure": figure, "bound": bound, "confidence": sure, "costs": costs, "least": floor})

    def __str__(self) -> str:
        costs = "" if self.costs is None else f"(fp={self.costs[0]:g},fn={self.costs[1]:g})"
        least = f" from {self.least:g}" if self.least else ""
        return f"{self.figure}{costs}{_DIRECTION[self.figure]}{self.bound:g}@{self.confidence * 100:g}%{least}"


class Gate(Frozen):
    """A figure of the proof, or an end of its interval, that must be at least or at most a bound."""

    figure: str
    end: Literal["", ".low", ".high"]
    sign: Literal["<=", ">="]
    bound: float

    @classmethod
    def parse(cls, text: str) -> "Gate":
        """Parse `f1>=0.9`, `fpr<=0.05`, `auroc.low>=0.85`.

        Raises:
            RuleInvalid: with an example of what would be right.
        """
        match = _GATE.match(text)
        if not match:
            raise RuleInvalid(f"gate {text!r} cannot be read", hint="a gate such as f1>=0.9, fpr<=0.05 or auroc.low>=0.85", received=text)
        figure, end, sign, bound = match.groups()
        try:
            float(bound)
        except ValueError as error:
            raise RuleInvalid(f"gate {text!r}: {bound!r} is no number", hint="a gate such as f1>=0.9", received=text) from error
        return cls.model_validate({"figure": figure, "end": end or "", "sign": sign, "bound": bound})

    def __str__(self) -> str:
        return f"{self.figure}{self.end}{self.sign}{self.bound:g}"

    def passes(self, value: float) -> bool:
        """Whether a found number meets the gate."""
        return value >= self.bound if self.sign == ">=" else value <= self.bound
