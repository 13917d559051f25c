"""What could be promised: for common bounds, whether the calibration data supports them, what keeping them costs, or how many more labels they take.

Each promise holds on its own at the stated confidence, not all of them at once. Knows nothing of judges.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from snapjudge.core.frozen import Frozen
from snapjudge.core.rules import Guarantee, ThresholdRule
from snapjudge.prove.thresholds import choose_escalation, choose_threshold, labels_to_promise

_FLAGGING: tuple[tuple[Guarantee, float], ...] = (("fpr", 0.1), ("fpr", 0.05), ("fpr", 0.02), ("fpr", 0.01), ("recall", 0.8), ("recall", 0.9), ("recall", 0.95))
_AGREEMENT = (0.9, 0.95, 0.99)
_CONFIDENCE = 0.95
_USEFUL = 0.5  # recall, or 1 - FPR, that a threshold must leave to be worth a promise


class Promise(Frozen):
    """A rule, whether it holds, and what it leaves.

    Args:
        value: the threshold on the score, or the confidence from which the judge answers itself; None where nothing is promised.
        leaves: recall under a promise of FPR, FPR under one of recall, coverage under one of agreement; on the calibration data.
        more: labels of the counted class that would likely (80 %) be enough beside those there are; None where no number is, by what is known now.
    """

    rule: ThresholdRule
    value: float | None
    leaves: float | None
    counted: int
    more: int | None = None


def flagging_promises(scores: Sequence[float], positive: Sequence[bool], groups: Sequence[int]) -> list[Promise]:
    """Promises of false-positive rate and recall."""
    score, truth = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    found = []
    if truth.all() or not truth.any():
        return []
    for figure, bound in _FLAGGING:
        rule = ThresholdRule(figure=figure, bound=bound, confidence=_CONFIDENCE)
        chosen = choose_threshold(scores, positive, groups, rule)
        if chosen.guaranteed:
            left = float((score[truth if figure == "fpr" else ~truth] >= chosen.value).mean())
            found.append(Promise(rule=rule, value=chosen.value, leaves=left, counted=chosen.counted))
            continue
        limit = bound if figure == "fpr" else 1 - bound
        wanted = labels_to_promise(limit, _CONFIDENCE, _error_if_useful(score, truth, figure))
        found.append(Promise(rule=rule, value=None, leaves=None, counted=chosen.counted, more=None if wanted is None else max(1, wanted - chosen.counted)))
    return found


def agreement_promises(confidence: Sequence[float], right: Sequence[bool], groups: Sequence[int]) -> list[Promise]:
    """Promises of agreement on what the judge answers itself."""
    found = []
    value, good = np.asarray(confidence, dtype=float), np.asarray(right, dtype=bool)
    for bound in _AGREEMENT:
        rule = ThresholdRule(figure="agreement", bound=bound, confidence=_CONFIDENCE)
        chosen = choose_escalation(confidence, right, groups, rule)
        if chosen.guaranteed:
            found.append(Promise(rule=rule, value=chosen.value, leaves=chosen.coverage, counted=chosen.counted))
            continue
        surest = good[np.argsort(-value)[: max(1, len(value) // 2)]]  # half of the traffic should be worth answering
        wanted = labels_to_promise(1 - bound, 1 - (1 - _CONFIDENCE) / 4, float((~surest).mean()))
        found.append(Promise(rule=rule, value=None, leaves=None, counted=chosen.counted, more=None if wanted is None else max(1, 2 * wanted - len(value))))
    return found


def _error_if_useful(score: NDArray[np.float64], truth: NDArray[np.bool_], figure: Guarantee) -> float:
    """The error rate of the counted class at a threshold that leaves half of the other class right."""
    counted, other = (score[~truth], score[truth]) if figure == "fpr" else (-score[truth], -score[~truth])
    at = np.quantile(other, 1 - _USEFUL)
    return float((counted >= at).mean())
