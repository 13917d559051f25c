"""What `scope: auto` does where the readout cannot learn: entailment on the raw embedded backbone, through the whole of `train`.

Trains on counterfactual entailment pairs (cad_nli), tests on its own dev file, and records what was fitted, what was kept and the reasons said.

    python -m benchmarks.scope_auto --rows 4000
"""

import json
import random
import tempfile
from pathlib import Path

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
    options = arguments(__doc__ or "", rows=4000, seed=0)
    folder = DATA / "groundedness"
    by_group: dict[str, list[str]] = {}
    for line in (folder / "cad_nli.train.jsonl").read_text().splitlines():
        by_group.setdefault(json.loads(line)["meta"]["group"], []).append(line)
    groups = sorted(by_group)
    random.Random(options.seed).shuffle(groups)  # noqa: S311 - sampling, no secret
    rows = [line for group in groups for line in by_group[group]][: options.rows]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "m.yaml").write_text(dump_metric(GROUNDED))
        (work / "train.jsonl").write_text("\n".join(rows))
        request = TrainRequest(metric_path=work / "m.yaml", data=(work / "train.jsonl",), test=(folder / "cad_nli.dev.jsonl",), out=work / "judges")
        done = train_judge(request, TrainConfig())
        fits = json.loads((done.folder / "run.json").read_text())["fits"]
    proof = done.proof
    figures = {
        one.name: {name: [one.figures[name].value, one.figures[name].low, one.figures[name].high] for name in ("auroc", "f1") if name in one.figures}
        for one in proof.contenders
    }
    found = {"kept": proof.scope, "notes": proof.notes, "figures": figures, "splits": proof.data, "seconds": done.seconds}
    found["fits"] = {scope: {"rate": fit["rate"], "notes": fit["notes"], "history": fit["history"]} for scope, fit in fits.items()}
    record("scope_auto", found, f"python -m benchmarks.scope_auto --rows {options.rows}")


if __name__ == "__main__":
    main()
