"""Threshold rules and gates: small sentences people write, parsed to values.

`fpr<=0.02@95%` asks for the threshold whose false-positive rate is at most 2 % with 95 % confidence; `f1>=0.9` is a gate on a figure.
Knows nothing of data.
"""

import re
from typing import Literal

from snapjudge.core.frozen import Frozen
from snapjudge.errors import RuleInvalid

Guarantee = Literal["fpr", "recall", "precision"]
_DIRECTION = {"fpr": "<=", "recall": ">=", "precision": ">="}
_THRESHOLD = re.compile(r"^\s*(fpr|recall|precision)\s*(<=|>=)\s*([0-9.]+)\s*(%?)\s*@\s*([0-9.]+)\s*%\s*$")
_GATE = re.compile(r"^\s*([a-z][a-z0-9_@.]*?)(\.low|\.high)?\s*(<=|>=)\s*([0-9.]+)\s*$")


class ThresholdRule(Frozen):
    """`figure` at most or at least `bound` with probability `confidence` over the draw of the calibration data."""

    figure: Guarantee
    bound: float
    confidence: float

    @classmethod
    def parse(cls, text: str) -> "ThresholdRule":
        """Parse `fpr<=0.02@95%`, `recall>=0.9@95%`, `precision>=0.8@90%`.

        Raises:
            RuleInvalid: with an example of what would be right.
        """
        match = _THRESHOLD.match(text)
        if match:
            figure, sign, number, percent, confidence = match.groups()
            try:
                bound, sure = float(number) / (100 if percent else 1), float(confidence) / 100
            except ValueError:
                bound = sure = -1.0
            if sign == _DIRECTION[figure] and 0 < bound < 1 and 0.5 <= sure < 1:
                return cls.model_validate({"figure": figure, "bound": bound, "confidence": sure})
        raise RuleInvalid(
            f"threshold rule {text!r} cannot be read",
            hint="a rule such as fpr<=0.02@95%, recall>=0.9@95% or precision>=0.8@95%: bound in (0, 1), confidence from 50 to 99.9 %",
            received=text,
        )

    def __str__(self) -> str:
        return f"{self.figure}{_DIRECTION[self.figure]}{self.bound:g}@{self.confidence * 100:g}%"


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
