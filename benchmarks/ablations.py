"""What each part of the pre-training is worth: short runs of the recipe, one thing changed in each.

    python -m benchmarks.ablations --run full causal    trains some of the runs (resumable), measures them and adds them to the record
    python -m benchmarks.ablations                      records what processes side by side have measured

Runs: `full` (the recipe as it is), `names` (no instructions: asked by the task's name alone), `causal` (content read left to right), `quarter` (a quarter of
the rows), `single` (groundedness alone), `pair` (toxicity and sexism alone), `anchored` (embeddings held to those of the untrained `mini`), and three that
leave out two whole tasks each (`without_...`; of open questions about tasks left out `benchmarks.open_questions` tells). All take the same number of steps from
the untrained `mini`. Measured: the held-back rows of every task that a run has, open questions on data sets that none was trained on, and a new judge on a task
that the recipe does not have.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.averages import new_judges
from benchmarks.common import DATA, METRICS, RESULTS, ROOT, Lines, between, head, record, show
from benchmarks.contenders import mean_of, told
from benchmarks.judge_data import RECIPE, JudgeData
from benchmarks.left_out import examples_of, pretraining, zero_shot
from snapjudge.curate.recipe import read_recipe
from snapjudge.flows.metric_files import read_metric
from snapjudge.flows.pretrain import PretrainRequest, pretrain
from snapjudge.generalist import Generalist
from snapjudge.model.hub import RECORD_FILE

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
_MEASURED = "measured.json"
_FEW = ("rubric",)  # a handful of held-back rows: no figure
SHOWN = ("toxicity", "sexism", "unsafe_response", "politeness", "groundedness", "tool_selection")
PAGE = ROOT / "docs" / "mini.md"
ASKED = {
    "groundedness": ("groundedness/covidfact", "groundedness/fever_rte", "groundedness/sick"),
    "prompt_injection": ("prompt_injection/promptshield",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", choices=list(RUNS), nargs="*", default=[])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--start", default="build/mini-seed", help="the untrained mini, as scripts/build_mini.py writes it")
    parser.add_argument("--backbones", type=Path, default=ROOT / "build" / "ablations")
    options = parser.parse_args()
    path = RESULTS / "ablations.json"
    for name in options.run:
        folder = options.backbones / name
        if not (folder / RECORD_FILE).exists():
            train(name, folder, options.start, options.steps)
        if not (folder / _MEASURED).exists():
            (folder / _MEASURED).write_text(json.dumps(measured(folder)))
    runs: dict[str, Any] = json.loads(path.read_text())["runs"] if path.exists() else {}
    for name in RUNS:
        folder = options.backbones / name
        if (folder / RECORD_FILE).exists():
            asked_too = json.loads((folder / _MEASURED).read_text()) if (folder / _MEASURED).exists() else {}
            runs[name] = {**runs.get(name, {}), **learned(folder), **asked_too}
    command = " ".join(["python -m benchmarks.ablations", *(["--run", *options.run] if options.run else [])])
    record("ablations", {"runs": {name: runs[name] for name in RUNS if name in runs}}, command)
    PAGE.write_text(between(PAGE.read_text(), "ablations", "\n" + "\n".join(page_lines(runs)) + "\n"))


def train(name: str, folder: Path, start: str, steps: int) -> None:
    """One run; what was stopped goes on."""
    run = dict(RUNS[name])
    only = run.pop("only", ())
    left_out = [*run.pop("without", ()), *(task for task in read_recipe(RECIPE).tasks if only and task not in only)]
    anchor = start if run.pop("anchored", False) else ""
    pretrain(PretrainRequest(RECIPE, DATA, folder, start, left_out, anchor=anchor, resume=True, **run), pretraining(steps), Lines())


def learned(folder: Path) -> dict[str, Any]:
    """What a run's own record says: its last held-back figures, and what it took."""
    told_by = json.loads((folder / RECORD_FILE).read_text())
    took = {name: told_by[name] for name in ("tokens", "seconds", "machine")}
    return {"steps": told_by["config"]["steps"], "held back": told_by["history"][-1]["figures"], **took}


def measured(folder: Path) -> dict[str, Any]:
    """One run: open questions on sets it never saw, and new judges."""
    generalist = Generalist.load(str(folder))
    return {"asked": asked(generalist), **new_judges(generalist.backbone)}


def asked(generalist: Generalist) -> dict[str, list[float]]:
    """AUROC of the metric's own question, asked as an open one."""
    data = JudgeData(DATA)
    found = {}
    for name, files in ASKED.items():
        metric = read_metric(METRICS / f"{name}.yaml")
        for file in files:
            found[file] = told(*zero_shot(generalist, metric, examples_of(data, name, file, metric)))["auroc"]
    return found


def page_lines(runs: Mapping[str, Any]) -> list[str]:
    """The table of docs/mini.md; what no run has been measured on has no column."""
    measured_on: dict[str, tuple[str, tuple[str, ...]]] = {
        "groundedness sets never seen, asked": ("asked", ASKED["groundedness"]),
        "PromptShield, asked": ("asked", ASKED["prompt_injection"]),
        **{one: (one, ()) for one in ("new judge", "embedding + LR")},
    }
    more = {column: where for column, where in measured_on.items() if any(where[0] in run for run in runs.values())}
    lines = head("run", "tokens", "held-back rows of all tasks it has, mean", *SHOWN, *more)
    for name in (name for name in RUNS if name in runs):
        run = runs[name]
        held = {task: value for task, value in run["held back"].items() if task not in _FEW}
        cells = [f"{sum(held.values()) / len(held):.3f}", *(f"{held[task]:.2f}" if task in held else "-" for task in SHOWN)]
        for part, files in more.values():
            cells.append(show(mean_of([run[part][file] for file in files] if files else run[part]) if part in run else None))
        lines.append(f"| {name} | {run['tokens'] / 1e6:.1f} M | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
