"""How far labelers agree: raw, Cohen's and Fleiss' kappa, Krippendorff's alpha, Gwet's AC1, each with a bootstrap interval; who differs, and on what.

Intervals draw items, not votes. Items with the same counts of votes are one pattern, so a draw of N items is one multinomial over the patterns,
exactly, whatever N is.
Knows votes as numbers; nothing of files or metrics.

Arrays: N items, R labelers, K labels, U patterns, D draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snapjudge.errors import InputInvalid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Level = Literal["nominal", "ordinal", "interval"]
MISSING = -1
DRAWS = 2000


@dataclass(frozen=True)
class Estimate:
    """A value with a 95 % interval; None where it is not defined, such as a kappa where only one label was ever given."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Agreement:
    """What the labelers of a data set agree on.

    Args:
        items: with at least two votes; `single` those with one, which tell nothing here.
        raw: share of agreeing pairs of votes, averaged over items.
        per_label: Fleiss' kappa of each label against all others.
        pairs: Cohen's kappa of every two labelers with items in common, and how many.
    """

    items: int
    single: int
    raw: Estimate
    fleiss: Estimate
    alpha: Estimate
    ac1: Estimate
    per_label: tuple[Estimate, ...]
    pairs: tuple[tuple[int, int, int, Estimate], ...]


def agreement(votes_NR: Ints, labels: int, *, level: Level = "nominal", draws: int = DRAWS, seed: int = 0) -> Agreement:
    """Agreement of labelers over items.

    Args:
        votes_NR: label of each labeler for each item, MISSING where there is none.
        level: how far apart labels are for alpha: `ordinal` and `interval` for scores.

    Raises:
        InputInvalid: no item has two votes, or a vote is no label.
    """
    counts_NK = vote_counts(votes_NR, labels)
    several = counts_NK.sum(1) >= 2
    if not several.any():
        raise InputInvalid("no item has two votes", hint="have some items labelled by two people or more")
    patterns_UK, frequency_U = np.unique(counts_NK[several], axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    items = int(frequency_U.sum())
    weights_DU = np.vstack([frequency_U, rng.multinomial(items, frequency_U / items, size=draws)]).astype(np.float64)
    sums = _Sums(patterns_UK.astype(np.float64), weights_DU)
    pairs = [(first, second, *_cohen(votes_NR[:, [first, second]], labels, draws, rng)) for first, second in combinations(range(votes_NR.shape[1]), 2)]
    return Agreement(
        items,
        int((counts_NK.sum(1) == 1).sum()),
        _estimate(sums.observed_D),
        _estimate(_corrected(sums.observed_D, (sums.share_DK**2).sum(1))),
        _estimate(_alpha(sums.coincidence_DKK, level)),
        _estimate(_corrected(sums.observed_D, (sums.share_DK * (1 - sums.share_DK)).sum(1) / max(1, labels - 1))),
        tuple(_estimate(column) for column in sums.per_label_DK.T),
        tuple(pair for pair in pairs if pair[2]),
    )


def vote_counts(votes_NR: Ints, labels: int) -> Ints:
    """How many votes each label got, [N, K].

    Raises:
        InputInvalid: a vote is no label.
    """
    if votes_NR.size and (votes_NR.max() >= labels or votes_NR.min() < MISSING):
        raise InputInvalid(f"a vote for label {int(votes_NR.max())}; labels are numbered from 0 to {labels - 1}", hint="map labels to their places first")
    return np.stack([(votes_NR == label).sum(1) for label in range(labels)], 1)


def to_adjudicate(counts_NK: Ints) -> Ints:
    """Items whose votes differ, the most informative first: highest entropy of the votes, then most votes, then their order."""
    total_N = np.maximum(counts_NK.sum(1), 1)
    share_NK = counts_NK / total_N[:, None]
    entropy_N = -(share_NK * np.log(np.where(share_NK > 0, share_NK, 1.0))).sum(1)
    order: Ints = np.lexsort((np.arange(len(counts_NK)), -total_N, -entropy_N))
    informative: Ints = order[entropy_N[order] > 0]
    return informative


def confusion(votes_NR: Ints, labels: int, labeler: int) -> Ints:
    """Of one labeler: [K, K], rows the label most others gave (ties left out), columns the labeler's own."""
    most_N = majority(vote_counts(np.delete(votes_NR, labeler, axis=1), labels))
    own_N = votes_NR[:, labeler]
    clear = (most_N != MISSING) & (own_N != MISSING)
    found = np.zeros((labels, labels), dtype=np.int64)
    np.add.at(found, (most_N[clear], own_N[clear]), 1)
    return found


def majority(counts_NK: Ints) -> Ints:
    """The label with the most votes of each item [N]; MISSING where nobody voted, or two labels have as many."""
    best_N = counts_NK.max(1)
    clear = (best_N > 0) & ((counts_NK == best_N[:, None]).sum(1) == 1)
    return np.where(clear, counts_NK.argmax(1), MISSING)


class _Sums:
    """What all figures are made of, for each draw; the first is the data itself."""

    def __init__(self, patterns_UK: Floats, weights_DU: Floats) -> None:
        votes_U = patterns_UK.sum(1)
        agreeing_U = (patterns_UK * (patterns_UK - 1)).sum(1) / (votes_U * (votes_U - 1))
        items_D = weights_DU.sum(1)
        self.observed_D = weights_DU @ agreeing_U / items_D
        self.share_DK = weights_DU @ (patterns_UK / votes_U[:, None]) / items_D[:, None]
        labels = patterns_UK.shape[1]
        own_UKK = patterns_UK[:, :, None] * patterns_UK[:, None] - patterns_UK[:, :, None] * np.eye(labels)
        self.coincidence_DKK = (weights_DU @ (own_UKK / (votes_U - 1)[:, None, None]).reshape(len(votes_U), -1)).reshape(-1, labels, labels)
        apart_UK = patterns_UK * (votes_U[:, None] - patterns_UK) / (votes_U * (votes_U - 1))[:, None]
        expected_DK = self.share_DK * (1 - self.share_DK)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.per_label_DK = 1 - weights_DU @ apart_UK / items_D[:, None] / expected_DK


def _corrected(observed_D: Floats, expected_D: Floats) -> Floats:
    """Agreement beyond what chance gives; not a number where chance gives all."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected_D < 1, (observed_D - expected_D) / (1 - expected_D), np.nan)


def _alpha(coincidence_DKK: Floats, level: Level) -> Floats:
    """Krippendorff's alpha (Computing Krippendorff's Alpha-Reliability, 2011): 1 - observed over expected disagreement."""
    total_DK = coincidence_DKK.sum(2)
    total_D = total_DK.sum(1)
    apart_DKK = _distances(total_DK, level)
    observed_D = (coincidence_DKK * apart_DKK).sum((1, 2))
    expected_D = (total_DK[:, :, None] * total_DK[:, None] * apart_DKK).sum((1, 2)) / np.maximum(total_D - 1, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected_D > 0, 1 - observed_D / expected_D, np.nan)


def _distances(total_DK: Floats, level: Level) -> Floats:
    """Squared distance of every two labels."""
    labels = total_DK.shape[1]
    if level == "ordinal":
        below_DK = total_DK.cumsum(1) - total_DK / 2
        return np.asarray((below_DK[:, :, None] - below_DK[:, None]) ** 2)
    place_K = np.arange(labels, dtype=np.float64)
    apart_KK = (place_K[:, None] - place_K) ** 2 if level == "interval" else 1 - np.eye(labels)
    return np.broadcast_to(apart_KK, (len(total_DK), labels, labels))


def _cohen(votes_N2: Ints, labels: int, draws: int, rng: np.random.Generator) -> tuple[int, Estimate]:
    """Cohen's kappa of two labelers over the items both labelled, and how many those are."""
    both = votes_N2[(votes_N2 != MISSING).all(1)]
    if not len(both):
        return 0, Estimate(None, None, None)
    cells_C = np.bincount(both[:, 0] * labels + both[:, 1], minlength=labels * labels)
    table_DKK = np.vstack([cells_C, rng.multinomial(len(both), cells_C / len(both), size=draws)]).reshape(-1, labels, labels) / len(both)
    observed_D = table_DKK.trace(axis1=1, axis2=2)
    return len(both), _estimate(_corrected(observed_D, (table_DKK.sum(2) * table_DKK.sum(1)).sum(1)))


def _estimate(values_D: Sequence[float] | Floats) -> Estimate:
    """The first value with the middle 95 % of the others that are defined."""
    values = np.asarray(values_D, dtype=np.float64)
    drawn = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]):
        return Estimate(None, None, None)
    low, high = np.quantile(drawn, (0.025, 0.975)) if len(drawn) else (np.nan, np.nan)
    return Estimate(float(values[0]), *(float(end) if np.isfinite(end) else None for end in (low, high)))
