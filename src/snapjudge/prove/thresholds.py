"""Thresholds that carry a guarantee: exact tests in a fixed sequence (Angelopoulos et al., 2021, "Learn then Test").

For `fpr<=a@c`: thresholds are tried from the strictest down; each tests H: FPR > a by the exact binomial tail of its false positives, and the
first that cannot be rejected at level 1 - c ends the search. Because the sequence is fixed before the labels are seen, the last threshold
that passed keeps the promise with probability c over the draw of the calibration data; so does any above it, as `from` asks for. Knows nothing of judges.

`precision` and `agreement` look at the k examples of highest score or confidence, k fixed by the scores alone. `cost` is no rate: its tests use the
Hoeffding-Bentkus bound of the same paper, outward from the threshold that is best if the probabilities are right.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from snapjudge.core.calibration import Escalation, Threshold
from snapjudge.core.rules import ThresholdRule

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
FALLBACK = 0.5
_STARTS = (1, 2, 4, 8)  # where a ranked search may begin, in multiples of the fewest that could pass; the error budget is split among them
_STEP = 0.02  # between the thresholds that a search by cost tries


def choose_threshold(scores: Sequence[float], positive: Sequence[bool], groups: Sequence[int], rule: ThresholdRule | None) -> Threshold:
    """The threshold on calibrated scores that keeps `rule`, or 0.5 without a promise.

    Examples of one group are not independent, so one per group is counted, drawn by lot among those of the class that counts.
    """
    if rule is None:
        return Threshold(value=FALLBACK)
    score, truth, group = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool), np.asarray(groups)
    if rule.figure in ("precision", "cost"):
        drawn = _one_per_group(group)
        return (_precision if rule.figure == "precision" else _cost)(score[drawn], truth[drawn], rule)
    of_class = ~truth if rule.figure == "fpr" else truth
    counted = score[of_class][_one_per_group(group[of_class])]
    bound = rule.bound if rule.figure == "fpr" else 1 - rule.bound
    return _rate(np.sort(counted)[::-1] if rule.figure == "fpr" else np.sort(counted), bound, rule)


def choose_escalation(confidence: Sequence[float], right: Sequence[bool], groups: Sequence[int], rule: ThresholdRule) -> Escalation:
    """The confidence from which the judge's own answers keep `agreement>=bound`, with the coverage that leaves (as Jung et al., 2024, "Trust or Escalate")."""
    drawn = _one_per_group(np.asarray(groups))
    value, good = np.asarray(confidence, dtype=float)[drawn], np.asarray(right, dtype=bool)[drawn]
    best, least = _ranked(value, good, 1 - rule.bound, 1 - rule.confidence)
    if not best:
        return Escalation(value=1.1, rule=rule, counted=len(value), needed=max(0, least - len(value)))
    lowest = float(np.sort(value)[::-1][best - 1])
    return Escalation(value=lowest, rule=rule, guaranteed=True, coverage=best / len(value), counted=best)


def _one_per_group(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The index of one member of each group, drawn with a fixed seed."""
    order = np.random.default_rng(0).permutation(len(groups))
    picked: NDArray[np.int64] = order[np.unique(groups[order], return_index=True)[1]]
    return picked


def _rate(counted: Floats, bound: float, rule: ThresholdRule) -> Threshold:
    """FPR over negatives (sorted falling), or misses over positives (sorted rising): errors grow one by one along the sequence."""
    total = len(counted)
    needed = labels_needed(bound, rule.confidence) - total
    tails = stats.binom.cdf(np.arange(total + 1), total, bound)
    passed = int(np.argmax(tails > 1 - rule.confidence)) - 1 if total else -1  # the last tail is 1, so one always fails
    if passed < 0:
        return Threshold(value=FALLBACK, rule=rule, counted=total, needed=max(0, needed))
    # `passed` errors are allowed; the threshold sits just on the safe side of the next counted score. Ties fall on the safe side.
    if rule.figure == "fpr":
        value = max(rule.least, math.nextafter(float(counted[passed]), math.inf) if passed < total else 0.0)
    else:
        value = float(counted[passed]) if passed < total else 1.0
    # Above 1 where a counted score is 1 and none may be wrong: then nothing is flagged, and the promise holds.
    return Threshold(value=value, rule=rule, guaranteed=True, counted=total)


def _precision(score: Floats, truth: Bools, rule: ThresholdRule) -> Threshold:
    best, least = _ranked(score, truth, 1 - rule.bound, 1 - rule.confidence)
    if not best:
        return Threshold(value=FALLBACK, rule=rule, counted=len(score), needed=max(0, least - int((score >= FALLBACK).sum())))
    return Threshold(value=float(np.sort(score)[::-1][best - 1]), rule=rule, guaranteed=True, counted=best)


def _ranked(score: Floats, good: Bools, bound: float, level: float) -> tuple[int, int]:
    """The most examples of highest score of which at most a share `bound` is bad, for sure at `level`; and the fewest that could ever show it.

    Takes the k highest: k is fixed by the scores alone, so at each k the bad ones are tested as binomial; from several starts.
    """
    level /= len(_STARTS)
    least = labels_needed(bound, 1 - level)
    if not len(score):
        return 0, least
    order = np.argsort(-score, kind="stable")
    ranked, bad = score[order], np.cumsum(~good[order])
    ends = np.r_[np.flatnonzero(np.diff(ranked)) + 1, len(ranked)]  # a tie is taken whole
    passes = stats.binom.cdf(bad[ends - 1], ends, bound) <= level
    best = 0
    for start in (least * factor for factor in _STARTS):
        for end, passed in zip(ends[ends >= start].tolist(), passes[ends >= start].tolist(), strict=True):
            if not passed:
                break
            best = max(best, end)
    return best, least


def _cost(score: Floats, truth: Bools, rule: ThresholdRule) -> Threshold:
    """From the threshold fp / (fp + fn), which is best for right probabilities, up and down in turn until a test fails; the cheapest that passed."""
    assert rule.costs is not None
    fp, fn = rule.costs
    total, top, level = len(score), max(rule.costs), (1 - rule.confidence) / 2  # half for each direction
    start = fp / (fp + fn)
    up, down = np.arange(start, 1.0, _STEP), np.arange(start, 0.0, -_STEP)
    passed: dict[float, float] = {}
    for values in (up, down):
        for value in values.tolist():
            flagged = score >= value
            mean = float((fp * (flagged & ~truth).sum() + fn * (~flagged & truth).sum()) / max(1, total))
            if not total or hoeffding_bentkus(mean / top, total, rule.bound / top) > level:
                break
            passed[value] = mean
    if not passed:
        return Threshold(value=FALLBACK, rule=rule, counted=total, needed=max(0, labels_needed(rule.bound / top, 1 - level) - total))
    return Threshold(value=min(passed, key=lambda value: passed[value]), rule=rule, guaranteed=True, counted=total)


def hoeffding_bentkus(mean: float, count: int, bound: float) -> float:
    """A valid p-value of H: E > bound, for the mean of `count` independent values in [0, 1] (Bates et al., 2021, Theorem 2)."""
    low = min(mean, bound)
    relative = (low * math.log(low / bound) if low else 0.0) + ((1 - low) * math.log((1 - low) / (1 - bound)) if low < 1 else 0.0)
    return float(min(1.0, math.exp(-count * relative), math.e * stats.binom.cdf(math.ceil(count * mean), count, bound)))


def labels_needed(bound: float, confidence: float) -> int:
    """Fewest counted labels with which zero errors prove a rate of at most `bound`: ln(1 - c) / ln(1 - bound)."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - bound))


def labels_to_promise(bound: float, confidence: float, expected: float, *, power: float = 0.8, most: int = 1_000_000) -> int | None:
    """Fewest counted labels with which a rate of `expected` proves to be at most `bound` with probability `power`.

    With n labels the test passes up to a number of errors; n grows until Binomial(n, expected) stays there often enough. None where no number up to
    `most` does: the judge is not good enough, or by too little.
    """
    if expected >= bound:
        return None

    def passes(count: int) -> bool:
        allowed = int(stats.binom.ppf(1 - confidence, count, bound))
        while allowed >= 0 and stats.binom.cdf(allowed, count, bound) > 1 - confidence:
            allowed -= 1
        return allowed >= 0 and float(stats.binom.cdf(allowed, count, expected)) >= power

    low, high = 1, labels_needed(bound, confidence)
    while not passes(high):
        low, high = high, high * 2
        if high > most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high
