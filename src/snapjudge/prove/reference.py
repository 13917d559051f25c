"""What a judge was calibrated on, as a place among texts: how far a text's states lie from it, and from where on that is too far.

A text's trace is the mean of its values in the backbone's last layer. Traces of calibration texts are described by their mean, their AXES strongest
directions and one variance for all others (probabilistic PCA, Tipping and Bishop 1999); the distance is Mahalanobis'. It is too far from where on
SHARE of calibration texts are that the description has not seen. No torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from snapjudge.errors import BundleInvalid

AXES, SHARE, FEWEST = 64, 0.01, 200
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Reference:
    """What calibration texts are like.

    Args:
        mean: [D].
        along: [K, D], the strongest directions, of length 1.
        spread: [K], the variance along each.
        rest: the variance along any other.
        most: the distance from which on a text is out of distribution.
    """

    mean: Vector
    along: Vector
    spread: Vector
    rest: float
    most: float

    def distance(self, trace: Vector) -> float:
        """Squared, in variances."""
        off = trace.astype(np.float32) - self.mean
        z = self.along @ off
        return float(np.sum(z * z / self.spread) + (off @ off - z @ z) / self.rest)

    def strange(self, trace: Vector) -> bool:
        """Whether a text is out of distribution."""
        return self.distance(trace) > self.most

    def dump(self) -> bytes:
        """As a file; directions in half precision."""
        arrays: dict[str, NDArray[Any]] = {"mean": self.mean, "along": self.along.astype(np.float16), "spread": self.spread}
        return bytes(save(arrays, metadata={"rest": repr(self.rest), "most": repr(self.most), "format": "1"}))


def fit_reference(traces: NDArray[np.float32]) -> Reference | None:
    """The reference of some traces [N, D], described by one half and bounded by the other; None where they are too few."""
    count, size = traces.shape
    if count < FEWEST:
        return None
    order = np.random.default_rng(0).permutation(count)
    own, other = traces[order[: count // 2]].astype(np.float64), traces[order[count // 2 :]]
    mean = own.mean(0)
    _, singular, along = np.linalg.svd(own - mean, full_matrices=False)
    variance = singular**2 / len(own)
    axes = min(AXES, len(own) // 4, size - 1)
    rest = max(float(variance[axes:].sum() / (size - axes)), 1e-12)
    half = along[:axes].astype(np.float16).astype(np.float32)  # as it will be kept
    unbounded = Reference(mean.astype(np.float32), half, variance[:axes].astype(np.float32), rest, np.inf)
    return Reference(unbounded.mean, half, unbounded.spread, rest, float(np.quantile([unbounded.distance(one) for one in other], 1 - SHARE)))


def read_reference(path: Path) -> Reference:
    """A reference's file.

    Raises:
        BundleInvalid.
    """
    try:
        raw = path.read_bytes()
        told = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
        arrays = load_file(str(path))
        mean, along, spread = (np.asarray(arrays[name], dtype=np.float32) for name in ("mean", "along", "spread"))
        if along.shape != (len(spread), len(mean)):
            raise ValueError(f"directions of shape {along.shape}")
        return Reference(mean, along, spread, float(told["rest"]), float(told["most"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleInvalid(f"{path} cannot be read: {error}", hint="restore it from its source, or train the judge again") from error
