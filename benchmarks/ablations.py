"""What each part of the pre-training is worth: short runs of the recipe, one thing changed in each.

    python -m benchmarks.ablations --train NAME         trains one of the runs (resumable)
    python -m benchmarks.ablations                      measures those that are trained, and records them

Runs: `full` (the recipe as it is), `names` (no instructions: asked by the task's name alone), `causal` (content read left to right), `quarter` (a quarter of
the rows), `single` (groundedness alone), `pair` (toxicity and sexism alone), `anchored` (embeddings held to those of the untrained `mini`), and three that
leave out two whole tasks each (`without_...`; the folds of `benchmarks.left_out` leave out the other six). All take the same number of steps from the untrained
`mini`. Measured: the held-back rows of every task that a run has, open questions on data sets that none was trained on and on the rows of the six tasks, each
left out by one of the runs and known to the others, and a new judge on a task that the recipe does not have.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.averages import new_judges
from benchmarks.common import DATA, ROOT, record, table
from benchmarks.contenders import mean_of, told
from benchmarks.judge_data import METRICS, RECIPE, JudgeData
from benchmarks.left_out import examples_of, sets_of, zero_shot
from snapjudge.curate.recipe import read_recipe
from snapjudge.flows.metric_files import read_metric
from snapjudge.flows.pretrain import PretrainRequest, pretrain
from snapjudge.generalist import Generalist
from snapjudge.model.hub import RECORD_FILE
from snapjudge.train.multitask import WholeConfig

RUNS: dict[str, dict[str, Any]] = {
    "full": {},
    "names": {"instructions": False},
    "causal": {"content_mask": "causal"},
    "quarter": {"share": 0.25},
    "single": {"only": ("groundedness",)},
    "pair": {"only": ("toxicity", "sexism")},
    "anchored": {"anchored": True},
    "without_toxicity_and_tool_selection": {"without": ("toxicity", "tool_selection")},
    "without_unsafe_prompt_and_groundedness": {"without": ("unsafe_prompt", "groundedness")},
    "without_unsafe_response_and_prompt_injection": {"without": ("unsafe_response", "prompt_injection")},
}
LEFT_OUT = tuple(task for run in RUNS.values() for task in run.get("without", ()))
ASKED = {
    "groundedness": ("groundedness/covidfact", "groundedness/fever_rte", "groundedness/sick"),
    "prompt_injection": ("prompt_injection/promptshield",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", choices=list(RUNS))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--start", default="build/mini-seed", help="the untrained mini, as scripts/build_mini.py writes it")
    parser.add_argument("--backbones", type=Path, default=ROOT / "build" / "ablations")
    options = parser.parse_args()
    if options.train:
        run = dict(RUNS[options.train])
        only = run.pop("only", ())
        left_out = [*run.pop("without", ()), *(name for name in read_recipe(RECIPE).tasks if only and name not in only)]
        anchor = options.start if run.pop("anchored", False) else ""
        request = PretrainRequest(RECIPE, DATA, options.backbones / options.train, options.start, left_out, anchor=anchor, resume=True, **run)
        pretrain(request, WholeConfig(steps=options.steps, rate=3e-4))
        return
    rows = [measured(name, options.backbones / name) for name in RUNS if (options.backbones / name / RECORD_FILE).exists()]
    columns = sorted({key for row in rows for key in row["held back"]})
    print(table([("run", *columns), *((row["run"], *(row["held back"].get(key, "") for key in columns)) for row in rows)]))
    record("ablations", {"steps": options.steps, "runs": rows}, "python -m benchmarks.ablations")


def measured(name: str, folder: Path) -> dict[str, Any]:
    """One run: its last held-back figures, open questions on sets it never saw, and new judges."""
    told_by = json.loads((folder / RECORD_FILE).read_text())
    found = {"run": name, "held back": told_by["history"][-1]["figures"], "tokens": told_by["tokens"], "seconds": told_by["seconds"]}
    generalist = Generalist.load(str(folder))
    return {**found, "asked": asked(generalist), "asked about tasks": asked_about_tasks(generalist), **new_judges(generalist.backbone)}


def asked(generalist: Generalist) -> dict[str, list[float]]:
    """AUROC of the metric's own question, asked as an open one."""
    data = JudgeData(DATA)
    found = {}
    for name, files in ASKED.items():
        metric = read_metric(METRICS / f"{name}.yaml")
        for file in files:
            found[file] = told(*zero_shot(generalist, metric, examples_of(data, name, file, metric)))["auroc"]
    return found


def asked_about_tasks(generalist: Generalist) -> dict[str, list[float]]:
    """AUROC of the questions of the tasks that some run leaves out, the mean over their sets."""
    data = JudgeData(DATA)
    found = {}
    for name in LEFT_OUT:
        metric = read_metric(METRICS / f"{name}.yaml")
        sets = sets_of(data, name, metric, [name]).values()
        found[name] = mean_of([told(*zero_shot(generalist, metric, examples), draws=200)["auroc"] for examples in sets])
    return found


if __name__ == "__main__":
    main()
