"""Rubric scores and preferences: what the earth mover's loss, both orders, a kept or dropped rubric, and merging are worth on `mini`.

    python -m benchmarks.scoring                        hours on one core, most of them for the rubric, whose rows are long
    python -m benchmarks.scoring --part pairs           a part of it; what else was recorded stays

Scores: 945 answers rated 1 to 10 by GPT-4 (autoj_single), in three folds by prompt, so that each row is scored once by a judge that has not seen its prompt;
576 + 64 answers rated 1 to 5 by a rubric (prometheus), tested on the `.dev` rows. Preferences: alpaca_eval, trained on `--pairs` pairs, tested on its `.dev`
pairs, each there in both orders: their contents are read once, in the order given, for all adapters, and a pair's other order is the other row. No weights of
these go into the project: most of the data may not train a published model.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.common import DATA, RESULTS, arguments, fit_judge, record, rounded, rows_of, score_baselines, score_judge, timed
from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Silent
from snapjudge.curate.read import read_examples
from snapjudge.curate.split import split
from snapjudge.flows.scoring import contents_of
from snapjudge.model.adapter import Adapter
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import load_backbone
from snapjudge.model.prompt import render_readout
from snapjudge.model.reading import Question
from snapjudge.model.readout import combine_orders
from snapjudge.prove.figures import Scored, figures, group_numbers, main_figure, share
from snapjudge.prove.proof import scored
from snapjudge.train.contents import ContentStore
from snapjudge.train.fit import fit
from snapjudge.train.kept import KeptContents
from snapjudge.train.merge import MergeConfig, merge_adapters
from snapjudge.train.terms import FitConfig, FitData, LogP, Validation

PARTS = ("levels", "rubric", "pairs")  # with the pairs come judges of both
_FOLDS = 3
CONFIG = FitConfig(rank=8, alpha=16.0, epochs=6, patience=3)


def levels(count: int, question: str, **more: Any) -> Metric:
    """A score metric of so many levels."""
    return Metric(name="quality", version=1, type="score", question=question, labels={str(level): (str(level),) for level in range(1, count + 1)}, **more)


RATED = levels(10, "How good is the answer, from 1 to 10?", inputs=("input", "output"))
BY_RUBRIC = levels(5, "Score the output by the rubric, from 1 to 5.", inputs=("context", "input", "output"), optional=("context",))
PREFERRED = Metric(
    name="preferred", version=1, type="pairwise", inputs=("input", "a", "b"), question="Which answer is better?", labels={"a": ("first",), "b": ("second",)}
)


def main() -> None:
    options = arguments(__doc__ or "", backbone="mini", part=list(PARTS), pairs=800, seed=0)
    backbone, path = load_backbone(options.backbone), RESULTS / "scoring.json"

    def keep(**found: dict[str, Any]) -> None:
        before = json.loads(path.read_text()) if path.exists() else {}
        kept = {name: before[name] for name in ("levels", "rubric", "pairs", "both") if name in before}
        record("scoring", {"backbone": options.backbone, **kept, **found}, f"python -m benchmarks.scoring --part {' '.join(PARTS)} --pairs {options.pairs}")

    for part in options.part:
        if part == "levels":
            keep(levels=ordinal(backbone, options.seed))
        elif part == "rubric":
            keep(rubric=rubric(backbone))
        else:
            with ExitStack() as stack:
                found, expert, kept_pairs = preferences(backbone, options.pairs, stack)
                keep(pairs=found)
                keep(both=both(backbone, options.pairs, expert, kept_pairs, stack))


def read(metric: Metric, *names: str) -> list[Example]:
    """The labelled rows of some files."""
    return [example for example in read_examples([DATA / f"{name}.jsonl" for name in names], metric) if example.target is not None]


def told(found: Scored, metric: Metric, *names: str) -> dict[str, list[float]]:
    """Some figures with their intervals."""
    made = figures(found, metric, draws=1000)
    return {name: rounded(made[name]) for name in names if name in made}


LEVELS = ("pearson", "weighted_kappa", "mae", "accuracy")


def ordinal(backbone: Backbone, seed: int) -> dict[str, Any]:
    """Earth mover's loss against cross-entropy on the same rows."""
    rows = read(RATED, "judge_score/autoj_single.train", "judge_score/autoj_single.dev")
    folds = split(rows, {str(number): 1 / _FOLDS for number in range(_FOLDS)}, seed)
    gathered: dict[str, list[tuple[float, ...]]] = {"earth mover": [], "cross-entropy": [], "TF-IDF + LR": [], "embedding + LR": []}
    order: list[Example] = []
    for number in range(_FOLDS):
        test = folds[str(number)]
        rest = [row for name, part in folds.items() if name != str(number) for row in part]
        parts = split(rest, {"train": 0.88, "validation": 0.12}, seed)
        order += test
        for name, metric in (("earth mover", RATED), ("cross-entropy", RATED.as_choice)):
            judge = fit_judge(backbone, parts["train"], parts["validation"], "readout", CONFIG, metric, RATED)
            gathered[name] += rows_of(score_judge(backbone, judge, test, metric))
        for name, scores in score_baselines(backbone, parts["train"], parts["validation"], test, RATED).items():
            gathered[name] += rows_of(scores)
    return {"rows": len(order), **{name: told(scored(log_p, Calibration(), RATED, order)[0], RATED, *LEVELS) for name, log_p in gathered.items()}}


def rubric(backbone: Backbone) -> dict[str, Any]:
    """The rubric kept in training, dropped from it, or every row with and without; read with it and without. The backbone has read these training rows."""
    names = ("judge_score/prometheus_mtbench", "judge_score/prometheus_vicuna")
    train, test = read(BY_RUBRIC, *(f"{name}.train" for name in names)), read(BY_RUBRIC, *(f"{name}.dev" for name in names))
    parts = split(train, {"train": 0.88, "validation": 0.12}, 0)
    bare = [without(row) for row in parts["train"]]
    trained = {"kept": parts["train"], "dropped": bare, "both": [*parts["train"], *bare]}
    found: dict[str, Any] = {"rows": len(test)}
    for name, rows in trained.items():
        held = [without(row) for row in parts["validation"]] if name == "dropped" else parts["validation"]
        judge = fit_judge(backbone, rows, held, "readout", CONFIG, BY_RUBRIC)
        for asked, given in (("with", test), ("without", [without(row) for row in test])):
            found[f"{name} in training, read {asked}"] = told(score_judge(backbone, judge, given, BY_RUBRIC), BY_RUBRIC, *LEVELS)
    return found


def without(row: Example) -> Example:
    """The example without its rubric."""
    return row.model_copy(update={"inputs": {name: value for name, value in row.inputs.items() if name != "context"}})


def pair_of(row: Example) -> tuple[str, frozenset[str]]:
    """What two orders of a pair have in common."""
    return row.inputs["input"], frozenset({row.inputs["a"], row.inputs["b"]})


def pairs_of(count: int) -> tuple[list[Example], list[Example], list[Example]]:
    """Train, validation and test rows of pairs, each in both orders; split by prompt, of which each has many pairs."""
    parts = split(read(PREFERRED, "judge_pairwise/alpaca_eval.train"), {"train": 0.85, "validation": 0.15}, 0)
    return both_orders(parts["train"], count), both_orders(parts["validation"], count // 8), both_orders(read(PREFERRED, "judge_pairwise/alpaca_eval.dev"))


def both_orders(rows: Sequence[Example], count: int | None = None) -> list[Example]:
    """Some pairs that are there in both orders, the two side by side, prompts in turn."""
    pairs: dict[tuple[str, frozenset[str]], list[Example]] = {}
    for row in rows:
        pairs.setdefault(pair_of(row), []).append(row)
    by_prompt: dict[str, list[list[Example]]] = {}
    for (prompt, _), own in pairs.items():
        if len(own) == 2 and own[0].inputs["a"] == own[1].inputs["b"]:
            by_prompt.setdefault(prompt, []).append(own)
    turns = [own for turn in zip_longest(*by_prompt.values()) for own in turn if own is not None]
    return [row for own in turns[:count] for row in own]


def one_order(rows: Sequence[Example]) -> list[Example]:
    """Each pair in one of its orders, as many with the first answer better as with the second."""
    return [rows[place + (place // 2) % 2] for place in range(0, len(rows), 2)]


class Kept:
    """Rows whose contents are read once, to be asked with many adapters on the readout."""

    def __init__(self, backbone: Backbone, rows: Sequence[Example], metric: Metric, stack: ExitStack) -> None:
        self.backbone, self.rows, self.metric = backbone, rows, metric
        spill = Path(stack.enter_context(TemporaryDirectory())) / "contents.bin"
        store = stack.enter_context(ContentStore(budget=1 << 30, spill=spill, device=backbone.device))
        self.contents = KeptContents(backbone, contents_of(rows, metric, backbone), store, Silent(), lambda: False)

    def log_p(self, adapter: Adapter) -> LogP:
        """Raw label log-probabilities under an adapter."""
        readout = render_readout(self.metric, self.backbone)
        own = replace(adapter, invocation=readout.token_ids)
        return self.contents.log_p(range(len(self.rows)), readout, own, self.metric)


def averaged(log_p: LogP) -> LogP:
    """Both orders asked and averaged, where two rows after another are the orders of one pair."""
    rows = torch.tensor(log_p, dtype=torch.float64)
    turned = rows[torch.arange(len(rows)) ^ 1]
    return [tuple(combine_orders(one, other, PREFERRED.mirror).tolist()) for one, other in zip(rows, turned, strict=True)]


def preferences(backbone: Backbone, count: int, stack: ExitStack) -> tuple[dict[str, Any], Adapter, Kept]:
    """One order, orders swapped in training, both orders asked and averaged; position bias of each."""
    train, held, test = pairs_of(count)
    one, single = PREFERRED.as_choice, one_order(train)
    kept = Kept(backbone, test, one, stack)
    found: dict[str, Any] = {"pairs": len(single), "test rows": len(test)}
    experts: list[Adapter] = []
    for name, rows, metric in (
        ("one order in training", single, one),
        ("both orders in training", train, one),
        ("both orders averaged in training, too", single, PREFERRED),
    ):
        experts.append(fit_judge(backbone, rows, held, "readout", CONFIG, metric).adapter)
        once = kept.log_p(experts[-1])
        for asked, log_p in (("asked once", once), ("asked in both orders", averaged(once))):
            found[f"{name}, {asked}"] = {**told(scored(log_p, Calibration(), one, test)[0], one, "accuracy", "log_loss"), **bias(log_p, test)}
        print(name, found[f"{name}, asked once"], found[f"{name}, asked in both orders"], flush=True)
    length = [(0.0, -9.0) if len(row.inputs["a"]) > len(row.inputs["b"]) else (-9.0, 0.0) for row in test]
    found["the longer answer"] = told(scored(length, Calibration(), one, test)[0], one, "accuracy")
    embedded = score_baselines(backbone, train, held, test, PREFERRED)["embedding + LR"]
    return found | {"embeddings of both + LR": told(embedded, one, "accuracy", "log_loss")}, experts[-1], kept


def bias(log_p: LogP, test: Sequence[Example]) -> dict[str, Any]:
    """How far the answer depends on the place: the share of pairs whose verdict turns with the order, and how often the first place wins (a half is fair)."""
    firsts = np.array([row[0] > row[1] for row in log_p])
    turned = firsts[::2] == firsts[1::2]
    groups = group_numbers([row.group for row in test[::2]])
    found = {"turned by the order": share(turned, groups), "first place wins": share(firsts, group_numbers([row.group for row in test]))}
    return {name: rounded(one) for name, one in found.items()}


def both(backbone: Backbone, count: int, pair_expert: Adapter, asked_pairs: Kept, stack: ExitStack) -> dict[str, Any]:
    """One judge for scores and preferences: two experts merged at several weights, against one adapter trained on both."""
    rated = split(read(RATED, "judge_score/autoj_single.train"), {"train": 0.88, "validation": 0.12}, 0)
    pairs = dict(zip(("train", "validation"), pairs_of(count), strict=False))
    pairs["train"] = one_order(pairs["train"])
    asked_scores = Kept(backbone, read(RATED, "judge_score/autoj_single.dev"), RATED, stack)
    found: dict[str, Any] = {}
    seconds = timed(lambda: found.update(expert=fit_judge(backbone, rated["train"], rated["validation"], "readout", CONFIG, RATED).adapter))
    rate_expert: Adapter = found.pop("expert")

    def measure(for_scores: Adapter, for_pairs: Adapter) -> dict[str, Any]:
        scores, answers = asked_scores.log_p(for_scores), averaged(asked_pairs.log_p(for_pairs))
        return {
            **told(scored(scores, Calibration(), RATED, asked_scores.rows)[0], RATED, "pearson", "mae"),
            **told(scored(answers, Calibration(), asked_pairs.metric, asked_pairs.rows)[0], asked_pairs.metric, "accuracy", "log_loss"),
        }

    found["separate experts"] = {**measure(rate_expert, pair_expert), "seconds for the score expert": round(seconds, 1)}
    for weight in (0.1, 0.3, 0.5, 0.7, 0.9):
        merged = merge_adapters([rate_expert, pair_expert], MergeConfig(weights=(weight, 1 - weight)), rank=16).adapter
        found[f"merged {weight:g} : {1 - weight:g}"] = measure(merged, merged)
    joint: dict[str, Adapter] = {}
    seconds = timed(lambda: joint.update(one=joint_fit(backbone, [(RATED, rated), (PREFERRED, pairs)])))
    found["trained on both"] = {**measure(joint["one"], joint["one"]), "seconds": round(seconds, 1)}
    return found


def joint_fit(backbone: Backbone, tasks: Sequence[tuple[Metric, Mapping[str, Sequence[Example]]]], config: FitConfig = CONFIG) -> Adapter:
    """One adapter for several metrics, the epoch chosen by the mean of their main figures."""
    questions = [Question(metric, render_readout(metric, backbone)) for metric, _ in tasks]
    data = FitData(
        [content for metric, parts in tasks for content in contents_of(parts["train"], metric, backbone)],
        [row.target for _, parts in tasks for row in parts["train"]],
        [content for metric, parts in tasks for content in contents_of(parts["validation"], metric, backbone)],
        asked=[number for number, (_, parts) in enumerate(tasks) for _ in parts["train"]],
        validation_asked=[number for number, (_, parts) in enumerate(tasks) for _ in parts["validation"]],
    )

    def validate(log_p: LogP) -> Validation:
        values, at = [], 0
        for metric, parts in tasks:
            own = parts["validation"]
            made = figures(scored(log_p[at : at + len(own)], Calibration(), metric, own)[0], metric, draws=20)
            values.append(made[main_figure(metric)].value)
            at += len(own)
        chance = [0.0 if main_figure(metric) == "pearson" else 0.5 for metric, _ in tasks]
        return Validation(sum(values) / len(values), "mean figure", 0.0, sum(chance) / len(chance), 0.03)

    with TemporaryDirectory() as folder:
        return fit(backbone, questions, data, "readout", config, validate=validate, folder=Path(folder), progress=Silent()).adapter


if __name__ == "__main__":
    main()
