"""Consensus of several judges' votes: majority, weighted by trust, or Dawid and Skene's model of each judge's errors. Knows votes as numbers.

Arrays: N items, R judges, K labels; MISSING where a judge said nothing usable.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snapjudge.curate.agreement import MISSING, Ints

Floats = NDArray[np.float64]
Method = Literal["majority", "weighted", "dawid_skene"]
_ROUNDS, _CLOSE, _PRIOR = 200, 1e-6, 1.0


@dataclass(frozen=True)
class Consensus:
    """Label shares of each item [N, K], zeros where nobody voted; and how each judge errs [R, K, K] (rows truth), under Dawid-Skene."""

    shares: Floats
    errors: Floats | None = None


def consensus(votes_NR: Ints, labels: int, method: Method = "majority", weights_R: Floats | None = None) -> Consensus:
    """Soft labels of some votes.

    Args:
        weights_R: of each judge, for `weighted`.
    """
    if method == "dawid_skene":
        return dawid_skene(votes_NR, labels)
    weights = np.ones(votes_NR.shape[1]) if weights_R is None or method == "majority" else weights_R
    counts = np.stack([((votes_NR == label) * weights).sum(1) for label in range(labels)], 1)
    return Consensus(counts / np.maximum(counts.sum(1, keepdims=True), 1e-12))


def dawid_skene(votes_NR: Ints, labels: int) -> Consensus:
    """Expectation maximisation of Dawid and Skene (1979), one pseudo-vote on each judge's diagonal.

    Without it, few votes make a judge perfect or hopeless.
    """
    voted_NR = votes_NR != MISSING
    shares_NK = consensus(votes_NR, labels).shares
    onehot_NRK = (votes_NR[:, :, None] == np.arange(labels)).astype(np.float64)
    prior_KK = _PRIOR * (np.eye(labels) + 1 / labels)
    errors_RKK = np.zeros((votes_NR.shape[1], labels, labels))
    for _ in range(_ROUNDS):
        errors_RKK = np.einsum("nk,nrj->rkj", shares_NK, onehot_NRK) + prior_KK
        errors_RKK /= errors_RKK.sum(2, keepdims=True)
        base_K = shares_NK.sum(0) + 1
        log_NK = np.log(base_K / base_K.sum()) + np.einsum("nrj,rkj->nk", onehot_NRK, np.log(errors_RKK))
        found_NK = np.exp(log_NK - log_NK.max(1, keepdims=True))
        found_NK /= found_NK.sum(1, keepdims=True)
        found_NK[~voted_NR.any(1)] = 0
        done = float(np.abs(found_NK - shares_NK).max(initial=0)) < _CLOSE
        shares_NK = found_NK
        if done:
            break
    return Consensus(shares_NK, errors_RKK)
