"""Fitting the calibration map: each kind by maximum likelihood, the kind by cross-validated log loss over groups.

The map itself is `core.calibration`; it is applied here too, so that what is chosen is what will run. Knows nothing of judges.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from snapjudge.core.calibration import Calibration, CalibrationKind

Floats = NDArray[np.float64]
LogP = Sequence[tuple[float, ...]]
FOLDS = 5
_ISOTONIC_FROM = 200  # examples; below, a step function has too few points per step


def fit_calibration(log_p: LogP, labels: Sequence[int], groups: Sequence[int], *, prevalence: Sequence[float] = (), symmetric: bool = False) -> Calibration:
    """The kind with the lowest cross-validated log loss, fitted on everything.

    Args:
        log_p: raw label log-probabilities, N tuples of L.
        labels: index of the true label.
        groups: examples of one group share a fold.
        symmetric: use only maps that treat all labels alike, so that a pair's two orders stay mirror images.
        prevalence: label shares where the judge will run; the map moves from the calibration split's shares to these.
    """
    count = len(log_p[0])
    losses = {kind: _cross_validated(kind, log_p, labels, groups) for kind in (_SYMMETRIC if symmetric else _kinds(count, len(log_p)))}
    best = min(losses, key=lambda kind: (round(losses[kind], 4), _ORDER.index(kind)))
    fitted = _FITTERS[best](np.array(log_p), np.array(labels))
    shift: tuple[float, ...] = ()
    if prevalence:
        seen = np.bincount(labels, minlength=count) + 1.0
        shift = tuple(float(value) for value in np.log(np.array(prevalence)) - np.log(seen / seen.sum()))
    return fitted.model_copy(
        update={"log_loss": {str(kind): loss for kind, loss in losses.items()}, "examples": len(log_p), "prior_shift": shift, "prevalence": tuple(prevalence)}
    )


def log_loss(calibration: Calibration, log_p: LogP, labels: Sequence[int]) -> float:
    """Mean negative log of the true label's calibrated probability."""
    return float(np.mean([-np.log(max(calibration.apply(row)[label], 1e-15)) for row, label in zip(log_p, labels, strict=True)]))


def _kinds(count: int, examples: int) -> list[CalibrationKind]:
    kinds: list[CalibrationKind] = ["identity", "temperature", "platt"]
    if count == 2:
        kinds.append("beta")
        if examples >= _ISOTONIC_FROM:
            kinds.append("isotonic")
    return kinds


_SYMMETRIC: tuple[CalibrationKind, ...] = ("identity", "temperature")
_ORDER: tuple[CalibrationKind, ...] = ("platt", "temperature", "beta", "identity", "isotonic")  # on a tie the simplest that can move the prior


def _cross_validated(kind: CalibrationKind, log_p: LogP, labels: Sequence[int], groups: Sequence[int]) -> float:
    """Mean log loss over folds of whole groups; folds are dealt by group number, a fixed order."""
    values, truth = np.array(log_p), np.array(labels)
    fold = np.array(groups) % FOLDS
    total = 0.0
    for one in range(FOLDS):
        held = fold == one
        if not held.any() or len(set(truth[~held].tolist())) < 2:
            continue
        fitted = _FITTERS[kind](values[~held], truth[~held])
        total += log_loss(fitted, [tuple(row) for row in values[held].tolist()], truth[held].tolist()) * int(held.sum())
    return total / len(truth)


def _identity(_values: Floats, _labels: NDArray[np.int64]) -> Calibration:
    return Calibration(kind="identity")


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


def _temperature(values: Floats, labels: NDArray[np.int64]) -> Calibration:
    targets = _smooth_targets(labels, values.shape[1])
    (log_t,) = _best(lambda x: _loss(values / np.exp(x[0]), targets), [0.0], [(-4, 5)])
    return Calibration(kind="temperature", parameters=(float(np.exp(log_t)),))


def _platt(values: Floats, labels: NDArray[np.int64]) -> Calibration:
    count = values.shape[1]
    targets = _smooth_targets(labels, count)
    if count == 2:
        margin = values[:, 0] - values[:, 1]
        pair = _best(lambda x: _loss(np.stack([x[0] * margin + x[1], 0 * margin], 1), targets), [0.5, 0.0], [(1e-3, 50), (-50, 50)])
        return Calibration(kind="platt", parameters=pair)
    ridge = 1e-3
    found = _best(
        lambda x: _loss(x[0] * values + x[1:], targets) + ridge * float((x[1:] ** 2).mean()), [1.0] + [0.0] * count, [(1e-3, 50)] + [(-50, 50)] * count
    )
    return Calibration(kind="platt", parameters=found)


def _beta(values: Floats, labels: NDArray[np.int64]) -> Calibration:
    targets = _smooth_targets(labels, 2)
    first, second = np.maximum(values[:, 0], np.log(1e-12)), np.maximum(values[:, 1], np.log(1e-12))

    def loss(x: Floats) -> float:
        return _loss(np.stack([x[0] * first - x[1] * second + x[2], 0 * first], 1), targets)

    return Calibration(kind="beta", parameters=_best(loss, [0.5, 0.5, 0.0], [(1e-3, 50), (1e-3, 50), (-50, 50)]))


def _isotonic(values: Floats, labels: NDArray[np.int64]) -> Calibration:
    margin, targets = values[:, 0] - values[:, 1], _smooth_targets(labels, 2)[:, 0]
    model = IsotonicRegression(out_of_bounds="clip").fit(margin, targets)
    knots = tuple((float(x), float(y)) for x, y in zip(model.X_thresholds_, model.y_thresholds_, strict=True))
    return Calibration(kind="isotonic", knots=knots)


_FITTERS: dict[CalibrationKind, Callable[[Floats, NDArray[np.int64]], Calibration]] = {
    "identity": _identity,
    "temperature": _temperature,
    "platt": _platt,
    "beta": _beta,
    "isotonic": _isotonic,
}
