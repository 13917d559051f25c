"""How fast a judge is trained, and how good it is: readout scope against ordinary LoRA on every token, same data and steps.

Davidson's tweets, balanced, split by group, 1,000 held out for the test. Speed is told as seconds and as the share of the machine's measured
ceiling (a large float32 matrix product in the same run); quality as F1 at one half and AUROC with intervals, beside the baselines.

    python benchmarks/train_speed.py --sizes 1000 4000
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import TOXICITY, arguments, balanced, ceiling, record, table, toxicity
from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example
from snapjudge.core.progress import Silent
from snapjudge.flows.scoring import baseline_data, contents_of, raw_scores
from snapjudge.model.adapter import Scope
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import load_backbone
from snapjudge.model.prompt import render_readout
from snapjudge.model.reading import Question
from snapjudge.prove import baselines
from snapjudge.prove.figures import figures
from snapjudge.prove.proof import scored
from snapjudge.train.fit import FitConfig, FitData, Validation, fit


def main() -> None:
    options = arguments(__doc__ or "", sizes=[1000, 4000], seed=0, all_up_to=4000)
    backbone = load_backbone()
    pool = balanced(toxicity("davidson"), 10**6, options.seed)
    groups = {example.group for example in balanced(pool, 1000, options.seed + 1)}
    test = balanced([example for example in pool if example.group in groups], 1000, options.seed)
    rest = [example for example in pool if example.group not in groups]
    flops = ceiling()
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        train = balanced(rest, size, options.seed)
        used = {example.group for example in train}
        validation = balanced([example for example in rest if example.group not in used], 400, options.seed)
        scopes: list[Scope] = ["readout", "all"] if size <= options.all_up_to else ["readout"]
        for scope in scopes:
            rows.append({"size": size, "scope": scope, **measure(backbone, scope, train, validation, test, flops, options.seed)})
        rows += baseline_rows(backbone, size, train, validation, test)
    record("train_speed", {"ceiling_gflops": flops / 1e9, "test": len(test), "rows": rows}, "python benchmarks/train_speed.py")
    head = ("size", "scope", "seconds", "encode s", "s/epoch", "epochs", "of ceiling", "F1", "AUROC")
    names = ("size", "scope", "seconds", "encode_seconds", "epoch_seconds", "epochs", "share_of_ceiling", "f1", "auroc")
    print(table([head, *([row.get(name, "") if not isinstance(row.get(name), list) else row[name][0] for name in names] for row in rows)]))


def measure(
    backbone: Backbone, scope: Scope, train: Sequence[Example], validation: Sequence[Example], test: Sequence[Example], flops: float, seed: int
) -> dict[str, Any]:
    """Fit one adapter and score the test."""
    readout = render_readout(TOXICITY, backbone)
    data = FitData(contents_of(train, TOXICITY, backbone), [example.target or () for example in train], contents_of(validation, TOXICITY, backbone))

    def validate(log_p: Sequence[tuple[float, ...]]) -> Validation:
        arrays, _ = scored(log_p, Calibration(), TOXICITY, validation)
        found = figures(arrays, TOXICITY, draws=50)
        return Validation(found["auroc"].value, "auroc", found["log_loss"].value, 0.5, 0.03)

    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        result = fit(backbone, TOXICITY, readout, data, scope, FitConfig(seed=seed), validate=validate, folder=Path(folder), progress=Silent())
        seconds = time.monotonic() - began
    log_p = raw_scores(backbone, Question(TOXICITY, readout, result.adapter), contents_of(test, TOXICITY, backbone), Silent(), "test")
    found = figures(scored(log_p, Calibration(), TOXICITY, test)[0], TOXICITY)
    epochs = len(result.history)
    tokens = sum(content.tokens for content in data.contents)
    linear = 2 * sum(inputs * outputs for inputs, outputs in backbone.linears.values())
    held = sum(content.tokens for content in data.validation) + len(validation) * len(readout.token_ids)
    asked = len(train) * len(readout.token_ids)
    # The floor: contents once forward (readout) or forward and back every epoch (all); readouts forward and back; validation forward.
    work = linear * ((tokens if scope == "readout" else 2 * epochs * tokens) + epochs * (2 * asked + held))
    return {
        "seconds": seconds,
        "encode_seconds": result.encode_seconds,
        "epoch_seconds": (seconds - result.encode_seconds) / epochs,
        "epochs": epochs,
        "share_of_ceiling": work / seconds / flops,
        "f1": [found["f1"].value, found["f1"].low, found["f1"].high],
        "auroc": [found["auroc"].value, found["auroc"].low, found["auroc"].high],
        "history": result.history,
    }


def baseline_rows(backbone: Backbone, size: int, train: Sequence[Example], validation: Sequence[Example], test: Sequence[Example]) -> list[dict[str, Any]]:
    """The same figures for the baselines."""
    data = [baseline_data(backbone, part, TOXICITY, Silent(), "") for part in (train, validation, test)]
    found = {"TF-IDF + LR": baselines.tfidf(data[0], data[1], [data[2]], 2)[0], "embedding + LR": baselines.embedding(data[0], data[1], [data[2]], 2)[0]}
    rows = []
    for name, log_p in found.items():
        got = figures(scored([tuple(row) for row in log_p.tolist()], Calibration(), TOXICITY, test)[0], TOXICITY)
        rows.append({"size": size, "scope": name, **{key: [got[key].value, got[key].low, got[key].high] for key in ("f1", "auroc")}})
    return rows


if __name__ == "__main__":
    main()
