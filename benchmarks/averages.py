"""What averaging a trained backbone with the one it began from keeps of both: its tasks, and the general meaning that new judges need.

    python -m benchmarks.averages --trained build/second --start build/mini-seed --shares 0 0.5 1
    python -m benchmarks.averages --trained build/second --start build/mini-seed --shares 0.6 --out build/soup        writes the average

The share is the trained backbone's. A new judge's task is the demo's, which no task of the recipe resembles: AUROC of a readout adapter and of logistic
regression on frozen embeddings, on its training rows only, over splits; the recipe's tasks by their held-back rows. (Linear: Wortsman et al., 2022.)
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.common import DATA, fit_judge, record, score_baselines, score_judge, triple
from benchmarks.judge_data import RECIPE
from snapjudge.curate.mixture import Mixture
from snapjudge.curate.read import read_examples
from snapjudge.curate.recipe import read_recipe
from snapjudge.curate.split import split
from snapjudge.flows.demo import example_folder
from snapjudge.flows.metric_files import read_metric
from snapjudge.flows.pretrain import NOTICE, Asking, held_back_figures
from snapjudge.model.backbone import Backbone
from snapjudge.model.digests import folder_digest
from snapjudge.model.hub import RECORD_FILE, backbone_folder, load_backbone
from snapjudge.train.merge import MergeConfig, merge_weights
from snapjudge.train.save import plain_weights, save_backbone, set_weights
from snapjudge.train.terms import FitConfig

SPLITS = 3
_SPLIT = {"train": 0.65, "validation": 0.1, "test": 0.25}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trained", required=True)
    parser.add_argument("--start", default="build/mini-seed", help="the untrained mini, as scripts/build_mini.py writes it")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.3, 0.5, 0.7, 1.0])
    parser.add_argument("--splits", type=int, default=SPLITS)
    parser.add_argument("--out", type=Path, help="write the average of the one share here instead of measuring")
    options = parser.parse_args()
    if options.out is not None:
        if len(options.shares) != 1:
            parser.error("--out writes the average of one share: give it with --shares")
        write(options.trained, options.start, options.shares[0], options.out)
        return
    mixture = Mixture(read_recipe(RECIPE), RECIPE.parent, DATA, seed=0)
    rows = [measured(options.trained, options.start, share, mixture, options.splits) for share in options.shares]
    shares = " ".join(map(str, options.shares))
    command = f"python -m benchmarks.averages --trained {options.trained} --start {options.start} --shares {shares} --splits {options.splits}"
    record(f"averages_{Path(options.trained).name}", {"rows": rows}, command)


def averaged(trained: str, start: str, share: float) -> Backbone:
    """The starting backbone with that share of the trained one's weights."""
    kept, other = load_backbone(start), load_backbone(trained)
    both: list[dict[str, Tensor]] = [plain_weights(kept), plain_weights(other)]
    set_weights(kept, merge_weights(both, MergeConfig(weights=(1 - share, share))))
    return kept


def write(trained: str, start: str, share: float, out: Path) -> None:
    """The average as a folder, with the trained backbone's record and notice, and in the record what was averaged."""
    folder = backbone_folder(trained)
    told = json.loads((folder / RECORD_FILE).read_bytes())
    told["averaged"] = {"share": share, "with": {"name": Path(start).name, "digest": folder_digest(backbone_folder(start))}}
    notes = {RECORD_FILE: json.dumps(told, indent=1), NOTICE: (folder / NOTICE).read_text(encoding="utf-8")}
    save_backbone(averaged(trained, start, share), folder, out, notes=notes)


def measured(trained: str, start: str, share: float, mixture: Mixture, splits: int) -> dict[str, Any]:
    """One share: new judges by split, and the recipe's tasks."""
    backbone = averaged(trained, start, share)
    tasks = held_back_figures(mixture, Asking(backbone))
    found = {"share": share, **new_judges(backbone, splits), "tasks": tasks, "tasks, mean": round(sum(tasks.values()) / len(tasks), 4)}
    print(json.dumps(found), flush=True)
    return found


def new_judges(backbone: Backbone, splits: int = SPLITS) -> dict[str, list[list[float]]]:
    """AUROC by split of the demo's training rows: an adapter on the readout, beside the baselines."""
    folder = example_folder()
    metric = read_metric(folder / "metric.yaml")
    examples = read_examples([folder / "train.jsonl"], metric)
    found: dict[str, list[list[float]]] = defaultdict(list)
    for seed in range(1, splits + 1):
        parts = split(examples, _SPLIT, seed)
        fitted = fit_judge(backbone, parts["train"], parts["validation"], "readout", FitConfig(), metric)
        baselines = score_baselines(backbone, parts["train"], parts["validation"], parts["test"], metric)
        for name, scores in {"new judge": score_judge(backbone, fitted, parts["test"], metric), **baselines}.items():
            found[name].append(triple(scores, "auroc", metric))
    return dict(found)


if __name__ == "__main__":
    main()
