"""What precision does to judgements: a judge fitted in float32 on Davidson's tweets, asked the same 2,000 texts in float32, bfloat16 and int8.

Flip rate (answers on the other side of 0.5), largest change of probability, AUROC. The texts are the dev files of four toxicity sets.

    python -m benchmarks.precision [--rows 1000] [--texts 2000]
"""

from itertools import islice
from typing import Any

import numpy as np

from benchmarks.common import arguments, balanced, fit_judge, record, score_judge, table, toxicity, triple
from snapjudge.curate.split import deduplicated
from snapjudge.model.hub import load_backbone
from snapjudge.train.terms import FitConfig

SETS = ("davidson.dev", "toxigen.dev", "toxic_spans.dev", "implicit_hate.dev")
PRECISIONS = ("float32", "bfloat16", "int8")


def main() -> None:
    options = arguments(__doc__ or "", rows=1000, texts=2000)
    train = toxicity("davidson.train")
    chosen = balanced(train, options.rows + 200, seed=0)
    each = -(-options.texts // len(SETS))
    texts = deduplicated([example for name in SETS for example in islice(balanced(toxicity(name), 2 * each, seed=1), each)])[0][: options.texts]
    result = fit_judge(load_backbone("mini", device="cpu"), chosen[: options.rows], chosen[options.rows :], "readout", FitConfig(epochs=8))
    found = {name: score_judge(load_backbone("mini", dtype=name, device="cpu"), result, texts) for name in PRECISIONS}
    plain = found["float32"].scores
    rows: list[dict[str, Any]] = []
    for name, scored in found.items():
        p = scored.scores
        flips = (p >= 0.5) != (plain >= 0.5)
        nearest = float(np.abs(plain[flips] - 0.5).max()) if flips.any() else 0.0
        rows.append(
            {
                "precision": name,
                "flip_rate": float(flips.mean()),
                "largest_change": float(np.abs(p - plain).max()),
                "mean_change": float(np.abs(p - plain).mean()),
                "farthest_flip_from_half": nearest,
                "auroc": triple(scored, "auroc"),
            }
        )
    print(table([("precision", "flips", "largest change", "mean change", "AUROC"), *((r["precision"], r["flip_rate"], r["largest_change"], r["mean_change"], r["auroc"][0]) for r in rows)]))  # fmt: skip  # noqa: E501
    record("precision", {"texts": len(texts), "trained_on": options.rows, "rows": rows}, "python -m benchmarks.precision")


if __name__ == "__main__":
    main()
