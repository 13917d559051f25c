"""Weigh the evidence of open questions: on tasks that a backbone has not been trained on, and on tasks it has, asked as nobody's training asked them.

    python -m benchmarks.open_questions --fold 1        asks the backbone of a fold of benchmarks.left_out about the tasks it has not seen, and records it
    python -m benchmarks.open_questions --likeness 1    adds to it how like question and content are to the *untuned* mini, which has seen no task at all,
                                                        and how near the question is to those of the tasks that the fold was trained on
    python -m benchmarks.open_questions --known         asks mini about tasks it has learned, in words that its training did not use
    python -m benchmarks.open_questions                 after all of these: writes open_questions.json beside the weights, and the record

People ask about both: what is near the tasks of the training, and what is not. So the evidence (the weights of the odds that a backbone answers with and of the
likeness of question and content, and the nearness from which odds count) is fitted to both halves alike, each task counting alike, yes and no alike, without an
offset. Every task is told by evidence fitted without it. Of choices there is one task only. The shipped backbone has seen more than the folds; it is weighed as
they are.
"""

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

from benchmarks.common import DATA, METRICS, RESULTS, ROOT, record, rounded
from benchmarks.contenders import mean_of
from benchmarks.judge_data import JUDGES, RECIPE, JudgeData, as_examples
from benchmarks.left_out import FOLDS
from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example, Provenance, check_inputs
from snapjudge.core.metric import INPUT_NAMES, Metric
from snapjudge.core.question import Evidence, OpenQuestion
from snapjudge.curate.recipe import read_recipe
from snapjudge.flows.metric_files import read_metric
from snapjudge.model.asking import Asking
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import OPEN_FILE, load_backbone, mini_folder
from snapjudge.model.prompt import Content, content_windows
from snapjudge.model.reading import summaries
from snapjudge.prove.figures import figures
from snapjudge.prove.proof import scored
from snapjudge.store.files import write_file

Floats = NDArray[np.float64]
_ROWS = 400  # of each label of a task
_FEW = 20  # rows of a label that a set needs to be told alone
_OF_A_TASK = 200  # contents of each task that the mean embedding is of
_NEAR = tuple(round(0.3 + 0.05 * step, 2) for step in range(11))  # where odds may begin to count
CHOICES = ("tone",)
REWORDED = {
    "toxicity": ("Does the writer insult or threaten somebody?", "Would this hurt the people it is about?"),
    "unsafe_prompt": ("Would it be dangerous to do what the user asks?", "Does the user want something harmful?"),
    "unsafe_response": ("Did the assistant say something harmful?", "Could somebody come to harm by this reply?"),
    "prompt_injection": ("Does somebody try to make the assistant ignore its instructions?", "Is this an attempt to hijack the assistant?"),
    "groundedness": ("Does the context confirm what the output says?", "Is everything in the output backed by the document?"),
    "sexism": ("Does this belittle women?", "Is this remark demeaning to women?"),
    "politeness": ("Does the writer speak politely?", "Is this a well-mannered message?"),
    "off_topic": ("Is the user asking for something that this assistant does not do?", "Does the question leave the assistant's field?"),
    "refusal": ("Did the assistant say no?", "Does the assistant turn the user down?"),
    "pii": ("Is private information given away here?", "Could somebody be identified by this text?"),
    "tone": ("Which emotion does the writer show?", "How does the writer feel?"),
}


@dataclass(frozen=True)
class Task:
    """What was answered about one judge's rows, without their texts: log odds and likeness of each answer [N, L], and its nearness to what is known [L]."""

    name: str
    odds: Floats
    likeness: Floats
    nearness: Floats
    examples: Sequence[Example]

    @cached_property
    def metric(self) -> Metric:
        """The judge's own."""
        return read_metric(METRICS / f"{self.name}.yaml")

    @property
    def labels(self) -> NDArray[np.int64]:
        """The true answer's place [N]."""
        return np.array([example.label_index for example in self.examples], dtype=np.int64)

    def features(self, near: float | None) -> Floats:
        """What each answer's logit is made of [N, L, 2]: odds that count from some nearness, and likeness; of a yes-or-no question the no has none."""
        shares = np.array([Evidence(near=near).logit(1.0, 0.0, one) for one in self.nearness])
        made = np.stack([shares * self.odds, self.likeness], axis=-1)
        return np.concatenate([made, np.zeros_like(made)], axis=1) if self.metric.type == "boolean" else made

    def log_p(self, evidence: Evidence) -> Floats:
        """Log-probabilities of the answers [N, L] under some evidence."""
        return np.asarray(log_softmax(self.features(evidence.near) @ np.array([evidence.odds, evidence.likeness]), axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", type=Path, default=ROOT / "build" / "folds")
    parser.add_argument("--start", default="build/mini-seed", help="the untrained mini, as scripts/build_mini.py writes it")
    parser.add_argument("--out", type=Path, default=mini_folder())
    parser.add_argument("--fold", choices=list(FOLDS))
    parser.add_argument("--likeness", choices=list(FOLDS))
    parser.add_argument("--known", action="store_true")
    options = parser.parse_args()
    data = JudgeData(DATA)
    if options.fold:
        left_out = [name for name, judge in JUDGES.items() if judge.task in FOLDS[options.fold]]
        answer(options.fold, left_out, load_backbone(str(options.backbones / options.fold)), data)
    elif options.likeness:
        liken(options.likeness, load_backbone(options.start), data)
    elif options.known:
        answer("known", list(REWORDED), load_backbone("mini"), data)
    else:
        weigh(options.out, data)


def answer(which: str, names: Sequence[str], backbone: Backbone, data: JudgeData) -> None:
    """Ask a backbone about the rows of some judges; only those of known tasks are likened by it, and asked in several other words."""
    known = which == "known"
    asking, lines = Asking(backbone, mean_embedding(backbone, data), learned(data)) if known else Asking(backbone), []
    for name in names:
        metric = read_metric(METRICS / f"{name}.yaml")
        if metric.type == "boolean" or name in CHOICES:
            rows = rows_of(name, data, tests=not known)
            made, nearness = answers(asking, rows, question_of(metric, known))
            groups = {group: number for number, group in enumerate(dict.fromkeys(row.group for row in rows))}
            told = [{"label": row.label_index, "group": groups[row.group], "set": row.provenance.source} for row in rows]
            own = [{"odds": odds, **({"likeness": likeness} if known else {}), **one} for (odds, likeness), one in zip(made, told, strict=True)]
            lines.append(json.dumps({"judge": name, "nearness": nearness, "rows": own}))
            print(name, len(own), flush=True)
    answers_file(which).write_text("\n".join(lines) + "\n")


def liken(fold: str, untuned: Backbone, data: JudgeData) -> None:
    """Add the likeness of every recorded row and its question under the untuned mini."""
    asking, lines = Asking(untuned, mean_embedding(untuned, data), learned(data, FOLDS[fold])), []
    for line in answers_file(fold).read_text().splitlines():
        name, *_, own = json.loads(line).values()
        rows = rows_of(name, data, tests=True)
        if [row.label_index for row in rows] != [one["label"] for one in own]:
            raise SystemExit(f"the rows of {name} are not those that were asked")
        made, nearness = answers(asking, rows, question_of(read_metric(METRICS / f"{name}.yaml"), known=False))
        own = [{**one, "likeness": likeness, "set": row.provenance.source} for one, row, (_, likeness) in zip(own, rows, made, strict=True)]
        lines.append(json.dumps({"judge": name, "nearness": nearness, "rows": own}))
        print(name, len(own), flush=True)
    answers_file(fold).write_text("\n".join(lines) + "\n")


def rows_of(name: str, data: JudgeData, *, tests: bool) -> list[Example]:
    """Rows of a judge that no backbone was trained on, as many of each label, up to a bound; without its test rows where it was trained on the task."""
    parts, metric = data.parts(name), read_metric(METRICS / f"{name}.yaml")
    by_label: dict[int | None, list[Example]] = {}
    for example in as_examples([*parts["calibration"], *(parts["test"] if tests else ())], metric):
        by_label.setdefault(example.label_index, []).append(example)
    most = min(_ROWS, *(len(own) for own in by_label.values()))
    rng = random.Random(0)  # noqa: S311 - reproducible data
    return [example for label in sorted(by_label, key=lambda label: label or 0) for example in rng.sample(by_label[label], most)]


def question_of(metric: Metric, known: bool) -> OpenQuestion:  # noqa: FBT001
    """The metric's question as an open one; of what a backbone was trained on, in words that its training did not use."""
    options = () if metric.type == "boolean" else metric.label_names
    if not known:
        return OpenQuestion(instructions=metric.question, type=metric.type, options=options)
    recipe = read_recipe(RECIPE).tasks[JUDGES[metric.name].task]
    trained = {one.lower() for one in (*recipe.questions, *recipe.opposites)}
    first, *others = REWORDED[metric.name]
    if met := trained & {one.lower() for one in (first, *others)}:
        raise SystemExit(f"the training asked {met}")
    return OpenQuestion(instructions=first, type=metric.type, options=options, rewordings=tuple(others))


def answers(asking: Asking, rows: Sequence[Example], question: OpenQuestion) -> tuple[list[tuple[list[float], list[float]]], list[float]]:
    """Of each row the log odds and the likeness of every answer (of yes, where it is yes or no), means over wordings, from the first window; and nearness."""
    wordings = [wording for some in question.wordings for wording in some]
    windows = [content_windows(check_inputs(row.inputs, INPUT_NAMES, INPUT_NAMES), asking.backbone)[0] for row in rows]
    found, nearness = [], list[float]()
    for own in asking.ask(windows, wordings):
        by = dict(zip(wordings, own, strict=True))
        odds, likeness, nearness = ([round(fmean(by[one][place] for one in some), 5) for some in question.wordings] for place in range(3))
        found.append((odds, likeness))
    return found, nearness


def learned(data: JudgeData, left_out: Sequence[str] = ()) -> list[str]:
    """The questions that a backbone was trained on: those of its tasks, their opposites, and one wording for each value of a facet."""
    found = []
    for name, task in data.recipe.tasks.items():
        if name not in left_out:
            found += [*task.questions, *task.opposites]
            found += [facet.ask[0].format(name=one) for facet in task.facets if facet.names != "auto" for one in facet.names.values()]
    return list(dict.fromkeys(found))


def mean_embedding(backbone: Backbone, data: JudgeData) -> list[float]:
    """The mean frozen embedding of training contents of all tasks."""
    rng = random.Random(0)  # noqa: S311 - reproducible data
    chosen = [row for _, rows in sorted(data.mixture.rows.items()) for row in rng.sample(rows, min(_OF_A_TASK, len(rows)))]
    contents = [Content(content_windows(check_inputs(row.inputs, INPUT_NAMES, INPUT_NAMES), backbone)[:1]) for row in chosen]
    found = np.mean([one.double().numpy(force=True) for one in summaries(backbone, contents)], axis=0)
    return [round(float(value), 6) for value in found]


def answers_file(which: str) -> Path:
    """Where answers are kept, a line for each judge."""
    return RESULTS / f"open_answers_{which}.jsonl"


def recorded(which: str) -> dict[str, Task]:
    """What was recorded of a fold, or of known tasks."""
    found = {}
    for line in answers_file(which).read_text().splitlines():
        name, nearness, rows = json.loads(line).values()
        count = len(read_metric(METRICS / f"{name}.yaml").label_names)
        examples = [
            Example(
                id=str(number),
                inputs={},
                target=tuple(float(place == row["label"]) for place in range(count)),
                provenance=Provenance(group=str(row["group"]), source=row["set"]),
            )
            for number, row in enumerate(rows)
        ]
        odds, likeness = (np.array([row[one] for row in rows]) for one in ("odds", "likeness"))
        found[name] = Task(name, odds, likeness, np.array(nearness), examples)
    return found


def weigh(out: Path, data: JudgeData) -> None:
    """Fit the evidence of both kinds of questions, tell what it does, and write the file that ships."""
    unseen, known = {name: task for fold in FOLDS for name, task in recorded(fold).items()}, recorded("known")
    evidence, told = dict[str, Any](), dict[str, Any]()
    for kind, choices in (("boolean", False), ("choice", True)):
        own, met = ({name: task for name, task in some.items() if (name in CHOICES) == choices} for some in (unseen, known))
        evidence[kind] = fitted(list(own.values()), list(met.values())).model_dump()
        told[kind] = {"never seen": reached(own, own, met), "known, in other words": reached(met, own, met)}
    means = {
        which: mean_of([figure["auroc within sets"] for figure in by_task(told["boolean"]["never seen"], which)]) for which in ("odds", "likeness", "evidence")
    }
    stated = {"evidence": evidence, "learned": learned(data), "mean": mean_embedding(load_backbone("mini"), data)}
    write_file(out / OPEN_FILE, json.dumps(stated, indent=1))
    record("open_questions", {"evidence": evidence, "mean over tasks never seen": means, **told}, "python -m benchmarks.open_questions")


def by_task(rows: Mapping[str, Any], which: str) -> list[dict[str, list[float]]]:
    """A contender's figures on each task; of the kinds of personal data, which are one task, those of the question about all of them."""
    return [row[which] for name, row in rows.items() if not name.startswith("pii_")]


def fitted(unseen: Sequence[Task], known: Sequence[Task]) -> Evidence:
    """The evidence of the least mean log loss, half of it on tasks never seen, half on known ones; each task counts alike, and no weight is below 0."""
    tasks, each = [*unseen, *known], list[float]()
    for some in (unseen, known):
        own = [JUDGES[task.name].task for task in some]
        each += [1 / (len(set(own)) * own.count(JUDGES[task.name].task) * len(task.examples)) for task in some]
    share_N = np.repeat(each, [len(task.examples) for task in tasks])
    labels_N = np.concatenate([task.labels for task in tasks])
    rows_N = np.arange(len(labels_N))

    def loss(weights: Floats, features_NL2: Floats) -> tuple[float, Floats]:
        log_p_NL = log_softmax(features_NL2 @ weights, axis=1)
        away_NL = np.exp(log_p_NL)
        away_NL[rows_N, labels_N] -= 1
        return float(-(share_N * log_p_NL[rows_N, labels_N]).sum()), np.einsum("n,nl,nlw->w", share_N, away_NL, features_NL2)

    found: list[tuple[float, Evidence]] = []
    for near in _NEAR:
        features_NL2 = np.concatenate([task.features(near) for task in tasks])
        best = minimize(loss, np.array([0.5, 1.0]), (features_NL2,), jac=True, bounds=[(0, None), (0, None)], method="L-BFGS-B")
        found.append((float(best.fun), Evidence(odds=round(float(best.x[0]), 4), likeness=round(float(best.x[1]), 4), near=near)))
    return min(found, key=lambda one: one[0])[1]


def reached(tasks: Mapping[str, Task], unseen: Mapping[str, Task], known: Mapping[str, Task]) -> dict[str, Any]:
    """Ranking and calibration of every task: by the odds as they are, by likeness alone, and by evidence fitted without the task."""
    found = {}
    for name, task in tasks.items():
        others = [[one for one in some.values() if JUDGES[one.name].task != JUDGES[name].task] for some in (unseen, known)]
        evidence = fitted(*others) if others[0] else fitted([unseen[name]], [known[name]])
        kinds = {"odds": Evidence(), "likeness": Evidence(odds=0.0, likeness=1.0), "evidence": evidence}
        found[name] = {
            "rows": len(task.examples),
            "nearness": round(float(task.nearness.mean()), 3),
            **{which: told_of(task, own) for which, own in kinds.items()},
            "fitted without it": evidence.model_dump() if others[0] else None,
        }
    return found


def told_of(task: Task, evidence: Evidence) -> dict[str, list[float]]:
    """AUROC over all rows, the mean of it over the sets that hold every answer, and the calibration error."""
    log_p, metric = task.log_p(evidence), task.metric

    def over(chosen: Sequence[int], draws: int, names: Sequence[str]) -> dict[str, list[float]]:
        made = figures(scored([tuple(log_p[row]) for row in chosen], Calibration(), metric, [task.examples[row] for row in chosen])[0], metric, draws=draws)
        return {name: rounded(made[name]) for name in names if name in made}

    ranking = "auroc" if metric.type == "boolean" else "macro_auroc"
    by_set: dict[str, list[int]] = {}
    for row, example in enumerate(task.examples):
        by_set.setdefault(example.provenance.source, []).append(row)
    counts = {source: np.bincount(task.labels[rows], minlength=len(metric.label_names)) for source, rows in by_set.items()}
    within = [over(rows, 200, [ranking])[ranking] for source, rows in by_set.items() if counts[source].min() >= _FEW]
    whole = over(range(len(task.examples)), 500, [ranking, "ece"])
    return {"auroc": whole[ranking], "auroc within sets": mean_of(within) if within else whole[ranking], "ece": whole["ece"]}


if __name__ == "__main__":
    main()
