"""What `scope: auto` does with a relation between fields: groundedness on the embedded backbone, through the whole of `train`.

Trains on each set by itself (counterfactual entailment pairs; adversarial human claims), tests on its own dev file, and records what was fitted,
what was kept and the reasons said.

    python -m benchmarks.scope_auto --rows 4000 --sets cad_nli fm2
"""

import json
import random
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import DATA, arguments, record
from snapjudge.core.metric import Metric
from snapjudge.core.metric_file import dump_metric
from snapjudge.flows.train_judge import train_judge
from snapjudge.flows.train_terms import TrainConfig, TrainRequest

GROUNDED = Metric(
    name="groundedness",
    version=1,
    type="boolean",
    inputs=("context", "output"),
    question="Does the context support the output?",
    labels={"grounded": ("yes",), "ungrounded": ("no",)},
    positive="ungrounded",
)


def main() -> None:
    options = arguments(__doc__ or "", rows=4000, sets=["cad_nli", "fm2"], seed=0)
    found = {name: run(name, options.rows, options.seed) for name in options.sets}
    record("scope_auto", found, f"python -m benchmarks.scope_auto --rows {options.rows} --sets {' '.join(options.sets)}")


def run(name: str, rows: int, seed: int) -> dict[str, Any]:
    """Train on whole groups of a set, at most about `rows` rows, with the command's defaults."""
    folder = DATA / "groundedness"
    by_group: dict[str, list[str]] = {}
    for line in (folder / f"{name}.train.jsonl").read_text().splitlines():
        by_group.setdefault(json.loads(line)["meta"]["group"], []).append(line)
    groups = sorted(by_group)
    random.Random(seed).shuffle(groups)  # noqa: S311 - sampling, no secret
    lines = [line for group in groups for line in by_group[group]][:rows]
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        (work / "m.yaml").write_text(dump_metric(GROUNDED))
        (work / "train.jsonl").write_text("\n".join(lines))
        request = TrainRequest(metric_path=work / "m.yaml", data=(work / "train.jsonl",), test=(folder / f"{name}.dev.jsonl",), out=work / "judges")
        done = train_judge(request, TrainConfig())
        fits = json.loads((done.folder / "run.json").read_text())["fits"]
    proof = done.proof
    figures = {}
    for one in proof.contenders:
        figures[one.name] = {key: [found.value, found.low, found.high] for key, found in one.figures.items() if key in ("auroc", "f1")}
    told = {"kept": proof.scope, "notes": proof.notes, "figures": figures, "splits": proof.data, "seconds": done.seconds}
    return told | {"fits": {scope: {"rate": fit["rate"], "notes": fit["notes"], "history": fit["history"]} for scope, fit in fits.items()}}


if __name__ == "__main__":
    main()
