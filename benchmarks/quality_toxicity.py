"""How a toxicity judge holds on sets it has never seen: trained on five public sets, tested on the sixth, each in turn.

The judge is compared with TF-IDF and frozen-embedding logistic regression trained on the same rows, by AUROC with intervals and the paired
difference. Nothing is tuned on a test set; the validation split is of the training sets.

    python benchmarks/quality_toxicity.py --rows 8000
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import TOXICITY, arguments, balanced, record, table, toxicity
from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example
from snapjudge.core.progress import Silent
from snapjudge.curate.split import split
from snapjudge.flows.scoring import baseline_data, contents_of, raw_scores
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import load_backbone
from snapjudge.model.prompt import render_readout
from snapjudge.model.reading import Question
from snapjudge.prove import baselines
from snapjudge.prove.figures import Scored, compare, figures
from snapjudge.prove.proof import scored
from snapjudge.train.fit import FitConfig, FitData, Validation, fit

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
    record("quality_toxicity", {"rows": rows}, f"python benchmarks/quality_toxicity.py --rows {options.rows}")


def run(backbone: Backbone, pool: Sequence[Example], test: Sequence[Example], seed: int) -> dict[str, Any]:
    """Train on the pool, score the unseen set."""
    parts = split(pool, {"train": 0.93, "validation": 0.07}, seed)
    train, validation = parts["train"], parts["validation"]
    readout = render_readout(TOXICITY, backbone)
    data = FitData(contents_of(train, TOXICITY, backbone), [example.target or () for example in train], contents_of(validation, TOXICITY, backbone))

    def validate(log_p: Sequence[tuple[float, ...]]) -> Validation:
        found = figures(scored(log_p, Calibration(), TOXICITY, validation)[0], TOXICITY, draws=50)
        return Validation(found["auroc"].value, "auroc", found["log_loss"].value, 0.5, 0.03)

    with tempfile.TemporaryDirectory() as folder:
        result = fit(backbone, TOXICITY, readout, data, "readout", FitConfig(seed=seed), validate=validate, folder=Path(folder), progress=Silent())
    log_p = raw_scores(backbone, Question(TOXICITY, readout, result.adapter), contents_of(test, TOXICITY, backbone), Silent(), "test")
    arrays = [baseline_data(backbone, part, TOXICITY, Silent(), "") for part in (train, validation, test)]
    found: dict[str, Scored] = {"judge": scored(log_p, Calibration(), TOXICITY, test)[0]}
    for name, method in (("TF-IDF + LR", baselines.tfidf), ("embedding + LR", baselines.embedding)):
        rows = [tuple(row) for row in np.asarray(method(arrays[0], arrays[1], [arrays[2]], 2)[0]).tolist()]
        found[name] = scored(rows, Calibration(), TOXICITY, test)[0]
    told: dict[str, Any] = {"test": len(test), "seconds": result.seconds, "epochs": len(result.history), "rate": result.rate, "notes": result.notes}
    for name, one in found.items():
        auroc = figures(one, TOXICITY)["auroc"]
        told[name] = [auroc.value, auroc.low, auroc.high]
    for name in ("TF-IDF + LR", "embedding + LR"):
        gap = compare(found["judge"], found[name], TOXICITY)
        told[f"judge minus {name}"] = [gap.difference, gap.low, gap.high]
    return told


if __name__ == "__main__":
    main()
