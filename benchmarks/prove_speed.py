"""Seconds to prove 10,000 scored rows: every figure of the judge and three baselines with 2,000 bootstrap draws, slices, curves, promises and the page.

Beside it the machine's rate for a large float64 product, since the draws are products of weights with rows. Scores are made; nothing is read.
"""

import resource

import numpy as np
import torch

from benchmarks.common import TOXICITY, arguments, ceiling, record, timed
from snapjudge.core.example import Example, Provenance
from snapjudge.prove.calibrators import CalibrationData, fit_calibration
from snapjudge.prove.promises import flagging_promises
from snapjudge.prove.proof import Contestant, Header, Proof, prove
from snapjudge.prove.report import render_report


def main() -> None:
    """Prove made-up scores of a judge and three baselines."""
    asked = arguments(__doc__ or "", rows=10_000)
    rng = np.random.default_rng(0)
    sources = ("web", "desk", "app", "mail")
    examples = [
        Example(
            id=str(n),
            inputs={"output": "word " * int(rng.integers(5, 120)) + str(n)},
            target=(1.0, 0.0) if rng.random() < 0.3 else (0.0, 1.0),
            provenance=Provenance(source=sources[n % 4], group=f"g{n // 2}"),
        )
        for n in range(asked.rows)
    ]
    labels = [example.label_index for example in examples]
    log_p = {name: _scores(labels, sharp, rng) for name, sharp in (("judge", 1.6), ("majority", 0.0), ("TF-IDF + LR", 1.0), ("embedding + LR", 1.1))}

    def work() -> Proof:
        contestants = []
        for name, rows in log_p.items():
            contestants.append(Contestant(name, rows, fit_calibration(CalibrationData(rows[:3000], labels[:3000], range(3000)), "boolean")))
        scores = [float(np.exp(row[0])) for row in log_p["judge"]]
        promises = flagging_promises(scores, [label == 0 for label in labels], range(len(labels)))
        proof = prove(TOXICITY, examples, contestants, Header("m@1", "mini", "readout", {"test": len(examples)}, promises=promises))
        render_report(proof)
        return proof

    seconds = timed(work)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    rate = ceiling(torch.float64)
    record(
        "prove_speed",
        {
            "rows": asked.rows,
            "contenders": len(log_p),
            "seconds": round(seconds, 1),
            "float64_ceiling_gflops": round(rate / 1e9, 1),
            "peak_gib": round(peak, 2),
        },
        f"python -m benchmarks.prove_speed --rows {asked.rows}",
    )


def _scores(labels: list[int], sharp: float, rng: np.random.Generator) -> list[tuple[float, ...]]:
    margin = rng.normal([sharp if label == 0 else -sharp for label in labels], 1.5)
    return [(float(-np.log1p(np.exp(-value))), float(-np.log1p(np.exp(value)))) for value in margin]


if __name__ == "__main__":
    main()
