"""True rates from few labels: how often something happens in all traffic, from a judge's scores on all of it and labels on a random part.

The judge alone is biased, the labels alone are few. Prediction-powered inference takes the judge's rate and corrects it by its mean error on the labelled
part; it is right however bad the judge is, and the better the judge, the narrower. Knows nothing of files.

Arrays: N items of traffic, n labelled.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from snapjudge.core.frozen import Frozen
from snapjudge.errors import InputInvalid
from snapjudge.prove.figures import wilson

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_FEWEST = 5


class Rate(Frozen):
    """An estimated rate with its interval; `error` is the standard error, `worth` how many plain labels would be as good."""

    method: str
    value: float
    low: float
    high: float
    error: float
    labels: int
    worth: float


@dataclass(frozen=True)
class Traffic:
    """Scores on everything [N], in [0, 1]; and for the labelled part [n] its places in the traffic, what is true of it, and how likely each was to be drawn.

    The probabilities are what makes the sample random: uniform n / N, or those of `sampling_plan`. Rows labelled for another reason do not belong here.
    """

    scores: Floats
    places: NDArray[np.int64]
    truth: Bools
    drawn: Floats

    def check(self) -> None:
        """Refuse what no rate can be estimated from.

        Raises:
            InputInvalid.
        """
        if len(self.truth) < _FEWEST:
            raise InputInvalid(f"{len(self.truth)} labels of a random sample", hint=f"label at least {_FEWEST} rows of the random share, better 100")
        if not ((self.drawn > 0) & (self.drawn <= 1)).all() or not ((self.scores >= 0) & (self.scores <= 1)).all():
            raise InputInvalid("scores or sampling probabilities outside 0 to 1", hint="use the score file and the queue as they were written")

    @property
    def uniform(self) -> bool:
        """Whether every row was as likely to be drawn as any other."""
        return bool(np.allclose(self.drawn, self.drawn[0]))


def classical(traffic: Traffic, confidence: float = 0.95) -> Rate:
    """The labels alone: their share with Wilson's interval (uniform draws), or weighted by inverse probability."""
    traffic.check()
    if not traffic.uniform:
        return _rate("labels alone", *_weighted(traffic, np.zeros_like(traffic.scores)), traffic, confidence)
    n = len(traffic.truth)
    value = float(traffic.truth.mean())
    low, high = wilson(int(traffic.truth.sum()), n, confidence)
    return Rate(method="labels alone", value=value, low=low, high=high, error=float(np.sqrt(value * (1 - value) / n)), labels=n, worth=float(n))


def prediction_powered(traffic: Traffic, confidence: float = 0.95) -> Rate:
    """Prediction-powered inference with a tuned weight on the judge (Angelopoulos et al., 2023: PPI and PPI++); for draws of unequal probability,
    active statistical inference (Zrnic & Candes, 2024).
    """
    traffic.check()
    weight = power_weight(traffic)
    if not traffic.uniform:
        return _rate("prediction-powered", *_weighted(traffic, weight * traffic.scores), traffic, confidence)
    value, error = ppi_mean(traffic, weight)
    return _rate("prediction-powered", value, error, traffic, confidence)


def power_weight(traffic: Traffic) -> float:
    """How far the judge is trusted, 0 to 1: the weight of the smallest variance, cov(Y, f) / (var f (1 + n / (N - n)))."""
    f, truth = traffic.scores[traffic.places], traffic.truth.astype(float)
    spread = float(np.var(np.delete(traffic.scores, traffic.places))) if len(traffic.scores) > len(f) else float(np.var(f))
    if spread <= 0 or len(f) < 2:
        return 0.0
    rest = max(1, len(traffic.scores) - len(f))
    return float(np.clip(np.cov(truth, f, bias=True)[0, 1] / (spread * (1 + len(f) / rest)), 0, 1))


def ppi_mean(traffic: Traffic, weight: float) -> tuple[float, float]:
    """The estimate and its standard error for uniform draws: the judge's mean on the unlabelled, corrected by its mean error on the labelled."""
    f, truth = traffic.scores[traffic.places], traffic.truth.astype(float)
    others = np.delete(traffic.scores, traffic.places)
    others = others if len(others) else f
    rectifier = truth - weight * f
    value = weight * others.mean() + rectifier.mean()
    return float(value), float(np.sqrt(weight**2 * others.var() / len(others) + rectifier.var() / len(f)))


def _weighted(traffic: Traffic, guess: Floats) -> tuple[float, float]:
    """For draws of unequal probability: the mean over all traffic of the guess plus its error, where known, over its probability."""
    found = guess.copy()
    found[traffic.places] += (traffic.truth - guess[traffic.places]) / traffic.drawn
    return float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found)))


def _rate(method: str, value: float, error: float, traffic: Traffic, confidence: float) -> Rate:
    """Wilson's interval for as many labels as the variance is worth: unlike the normal one it holds for rare things, and stays within 0 and 1.

    A variance of nothing (no error seen among few labels) is not believed: the labels are then worth no more than their number.
    """
    n = len(traffic.truth)
    middle = float(np.clip(value, 0, 1))
    shrunk = (n * middle + 1) / (n + 2)
    seen = int(traffic.truth.sum())
    known = min(seen, n - seen) >= _FEWEST
    worth = shrunk * (1 - shrunk) / error**2 if error > 0 else np.inf
    worth = float(min(worth, 25 * n)) if known else float(min(worth, n))
    low, high = wilson(middle * worth, worth, confidence)
    return Rate(method=method, value=middle, low=low, high=high, error=error, labels=n, worth=worth)


def corrected(flagged: int, total: int, hits: int, positives: int, right: int, negatives: int, confidence: float = 0.95) -> Rate:
    """The flagged share corrected by sensitivity and specificity known from a test (Rogan & Gladen, 1978; interval of Lang & Reiczigel, 2014).

    Holds only if the judge is as sensitive and specific on this traffic as it was on the test.

    Args:
        flagged: of `total` items of traffic.
        hits: flagged among the `positives` of the test; `right` not flagged among its `negatives`.

    Raises:
        InputInvalid: a judge no better than chance, or no test.
    """
    if not (positives and negatives and total):
        raise InputInvalid("a correction needs positives and negatives of a test, and traffic", hint="prove the judge first")
    z = float(stats.norm.ppf(1 - (1 - confidence) / 2))
    n, n_se, n_sp = total + z * z, positives + 2, negatives + 2
    p, se, sp = (flagged + z * z / 2) / n, (hits + 1) / n_se, (right + 1) / n_sp
    youden = se + sp - 1
    plain = hits / positives + right / negatives - 1
    if min(youden, plain) <= 0.05:
        raise InputInvalid(f"sensitivity {se:.2f} and specificity {sp:.2f} tell next to nothing", hint="use a better judge, or the random sample alone")
    rate = (p + sp - 1) / youden
    se_part, sp_part = se * (1 - se) / n_se, sp * (1 - sp) / n_sp
    shift = 2 * z * z * (rate * se_part - (1 - rate) * sp_part)
    error = float(np.sqrt(p * (1 - p) / n + (1 - rate) ** 2 * sp_part + rate**2 * se_part) / youden)
    raw = (flagged / total + right / negatives - 1) / plain
    low, high = (float(np.clip(rate + shift + sign * z * error, 0, 1)) for sign in (-1, 1))
    value = float(np.clip(raw, low, high))
    return Rate(method="corrected by sensitivity and specificity", value=value, low=low, high=high, error=error, labels=positives + negatives, worth=0.0)


def sampling_plan(scores: Floats, budget: int, *, uniform_share: float = 0.2) -> Floats:
    """Which rows to label next so that the rate gets narrow: a probability for each [N], adding up to `budget`.

    In proportion to the standard deviation of the truth given a calibrated score, sqrt(p (1 - p)) (Zrnic & Candes, 2024), mixed with a uniform share so
    that a judge that is sure and wrong is found out.
    """
    spread = np.sqrt(np.clip(scores * (1 - scores), 1e-6, None))
    share = (1 - uniform_share) * spread / spread.sum() + uniform_share / len(scores)
    drawn: Floats = np.zeros_like(share)
    left = float(min(budget, len(scores)))
    free = np.ones(len(scores), dtype=bool)
    while True:  # what would be drawn for sure is set to 1, and its excess given to the others
        drawn[free] = left * share[free] / share[free].sum()
        full = free & (drawn >= 1)
        if not full.any():
            return drawn
        drawn[full] = 1.0
        free &= ~full
        left = float(min(budget, len(scores))) - float((~free).sum())
        if not free.any() or left <= 0:
            drawn[free] = max(left, 0.0)
            return drawn


def expected_error(scores: Floats, drawn: Floats) -> float:
    """The standard error to expect of `prediction_powered` under a plan, if the scores are calibrated."""
    inner = (scores * (1 - scores) * (1 / np.maximum(drawn, 1e-12))).mean()
    return float(np.sqrt((scores.var() + inner) / len(scores)))
