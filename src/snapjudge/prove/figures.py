"""The figures of a proof, each with an interval, computed for many bootstrap draws at once.

Every figure is a function of weights: a weight of 1 for each example gives the point figure (held to scikit-learn's by a test), the
multiplicities of a bootstrap draw give that draw's. Knows nothing of judges.

Arrays: N examples, W weight rows, L labels, K distinct scores in falling order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from snapjudge.core.frozen import Frozen
from snapjudge.core.metric import Metric

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
DRAWS = 2000
CONFIDENCE = 0.95
_CELLS = 4_000_000  # weights held at once
_BINS = 10
_FEWEST_AT_1_FPR = 100  # negatives; with fewer, 1 % of them is none


class Figure(Frozen):
    """One number and its 95 % interval; `method` says how the interval was made. A figure the data cannot give is missing, not zero."""

    value: float
    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Scored:
    """Test or calibration examples as arrays: calibrated probabilities [N, L], labels [N], score [N], flags [N], group of each [N].

    `prior` weighs examples [N] so that the labels have the shares that the probabilities are stated for; only figures of probabilities use it.
    """

    probabilities: Floats
    labels: Ints
    scores: Floats
    flagged: NDArray[np.bool_]
    groups: Ints
    prior: Floats | None = None

    def take(self, chosen: NDArray[np.bool_] | Ints) -> "Scored":
        """Some of the examples."""
        prior = None if self.prior is None else self.prior[chosen]
        return Scored(self.probabilities[chosen], self.labels[chosen], self.scores[chosen], self.flagged[chosen], self.groups[chosen], prior)

    def __len__(self) -> int:
        return len(self.labels)


def figures(data: Scored, metric: Metric, *, seed: int = 0, draws: int = DRAWS) -> dict[str, Figure]:
    """All figures of the metric's type.

    Intervals: Wilson for rates where every group is one example; percentiles of a bootstrap over groups for the others, but for the calibration error, which
    every draw overstates: there the draws are turned round the value (basic bootstrap). Where no draw can differ, such as a ranking without an error, Wilson's
    for as many tries as there are groups of the rarer kind.
    """
    point = _values(data, metric, np.ones((1, len(data))))
    samples = _bootstrap(data, metric, draws, np.random.default_rng(seed))
    single = len(np.unique(data.groups)) == len(data)
    rates = _rates(data, metric)
    found = {}
    for name, (value, *_) in point.items():
        sample = samples[name][np.isfinite(samples[name])]
        if not np.isfinite(value) or (not len(sample) and name not in rates):
            continue
        if name in rates and single:
            hit, counted = rates[name]
            ends, method = wilson(int(hit.sum()), int(counted.sum())), "wilson"
        elif value in (0.0, 1.0) and name not in _UNBOUNDED and (not len(sample) or np.ptp(sample) == 0):
            tries = len(np.unique(data.groups[rates[name][1]])) if name in rates else _rarer_groups(data, metric)
            ends, method = wilson(tries if value else 0, tries), "wilson over groups"
        else:
            tail = (1 - CONFIDENCE) / 2
            low, high = (float(edge) for edge in np.quantile(sample, [tail, 1 - tail]))
            ends = (max(0.0, 2 * value - high), 2 * value - low) if name == "ece" else (low, high)
            method = "basic bootstrap by group" if name == "ece" else "bootstrap by group"
        found[name] = Figure(value=float(value), low=float(min(ends[0], value)), high=float(max(ends[1], value)), method=method)
    return found


_UNBOUNDED = ("mae", "log_loss", "brier", "ece")  # errors: none at all is a sharp statement about the scores, not about few tries


def _rarer_groups(data: Scored, metric: Metric) -> int:
    """Groups of the rarer side: of the flagged labels and the others, or of the rarest label there is."""
    kinds = [positive_of(data, metric), ~positive_of(data, metric)] if metric.positive_labels else [data.labels == label for label in np.unique(data.labels)]
    return max(1, min(len(np.unique(data.groups[kind])) for kind in kinds))


_BINARY = ("f1", "precision", "recall", "fpr", "balanced_accuracy", "auroc", "auprc", "recall_at_1_fpr")
_LABELS = ("accuracy", "macro_f1")
_LEVELS = ("mae", "weighted_kappa", "pearson")
_PROBABILITIES = ("log_loss", "brier", "ece")
LOWER_IS_BETTER = ("fpr", "mae", "log_loss", "brier", "ece")


def figure_names(metric: Metric) -> tuple[str, ...]:
    """The figures a metric of this kind can have, in the order of the report."""
    binary = _BINARY if metric.positive_labels else ()
    by_label = () if metric.type == "boolean" else (*_LABELS, *(_LEVELS if metric.type == "score" else ("macro_auroc",)))
    return (*binary, *by_label, *_PROBABILITIES)


def wilson(hits: float, total: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson, 1927)."""
    z = float(stats.norm.ppf(1 - (1 - confidence) / 2))
    share, spread = hits / total, z * z / total
    centre = (share + spread / 2) / (1 + spread)
    half = z * np.sqrt(share * (1 - share) / total + spread / total / 4) / (1 + spread)
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def share(hits: NDArray[np.bool_], groups: Ints, *, seed: int = 0, draws: int = DRAWS) -> Figure:
    """A proportion with its interval: Wilson's where every group is one example, else a bootstrap over groups."""
    value = float(hits.mean())
    if len(np.unique(groups)) == len(groups):
        low, high = wilson(int(hits.sum()), len(hits))
        return Figure(value=value, low=min(low, value), high=max(high, value), method="wilson")
    if hits.all() or not hits.any():  # no draw could differ: the groups are then counted as if each were one example
        count = len(np.unique(groups))
        low, high = wilson(count if hits.all() else 0, count)
        return Figure(value=value, low=low, high=high, method="wilson over groups")
    _, member = np.unique(groups, return_inverse=True)
    per_group, sizes = np.bincount(member, weights=hits), np.bincount(member).astype(float)
    picked = np.random.default_rng(seed).multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=draws)
    low, high = (float(edge) for edge in np.quantile(picked @ per_group / (picked @ sizes), [0.025, 0.975]))
    return Figure(value=value, low=min(low, value), high=max(high, value), method="bootstrap by group")


def _bootstrap(data: Scored, metric: Metric, draws: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Every figure under `draws` resamples of whole groups."""
    _, member = np.unique(data.groups, return_inverse=True)
    count = int(member.max()) + 1
    rows = max(1, min(draws, _CELLS // max(1, len(data))))
    parts: list[dict[str, Floats]] = []
    for start in range(0, draws, rows):
        picked = rng.multinomial(count, np.full(count, 1 / count), size=min(rows, draws - start))
        parts.append(_values(data, metric, picked[:, member].astype(float)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def positive_of(data: Scored, metric: Metric) -> NDArray[np.bool_]:
    """Which examples carry a flagged label."""
    flagged = [index for index, name in enumerate(metric.labels) if name in metric.positive_labels]
    return np.isin(data.labels, flagged)


def _values(data: Scored, metric: Metric, weights_WN: Floats) -> dict[str, Floats]:
    with np.errstate(divide="ignore", invalid="ignore"):
        found: dict[str, Floats] = {}
        if metric.positive_labels:
            found |= _binary(data, positive_of(data, metric), weights_WN)
        if metric.type != "boolean":
            found |= _by_label(data, metric, weights_WN)
        return found | _probabilistic(data, metric, weights_WN)


def _binary(data: Scored, truth: NDArray[np.bool_], weights: Floats) -> dict[str, Floats]:
    """Rates at the operating point and ranking figures. AUPRC is average precision."""
    hit, positive = data.flagged & truth, truth.astype(float)
    tp, fp = weights @ hit, weights @ (data.flagged & ~truth)
    ps, ns = weights @ positive, weights @ (1 - positive)
    tp_K, fp_K = ranked_counts(data.scores, truth, weights)
    before_tp, before_fp = _shifted(tp_K), _shifted(fp_K)
    auroc = ((fp_K - before_fp) * (before_tp + tp_K) / 2).sum(1) / (ps * ns)
    auprc = ((tp_K - before_tp) * tp_K / np.maximum(tp_K + fp_K, 1e-300)).sum(1) / ps
    allowed = fp_K <= 0.01 * ns[:, None]
    return {
        "f1": 2 * tp / (2 * tp + fp + (ps - tp)),
        "precision": tp / (tp + fp),
        "recall": tp / ps,
        "fpr": fp / ns,
        "balanced_accuracy": (tp / ps + 1 - fp / ns) / 2,
        "auroc": auroc,
        "auprc": auprc,
        "recall_at_1_fpr": np.where(allowed, tp_K, 0).max(1) / ps if (~truth).sum() >= _FEWEST_AT_1_FPR else np.full(len(weights), np.nan),
    }


def ranked_counts(scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Weighted true and false positives [W, K] when everything at or above each distinct score is flagged."""
    order = np.argsort(-scores, kind="stable")
    last = np.r_[np.nonzero(np.diff(scores[order]))[0], len(scores) - 1]
    sorted_weights = weights[:, order]
    tp = np.cumsum(sorted_weights * truth[order], 1)[:, last]
    fp = np.cumsum(sorted_weights * ~truth[order], 1)[:, last]
    return tp, fp


def _shifted(counts: Floats) -> Floats:
    return np.concatenate((np.zeros((len(counts), 1)), counts[:, :-1]), 1)


def _by_label(data: Scored, metric: Metric, weights: Floats) -> dict[str, Floats]:
    """Figures over all labels, from weighted counts per label; memory grows with labels, not with their square."""
    labels = len(metric.labels)
    answer = data.probabilities.argmax(1)
    truth_NL, answer_NL = np.eye(labels)[data.labels], np.eye(labels)[answer]
    true_WL, answered_WL, right_WL = weights @ truth_NL, weights @ answer_NL, weights @ (truth_NL * answer_NL)
    total, present = weights.sum(1), true_WL > 0
    f1 = 2 * right_WL / (true_WL + answered_WL)
    found = {"accuracy": right_WL.sum(1) / total, "macro_f1": np.where(present, np.nan_to_num(f1), 0).sum(1) / present.sum(1)}
    if metric.type != "score":
        areas = np.stack([_area(data.probabilities[:, index], data.labels == index, weights) for index in range(labels)])
        usable = np.isfinite(areas)
        return found | {"macro_auroc": np.where(usable, areas, 0).sum(0) / usable.sum(0)}
    level = np.arange(labels)
    cost = (level[:, None] - level) ** 2 / (labels - 1) ** 2
    observed = weights @ cost[data.labels, answer]
    chance = ((true_WL @ cost) * answered_WL).sum(1) / total
    kappa = 1 - observed / chance
    mean_level = data.probabilities @ level
    return found | {
        "mae": weights @ np.abs(mean_level - data.labels) / total,
        "weighted_kappa": kappa,
        "pearson": _pearson(mean_level, data.labels.astype(float), weights),
    }


def _area(scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> Floats:
    tp, fp = ranked_counts(scores, truth, weights)
    area: Floats = ((fp - _shifted(fp)) * (_shifted(tp) + tp) / 2).sum(1) / (tp[:, -1] * fp[:, -1])
    return area


def _pearson(x: Floats, y: Floats, weights: Floats) -> Floats:
    total = weights.sum(1)
    mean_x, mean_y = weights @ x / total, weights @ y / total
    covariance = weights @ (x * y) / total - mean_x * mean_y
    found: Floats = covariance / np.sqrt((weights @ x**2 / total - mean_x**2) * (weights @ y**2 / total - mean_y**2))
    return found


def _probabilistic(data: Scored, metric: Metric, weights: Floats) -> dict[str, Floats]:
    """Log loss, Brier score and expected calibration error (10 equal-width bins) of the flagged label, or of the best label."""
    weights = weights if data.prior is None else weights * data.prior
    total, rows = weights.sum(1), np.arange(len(data))
    loss = -np.log(np.maximum(data.probabilities[rows, data.labels], 1e-15))
    if metric.type == "boolean":
        claimed, truth = data.scores, positive_of(data, metric).astype(float)
        brier = (claimed - truth) ** 2
    else:
        claimed, truth = data.probabilities.max(1), (data.probabilities.argmax(1) == data.labels).astype(float)
        brier = ((data.probabilities - np.eye(len(metric.labels))[data.labels]) ** 2).sum(1)
    bins = np.minimum((claimed * _BINS).astype(int), _BINS - 1)
    gap_per_bin = weights @ (np.eye(_BINS)[bins] * (claimed - truth)[:, None])
    return {"log_loss": weights @ loss / total, "brier": weights @ brier / total, "ece": np.abs(gap_per_bin).sum(1) / total}


def _rates(data: Scored, metric: Metric) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Of the figures that are plain proportions: which examples are hits, and which are counted."""
    found: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]] = {}
    if metric.positive_labels:
        truth = positive_of(data, metric)
        found = {
            "precision": (data.flagged & truth, data.flagged),
            "recall": (data.flagged & truth, truth),
            "fpr": (data.flagged & ~truth, ~truth),
        }
    if metric.type != "boolean":
        found["accuracy"] = (data.probabilities.argmax(1) == data.labels, np.ones(len(data), dtype=bool))
    return {name: pair for name, pair in found.items() if pair[1].any()}


@dataclass(frozen=True)
class Paired:
    """Difference of one figure between two scorers on the same examples, and its standard error over group draws."""

    difference: float
    low: float
    high: float
    error: float


def main_figure(metric: Metric) -> str:
    """The figure that picks epochs and scopes: ranking for labels, correlation for levels."""
    if metric.positive_labels:
        return "auroc"
    return "pearson" if metric.type == "score" else "macro_auroc"


def paired(first: Scored, second: Scored, metric: Metric, *, seed: int = 0, draws: int = DRAWS) -> dict[str, Paired]:
    """`first` minus `second` in every figure that both have, with the same draws for both."""
    ones = np.ones((1, len(first)))
    points = [_values(data, metric, ones) for data in (first, second)]
    samples = [_bootstrap(data, metric, draws, np.random.default_rng(seed)) for data in (first, second)]
    found = {}
    for name in points[0]:
        point = float(points[0][name][0] - points[1][name][0])
        with np.errstate(invalid="ignore"):
            gap = samples[0][name] - samples[1][name]
        gap = gap[np.isfinite(gap)]
        if np.isfinite(point):
            low, high = np.quantile(gap, [0.025, 0.975]) if len(gap) else (point, point)
            found[name] = Paired(point, float(low), float(high), float(gap.std()) if len(gap) else 0.0)
    return found


def compare(first: Scored, second: Scored, metric: Metric, *, draws: int = DRAWS) -> Paired:
    """`first` minus `second` in the metric's main figure."""
    return paired(first, second, metric, draws=draws).get(main_figure(metric), Paired(0.0, 0.0, 0.0, 0.0))


def group_numbers(groups: Sequence[str]) -> Ints:
    """Groups as integers, in order of first appearance."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(group, len(seen)) for group in groups], dtype=np.int64)
