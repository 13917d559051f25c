"""How a toxicity judge holds on sets it has never seen: trained on five public sets, tested on the sixth, each in turn.

The judge is compared with TF-IDF and frozen-embedding logistic regression trained on the same rows, by AUROC with intervals and the paired
difference. Nothing is tuned on a test set; the validation split is of the training sets.

    python -m benchmarks.quality_toxicity --rows 8000
"""

from collections.abc import Sequence
from typing import Any

from benchmarks.common import TOXICITY, arguments, balanced, fit_judge, record, score_baselines, score_judge, table, toxicity, triple
from snapjudge.core.example import Example
from snapjudge.curate.split import split
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import load_backbone
from snapjudge.prove.figures import compare
from snapjudge.train.terms import FitConfig

SETS = ("davidson", "toxic_spans", "convabuse", "hatemoji_build", "implicit_hate", "toxigen")


def main() -> None:
    options = arguments(__doc__ or "", rows=8000, sets=list(SETS), seed=0)
    backbone = load_backbone()
    rows = []
    for held_out in options.sets:
        others = [name for name in SETS if name != held_out]
        share = options.rows // len(others)
        pool = [example for name in others for example in balanced(toxicity(f"{name}.train"), share, options.seed)]
        rows.append({"unseen": held_out, "trained_on": len(pool), **run(backbone, pool, toxicity(f"{held_out}.dev"), options.seed)})
        print(table([(row["unseen"], row["judge"][0], row["TF-IDF + LR"][0], row["embedding + LR"][0]) for row in rows]), flush=True)
    record("quality_toxicity", {"rows": rows}, f"python -m benchmarks.quality_toxicity --rows {options.rows}")


def run(backbone: Backbone, pool: Sequence[Example], test: Sequence[Example], seed: int) -> dict[str, Any]:
    """Train on the pool, score the unseen set."""
    parts = split(pool, {"train": 0.93, "validation": 0.07}, seed)
    result = fit_judge(backbone, parts["train"], parts["validation"], "readout", FitConfig(seed=seed))
    judge = score_judge(backbone, result, test)
    told: dict[str, Any] = {"test": len(test), "seconds": result.seconds, "epochs": len(result.history), "rate": result.rate, "notes": result.notes}
    told["judge"] = triple(judge, "auroc")
    for name, found in score_baselines(backbone, parts["train"], parts["validation"], test).items():
        gap = compare(judge, found, TOXICITY)
        told |= {name: triple(found, "auroc"), f"judge minus {name}": [gap.difference, gap.low, gap.high]}
    return told


if __name__ == "__main__":
    main()
