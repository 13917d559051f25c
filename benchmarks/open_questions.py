"""Calibrate open questions: on tasks that a fold's backbone has not been trained on, asked as nobody's training asked them.

    python -m benchmarks.open_questions --fold 1        asks the backbone of a fold of benchmarks.left_out, and records its answers
    python -m benchmarks.open_questions                 after all folds; writes open_questions.json beside the weights

A backbone's answers to questions it was trained on say nothing about how sure it may be of others. So every fold's backbone is asked about the tasks that
were left out of it; one temperature is fitted on all of them, each counting alike, yes and no alike. It is told how well that works on a task that is left out
of the fitting, too (of choices there is one task only: how its temperature does elsewhere is not known). The shipped backbone has seen more data than the
folds; its map is theirs.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import DATA, RESULTS, ROOT, record, rounded
from benchmarks.judge_data import JUDGES, METRICS, JudgeData, as_examples
from benchmarks.left_out import FOLDS
from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example, Provenance
from snapjudge.core.metric import Metric
from snapjudge.core.question import OpenQuestion
from snapjudge.flows.metric_files import read_metric
from snapjudge.generalist import Generalist
from snapjudge.model.hub import OPEN_FILE, mini_folder
from snapjudge.prove.calibrators import CalibrationData, fit_calibration
from snapjudge.prove.figures import figures, group_numbers
from snapjudge.prove.proof import scored
from snapjudge.store.files import write_file

_ROWS = 400  # of each label of a task
CHOICES = ("tone",)

Asked = dict[str, tuple[Metric, list[Example], list[tuple[float, ...]]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", type=Path, default=ROOT / "build" / "folds")
    parser.add_argument("--out", type=Path, default=mini_folder())
    parser.add_argument("--fold", choices=list(FOLDS))
    options = parser.parse_args()
    if options.fold:
        made = answers(options.backbones / options.fold, FOLDS[options.fold])
        answers_file(options.fold).write_text("".join(json.dumps({"judge": name, "rows": rows}) + "\n" for name, rows in made.items()))
        return
    everything = {name: one for fold in FOLDS for name, one in recorded(fold).items()}
    found, told = {}, {}
    for kind, names in (("boolean", [name for name in JUDGES if name not in CHOICES]), ("choice", list(CHOICES))):
        asked = {name: one for name, one in everything.items() if name in names}
        found[kind] = fitted(list(asked.values()))
        told[kind] = {name: reached(name, asked) for name in asked}
    write_file(options.out / OPEN_FILE, json.dumps({"calibration": {kind: one.model_dump(mode="json") for kind, one in found.items()}}, indent=1))
    record("open_questions", {"calibration": {kind: one.model_dump(mode="json") for kind, one in found.items()}, **told}, "python -m benchmarks.open_questions")


def answers(folder: Path, left_out: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The raw answers of a fold's backbone to the questions of the tasks it has not seen, row by row, with labels and the numbers of groups; no texts."""
    generalist, data = Generalist.load(str(folder)), JudgeData(DATA)
    generalist.calibrations = {}
    found = {}
    for name, judge in JUDGES.items():
        metric = read_metric(METRICS / f"{name}.yaml")
        if judge.task not in left_out or (metric.type != "boolean" and name not in CHOICES):
            continue
        rows = data.parts(name)
        examples = even(as_examples([*rows["calibration"], *rows["test"]], metric))
        question = OpenQuestion(instructions=metric.question, type=metric.type, options=() if metric.type == "boolean" else metric.label_names)
        items = [{str(field): example.inputs[field] for field in metric.ordered_inputs if field in example.inputs} for example in examples]
        judged = [one[0].probabilities for one in generalist.ask_many(items, [question]) if isinstance(one, list)]
        groups = group_numbers([example.group for example in examples]).tolist()
        found[name] = [
            {"log_p": [round(float(np.log(max(value, 1e-12))), 5) for value in one.values()], "label": example.label_index, "group": group}
            for one, example, group in zip(judged, examples, groups, strict=True)
        ]
    return found


def answers_file(fold: str) -> Path:
    """Where a fold's answers are kept, a line for each judge."""
    return RESULTS / f"open_answers_{fold}.jsonl"


def recorded(fold: str) -> Asked:
    """What a fold's backbone was recorded to answer, its rows as examples without texts."""
    found: Asked = {}
    for line in answers_file(fold).read_text().splitlines():
        name, rows = json.loads(line).values()
        metric = read_metric(METRICS / f"{name}.yaml")
        targets = [tuple(float(place == row["label"]) for place in range(len(metric.label_names))) for row in rows]
        examples = [
            Example(id=str(number), inputs={}, target=target, provenance=Provenance(group=str(row["group"])))
            for number, (row, target) in enumerate(zip(rows, targets, strict=True))
        ]
        found[name] = metric, examples, [tuple(row["log_p"]) for row in rows]
    return found


def even(examples: Sequence[Example]) -> list[Example]:
    """As many of each label, up to a bound."""
    by_label: dict[int, list[Example]] = {}
    for example in examples:
        by_label.setdefault(example.label_index, []).append(example)
    most = min(_ROWS, *(len(own) for own in by_label.values()))
    rng = random.Random(0)  # noqa: S311 - reproducible data
    return [example for label in sorted(by_label) for example in rng.sample(by_label[label], most)]


def fitted(asked: Sequence[tuple[Metric, list[Example], list[tuple[float, ...]]]]) -> Calibration:
    """A temperature, for all tasks together; each task (the kinds of personal data are one) stands there with as many rows."""
    if not asked:
        return Calibration()
    by_task: dict[str, list[tuple[tuple[float, ...], int]]] = {}
    for metric, examples, own in asked:
        by_task.setdefault(JUDGES[metric.name].task, []).extend((row, example.label_index) for row, example in zip(own, examples, strict=True))
    fewest = min(len(rows) for rows in by_task.values())
    rng = random.Random(0)  # noqa: S311 - reproducible data
    log_p, labels, groups = list[tuple[float, ...]](), list[int](), list[int]()
    for number, rows in enumerate(by_task.values()):
        for row, label in rng.sample(rows, fewest):
            log_p.append(row)
            labels.append(label)
            groups.append(number)
    return fit_calibration(CalibrationData(log_p, labels, groups), "pairwise")  # as for the two sides of a pair: no label has an offset of its own


def reached(name: str, asked: Asked) -> dict[str, Any]:
    """Ranking and calibration of one task, by a map fitted on the others."""
    metric, examples, log_p = asked[name]
    others = [one for other, one in asked.items() if JUDGES[other].task != JUDGES[name].task]
    told: dict[str, Any] = {"rows": len(examples)}
    for kind, calibration in (("raw", Calibration()), *([("calibrated on the other tasks", fitted(others))] if others else [])):
        made = figures(scored(log_p, calibration, metric, examples)[0], metric, draws=500)
        told[kind] = {figure: rounded(made[figure]) for figure in ("auroc", "macro_auroc", "ece") if figure in made}
    return told


if __name__ == "__main__":
    main()
