"""Calibration: the fitted map from raw label probabilities to calibrated ones, applied in every path.

Pure scalar arithmetic, so that an example gets the bitwise same probability wherever it is scored. Knows nothing of fitting: that is
`prove.calibrators`.

With l_c the raw log-probabilities of the labels:
    identity     l_c
    temperature  l_c / t                                            (Guo et al., 2017)
    platt        binary: a m + b on the margin m = l_1 - l_0 of the first label; else  a l_c + b_c   (Platt, 1999)
    classwise    a_c l_c + b_c, a slope and an offset for each label                 (vector scaling; Guo et al., 2017)
    cumulative   ordered labels: a logit(F_k) + b_k on the cumulative probabilities, b_k rising with k
    beta         binary: a ln p - b ln(1 - p) + c on p of the first label    (Kull et al., 2017)
    isotonic     binary: the logit of a step-free interpolation through (margin, probability) knots  (Zadrozny & Elkan, 2002)
Some parts of the traffic (by length, or by source) may have maps of their own.
Then, where a prevalence is stated, the logits move by ln(stated / trained) per label (prior shift; Saerens et al., 2002).
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from pydantic import Field

from snapjudge.core.frozen import Frozen
from snapjudge.core.rules import ThresholdRule

CalibrationKind = Literal["identity", "temperature", "platt", "classwise", "cumulative", "beta", "isotonic"]
SliceBy = Literal["", "length", "source"]
_FLOOR = 1e-12


def softmax(logits: Sequence[float]) -> tuple[float, ...]:
    """Probabilities that sum to 1 in float64; the largest logit is taken off first."""
    top = max(logits)
    weights = [math.exp(value - top) for value in logits]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


class Threshold(Frozen):
    """The score at or above which a judgement is flagged, and the promise it carries.

    `guaranteed` is False when the data could not support the rule; then `value` is the fallback and `needed` says how many more labels
    of the counted class the rule would take.
    """

    value: float
    rule: ThresholdRule | None = None
    guaranteed: bool = False
    counted: int = 0
    needed: int = 0


class Escalation(Frozen):
    """The confidence below which a judgement is better left to someone else, and the promise for those at or above it.

    `coverage` is the share of the calibration examples that the judge answers itself. Without a guarantee `value` is above 1: everything is escalated.
    """

    value: float
    rule: ThresholdRule
    guaranteed: bool = False
    coverage: float = 0.0
    counted: int = 0
    needed: int = 0


class CalibrationMap(Frozen):
    """One fitted map on label log-probabilities."""

    kind: CalibrationKind = "identity"
    parameters: tuple[float, ...] = ()
    knots: tuple[tuple[float, float], ...] = ()

    def logits(self, log_p: Sequence[float]) -> list[float]:
        """Logits whose softmax are the calibrated probabilities."""
        if self.kind == "identity":
            return list(log_p)
        if self.kind == "temperature":
            return [value / self.parameters[0] for value in log_p]
        if self.kind == "classwise":
            count = len(log_p)
            return [slope * value + offset for slope, value, offset in zip(self.parameters[:count], log_p, self.parameters[count:], strict=True)]
        if self.kind == "cumulative":
            return self._cumulative(log_p)
        if self.kind == "platt" and len(log_p) > 2:
            slope, *offsets = self.parameters
            return [slope * value + offset for value, offset in zip(log_p, offsets, strict=True)]
        return [self._margin(log_p[0], log_p[1]), 0.0]

    def _margin(self, first: float, second: float) -> float:
        margin = first - second
        if self.kind == "platt":
            slope, offset = self.parameters
            return slope * margin + offset
        if self.kind == "beta":
            a, b, c = self.parameters
            return a * max(first, math.log(_FLOOR)) - b * max(second, math.log(_FLOOR)) + c
        assert self.kind == "isotonic"
        p = _interpolate(self.knots, margin)
        return math.log(p) - math.log1p(-p)

    def _cumulative(self, log_p: Sequence[float]) -> list[float]:
        """Mapped cumulative probabilities, and their differences as logits."""
        slope, *offsets = self.parameters
        p = softmax(log_p)
        below, mapped = 0.0, []
        for value, offset in zip(p, offsets, strict=False):
            below += value
            inside = min(max(below, _FLOOR), 1 - _FLOOR)
            logit = slope * (math.log(inside) - math.log1p(-inside)) + offset
            mapped.append(1 / (1 + math.exp(-min(max(logit, -500.0), 500.0))))
        edges = [0.0, *mapped, 1.0]
        return [math.log(max(high - low, _FLOOR)) for low, high in pairwise(edges)]


class Calibration(CalibrationMap):
    """The fitted map, maps of parts of the traffic that have their own, and the thresholds chosen after it.

    `by` says what parts are: `length` bands of characters that end at `edges`, or the `source` an input is said to come from.
    """

    by: SliceBy = ""
    edges: tuple[float, ...] = ()
    parts: dict[str, CalibrationMap] = Field(default={}, description="part of the traffic -> its own map")
    prior_shift: tuple[float, ...] = ()
    prevalence: tuple[float, ...] = ()
    log_loss: dict[str, float] = Field(default={}, description="cross-validated, per kind tried")
    examples: int = 0
    threshold: Threshold = Threshold(value=0.5)
    escalation: Escalation | None = None

    def part_of(self, length: int, source: str = "") -> str:
        """The part that an input of so many characters belongs to; empty where the common map is used."""
        part = band(length, self.edges) if self.by == "length" else source if self.by == "source" else ""
        return part if part in self.parts else ""

    def apply(self, log_p: Sequence[float], part: str = "") -> tuple[float, ...]:
        """Calibrated probabilities, in label order, from raw label log-probabilities."""
        logits = self.parts.get(part, self).logits(log_p)
        if self.prior_shift:
            logits = [value + shift for value, shift in zip(logits, self.prior_shift, strict=True)]
        return softmax(logits)


def band(length: int, edges: Sequence[float]) -> str:
    """The name of a length's band among edges in rising order."""
    place = sum(length > edge for edge in edges)
    low, high = (f"{edges[place - 1]:g}" if place else "0"), (f"{edges[place]:g}" if place < len(edges) else "more")
    return f"{low} to {high}"


def _interpolate(knots: Sequence[tuple[float, float]], x: float) -> float:
    """Piecewise linear through the knots, flat outside them; a hair of slope keeps distinct margins distinct."""
    xs = [knot[0] for knot in knots]
    right = bisect_right(xs, x)
    if right == 0:
        p = knots[0][1]
    elif right == len(knots):
        p = knots[-1][1]
    else:
        (x0, p0), (x1, p1) = knots[right - 1], knots[right]
        p = p0 + (p1 - p0) * (x - x0) / (x1 - x0)
    p += 1e-6 * math.tanh(x / 8)
    return min(max(p, 1e-5), 1 - 1e-5)
