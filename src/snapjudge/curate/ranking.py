"""AUROC of one number against a label, with an interval that needs no draws. Knows nothing of what the number is.

M positives, N negatives.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_Z = float(stats.norm.ppf(0.975))


@dataclass(frozen=True)
class Area:
    """AUROC with its 95 % interval. Below 0.5 the number ranks the positives low."""

    value: float
    low: float
    high: float

    @property
    def folded(self) -> "Area":
        """The same whichever way it ranks: at least 0.5, as far as the point goes."""
        return self if self.value >= 0.5 else Area(1 - self.value, 1 - self.high, 1 - self.low)


def auroc(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> Area | None:
    """AUROC with DeLong's variance (DeLong et al., 1988; by midranks, Sun & Xu, 2014) on the logit scale; None where one class is missing.

    A perfect ranking has no variance to go by: its interval is Wilson's for the smaller class without an error.
    """
    m, n = int(truth.sum()), int((~truth).sum())
    if not m or not n:
        return None
    both, first, second = stats.rankdata(np.r_[scores[truth], scores[~truth]]), stats.rankdata(scores[truth]), stats.rankdata(scores[~truth])
    above_M, below_N = (both[:m] - first) / n, 1 - (both[m:] - second) / m
    value = float(above_M.mean())
    if min(m, n) < 2:
        return Area(value, 0.0, 1.0)
    if min(value, 1 - value) < 1e-12:
        edge = float(_Z**2 / (min(m, n) + _Z**2))
        return Area(1.0, 1 - edge, 1.0) if value > 0.5 else Area(0.0, 0.0, edge)
    spread = float(np.sqrt(above_M.var(ddof=1) / m + below_N.var(ddof=1) / n)) / (value * (1 - value))
    middle = float(np.log(value / (1 - value)))
    low, high = (float(1 / (1 + np.exp(-(middle + sign * _Z * spread)))) for sign in (-1, 1))
    return Area(value, low, high)
