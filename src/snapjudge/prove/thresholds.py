"""Thresholds that carry a guarantee: exact binomial tests in a fixed sequence (Angelopoulos et al., 2021, "Learn then Test").

For `fpr<=a@c`: thresholds are tried from the strictest down; each tests H: FPR > a by the exact binomial tail of its false positives, and the
first that cannot be rejected at level 1 - c ends the search. Because the sequence is fixed before the labels are seen, the last threshold
that passed keeps the promise with probability c over the draw of the calibration data. Knows nothing of judges.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from snapjudge.core.calibration import Threshold
from snapjudge.core.rules import ThresholdRule

Floats = NDArray[np.float64]
FALLBACK = 0.5
_STARTS = 4  # where a precision search may begin; the error budget is split among them


def choose_threshold(scores: Sequence[float], positive: Sequence[bool], groups: Sequence[int], rule: ThresholdRule | None) -> Threshold:
    """The threshold on calibrated scores that keeps `rule`, or 0.5 without a promise.

    Examples of one group are not independent, so one per group is counted, drawn by lot among those of the class that counts.
    """
    if rule is None:
        return Threshold(value=FALLBACK)
    score, truth, group = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool), np.asarray(groups)
    if rule.figure == "precision":
        drawn = _one_per_group(group)
        return _precision(score[drawn], truth[drawn], rule)
    of_class = ~truth if rule.figure == "fpr" else truth
    counted = score[of_class][_one_per_group(group[of_class])]
    bound = rule.bound if rule.figure == "fpr" else 1 - rule.bound
    return _rate(np.sort(counted)[::-1] if rule.figure == "fpr" else np.sort(counted), bound, rule)


def _one_per_group(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The index of one member of each group, drawn with a fixed seed."""
    order = np.random.default_rng(0).permutation(len(groups))
    picked: NDArray[np.int64] = order[np.unique(groups[order], return_index=True)[1]]
    return picked


def _rate(counted: Floats, bound: float, rule: ThresholdRule) -> Threshold:
    """FPR over negatives (sorted falling), or misses over positives (sorted rising): errors grow one by one along the sequence."""
    total = len(counted)
    needed = labels_needed(bound, rule.confidence) - total
    passed = -1
    for errors in range(total + 1):
        if stats.binom.cdf(errors, total, bound) > 1 - rule.confidence or total == 0:
            break
        passed = errors
    if passed < 0:
        return Threshold(value=FALLBACK, rule=rule, counted=total, needed=max(1, needed))
    # `passed` errors are allowed; the threshold sits just on the safe side of the next counted score. Ties fall on the safe side.
    if rule.figure == "fpr":
        value = math.nextafter(float(counted[passed]), math.inf) if passed < total else 0.0
    else:
        value = float(counted[passed]) if passed < total else 1.0
    # Above 1 where a counted score is 1 and none may be wrong: then nothing is flagged, and the promise holds.
    return Threshold(value=value, rule=rule, guaranteed=True, counted=total)


def labels_needed(bound: float, confidence: float) -> int:
    """Fewest counted labels with which zero errors prove a rate of at most `bound`: ln(1 - c) / ln(1 - bound)."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - bound))


def _precision(score: Floats, truth: NDArray[np.bool_], rule: ThresholdRule) -> Threshold:
    """Flag the k highest: k is fixed by scores alone, so at each k the false ones are tested as binomial; from several starts."""
    order = np.argsort(-score, kind="stable")
    ranked, wrong = score[order], np.cumsum(~truth[order])
    ends = [k for k in range(1, len(score) + 1) if k == len(score) or ranked[k] < ranked[k - 1]]
    level, bound = (1 - rule.confidence) / _STARTS, 1 - rule.bound
    least = labels_needed(bound, 1 - level)
    best = 0
    for start in (least * factor for factor in (1, 2, 4, 8)):
        for k in (end for end in ends if end >= start):
            if stats.binom.cdf(int(wrong[k - 1]), k, bound) > level:
                break
            best = max(best, k)
    if not best:
        return Threshold(value=FALLBACK, rule=rule, counted=len(score), needed=max(0, least - int((score >= FALLBACK).sum())))
    return Threshold(value=float(ranked[best - 1]), rule=rule, guaranteed=True, counted=best)
