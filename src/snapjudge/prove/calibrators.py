"""Fitting the calibration map: each kind by maximum likelihood, the kind by cross-validated log loss over groups.

The map itself is `core.calibration`; it is applied here too, so that what is chosen is what will run. Knows nothing of judges.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from snapjudge.core.calibration import Calibration, CalibrationKind, CalibrationMap, SliceBy
from snapjudge.core.metric import MetricType

Floats = NDArray[np.float64]
LogP = Sequence[tuple[float, ...]]
FOLDS = 5
_ISOTONIC_FROM = 200  # examples; below, a step function has too few points per step
_FEWEST_IN_PART, _FEWEST_OF_LABEL = 80, 10  # examples for a part to have a map of its own
_PER_SLOPE = 50  # examples per label from which each label may have a slope


@dataclass(frozen=True)
class CalibrationData:
    """Raw label log-probabilities (N tuples of L), the true label's index, and a group number of each; `parts` names the part of the traffic each is of."""

    log_p: LogP
    labels: Sequence[int]
    groups: Sequence[int]
    parts: Sequence[str] = ()

    def take(self, places: Sequence[int]) -> "CalibrationData":
        """Some of the examples."""
        own = [self.parts[i] for i in places] if self.parts else []
        return CalibrationData([self.log_p[i] for i in places], [self.labels[i] for i in places], [self.groups[i] for i in places], own)


def fit_calibration(
    data: CalibrationData, metric_type: MetricType, *, prevalence: Sequence[float] = (), by: SliceBy = "", edges: Sequence[float] = ()
) -> Calibration:
    """The kind with the lowest cross-validated log loss, fitted on everything.

    Args:
        metric_type: decides which kinds are tried; pairwise only those that treat both sides alike, so that a pair's two orders stay mirror images.
        prevalence: label shares where the judge will run; the map moves from the calibration split's shares to these.
        by: give parts with enough examples a map of their own, if that lowers the cross-validated log loss.
    """
    count = len(data.log_p[0])
    losses = {kind: _cross_validated(kind, data) for kind in _kinds(metric_type, count, len(data.log_p))}
    best = min(losses, key=lambda kind: (round(losses[kind], 4), _ORDER.index(kind)))
    fitted = Calibration(**_fit(best, data).model_dump())
    told: dict[str, float] = {str(kind): loss for kind, loss in losses.items()}
    if by:
        parts, own_loss = _parts(best, data), _cross_validated(best, data, by_part=True)
        told[f"{best} by {by}"] = own_loss
        if parts and own_loss < losses[best]:
            fitted = fitted.model_copy(update={"by": by, "edges": tuple(edges), "parts": parts})
    shift: tuple[float, ...] = ()
    if prevalence:
        seen = np.bincount(data.labels, minlength=count) + 1.0
        shift = tuple(float(value) for value in np.log(np.array(prevalence)) - np.log(seen / seen.sum()))
    return fitted.model_copy(update={"log_loss": told, "examples": len(data.log_p), "prior_shift": shift, "prevalence": tuple(prevalence)})


def length_edges(lengths: Sequence[int]) -> tuple[float, ...]:
    """Edges of three bands of lengths with about equally many examples each."""
    return tuple(sorted({float(np.ceil(edge)) for edge in np.quantile(np.array(lengths), [1 / 3, 2 / 3])}))


def _fit(kind: CalibrationKind, data: CalibrationData) -> CalibrationMap:
    return _FITTERS[kind](np.array(data.log_p), np.array(data.labels))


def _parts(kind: CalibrationKind, data: CalibrationData) -> dict[str, CalibrationMap]:
    """A map for every part with enough examples of every label that occurs at all."""
    found = {}
    for part in dict.fromkeys(data.parts):
        own = data.take([place for place, name in enumerate(data.parts) if name == part])
        counts = np.bincount(own.labels, minlength=len(data.log_p[0]))
        if part and len(own.labels) >= _FEWEST_IN_PART and counts[np.unique(data.labels)].min() >= _FEWEST_OF_LABEL:
            found[part] = _fit(kind, own)
    return found


def log_loss(calibration: Calibration, log_p: LogP, labels: Sequence[int], parts: Sequence[str] = ()) -> float:
    """Mean negative log of the true label's calibrated probability."""
    named = parts or [""] * len(labels)
    return float(np.mean([-np.log(max(calibration.apply(row, part)[label], 1e-15)) for row, label, part in zip(log_p, labels, named, strict=True)]))


def _kinds(metric_type: MetricType, count: int, examples: int) -> list[CalibrationKind]:
    kinds: list[CalibrationKind] = ["identity", "temperature"]
    if metric_type == "pairwise":
        return kinds
    kinds.append("platt")
    if count == 2:
        kinds.append("beta")
        if examples >= _ISOTONIC_FROM:
            kinds.append("isotonic")
    elif metric_type == "score":
        kinds.append("cumulative")
    elif examples >= _PER_SLOPE * count:
        kinds.append("classwise")
    return kinds


# On a tie the simplest that can move the prior.
_ORDER: tuple[CalibrationKind, ...] = ("platt", "temperature", "beta", "cumulative", "classwise", "identity", "isotonic")


def _cross_validated(kind: CalibrationKind, data: CalibrationData, *, by_part: bool = False) -> float:
    """Mean log loss over folds of whole groups; folds are dealt by group number, a fixed order."""
    fold, labels = np.array(data.groups) % FOLDS, np.array(data.labels)
    total = 0.0
    for one in range(FOLDS):
        held, rest = np.flatnonzero(fold == one).tolist(), np.flatnonzero(fold != one).tolist()
        if not held or len(set(labels[rest].tolist())) < 2:
            continue
        own, test = data.take(rest), data.take(held)
        fitted = Calibration(**_fit(kind, own).model_dump(), parts=_parts(kind, own) if by_part else {})
        total += log_loss(fitted, test.log_p, test.labels, test.parts if by_part else ()) * len(held)
    return total / len(labels)


def _identity(_values: Floats, _labels: NDArray[np.int64]) -> CalibrationMap:
    return CalibrationMap(kind="identity")


def _smooth_targets(labels: NDArray[np.int64], count: int) -> Floats:
    """Platt's targets: away from 0 and 1 by one pseudo-example, so that separable data has a finite best map."""
    shares = np.bincount(labels, minlength=count)
    targets = np.zeros((len(labels), count))
    for label in range(count):
        own = (shares[label] + 1) / (shares[label] + count)
        targets[labels == label] = (1 - own) / (count - 1)
        targets[labels == label, label] = own
    return targets


def _loss(logits: Floats, targets: Floats) -> float:
    top = logits.max(1, keepdims=True)
    log_p = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
    return float(-(targets * log_p).sum(1).mean())


def _best(function: Callable[[Floats], float], start: Sequence[float], bounds: Sequence[tuple[float | None, float | None]]) -> tuple[float, ...]:
    found = minimize(function, np.array(start), method="L-BFGS-B", bounds=bounds)
    return tuple(float(value) for value in found.x)


def _temperature(values: Floats, labels: NDArray[np.int64]) -> CalibrationMap:
    targets = _smooth_targets(labels, values.shape[1])
    (log_t,) = _best(lambda x: _loss(values / np.exp(x[0]), targets), [0.0], [(-4, 5)])
    return CalibrationMap(kind="temperature", parameters=(float(np.exp(log_t)),))


def _platt(values: Floats, labels: NDArray[np.int64]) -> CalibrationMap:
    count = values.shape[1]
    targets = _smooth_targets(labels, count)
    if count == 2:
        margin = values[:, 0] - values[:, 1]
        pair = _best(lambda x: _loss(np.stack([x[0] * margin + x[1], 0 * margin], 1), targets), [0.5, 0.0], [(1e-3, 50), (-50, 50)])
        return CalibrationMap(kind="platt", parameters=pair)
    ridge = 1e-3
    found = _best(
        lambda x: _loss(x[0] * values + x[1:], targets) + ridge * float((x[1:] ** 2).mean()), [1.0] + [0.0] * count, [(1e-3, 50)] + [(-50, 50)] * count
    )
    return CalibrationMap(kind="platt", parameters=found)


def _classwise(values: Floats, labels: NDArray[np.int64]) -> CalibrationMap:
    """A slope and an offset for each label, drawn a little towards one common slope and none."""
    count, targets = values.shape[1], _smooth_targets(labels, values.shape[1])
    found = _best(
        lambda x: _loss(x[:count] * values + x[count:], targets) + 1e-3 * float(((x[:count] - x[:count].mean()) ** 2).mean() + (x[count:] ** 2).mean()),
        [1.0] * count + [0.0] * count,
        [(1e-3, 50)] * count + [(-50, 50)] * count,
    )
    return CalibrationMap(kind="classwise", parameters=found)


def _cumulative(values: Floats, labels: NDArray[np.int64]) -> CalibrationMap:
    """One slope, and an offset for each cut that rises from cut to cut, so that probabilities stay positive."""
    count, targets = values.shape[1], _smooth_targets(labels, values.shape[1])
    p = np.exp(values - values.max(1, keepdims=True))
    below = np.clip(np.cumsum(p / p.sum(1, keepdims=True), 1)[:, :-1], 1e-12, 1 - 1e-12)
    logit = np.log(below) - np.log1p(-below)

    def offsets(x: Floats) -> Floats:
        return np.concatenate((x[1:2], x[1] + np.cumsum(x[2:])))

    def loss(x: Floats) -> float:
        mapped = 1 / (1 + np.exp(-np.clip(x[0] * logit + offsets(x), -500, 500)))
        edges = np.concatenate((np.zeros((len(mapped), 1)), mapped, np.ones((len(mapped), 1))), 1)
        return float(-(targets * np.log(np.maximum(np.diff(edges, axis=1), 1e-12))).sum(1).mean())

    found = _best(loss, [1.0, *[0.0] * (count - 1)], [(1e-3, 50), (-50, 50), *[(0, 50)] * (count - 2)])
    return CalibrationMap(kind="cumulative", parameters=(found[0], *offsets(np.array(found)).tolist()))


def _beta(values: Floats, labels: NDArray[np.int64]) -> CalibrationMap:
    targets = _smooth_targets(labels, 2)
    first, second = np.maximum(values[:, 0], np.log(1e-12)), np.maximum(values[:, 1], np.log(1e-12))

    def loss(x: Floats) -> float:
        return _loss(np.stack([x[0] * first - x[1] * second + x[2], 0 * first], 1), targets)

    return CalibrationMap(kind="beta", parameters=_best(loss, [0.5, 0.5, 0.0], [(1e-3, 50), (1e-3, 50), (-50, 50)]))


def _isotonic(values: Floats, labels: NDArray[np.int64]) -> CalibrationMap:
    margin, targets = values[:, 0] - values[:, 1], _smooth_targets(labels, 2)[:, 0]
    model = IsotonicRegression(out_of_bounds="clip").fit(margin, targets)
    knots = tuple((float(x), float(y)) for x, y in zip(model.X_thresholds_, model.y_thresholds_, strict=True))
    return CalibrationMap(kind="isotonic", knots=knots)


_FITTERS: dict[CalibrationKind, Callable[[Floats, NDArray[np.int64]], CalibrationMap]] = {
    "identity": _identity,
    "temperature": _temperature,
    "platt": _platt,
    "classwise": _classwise,
    "cumulative": _cumulative,
    "beta": _beta,
    "isotonic": _isotonic,
}
