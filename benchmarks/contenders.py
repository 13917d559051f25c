"""What a judge is held against on the same rows: the same adapter on other backbones, TF-IDF and frozen-embedding logistic regression."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import fit_judge, rounded, rows_of, score_baselines, score_judge
from benchmarks.judge_data import NOISE
from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.flows.variants import with_noise
from snapjudge.model.adapter import Scope
from snapjudge.model.backbone import Backbone
from snapjudge.prove.figures import Scored, figures, positive_of, ranked_counts
from snapjudge.train.terms import FitConfig, LogP

SHOWN = ("auroc", "balanced_accuracy", "recall_at_1_fpr", "fpr", "recall", "f1", "macro_f1", "accuracy", "macro_auroc", "ece")
Told = dict[str, dict[str, list[float]]]


def contend(
    backbones: Mapping[str, Backbone],
    embedders: Mapping[str, Backbone],
    train: Sequence[Example],
    validation: Sequence[Example],
    sets: Mapping[str, Sequence[Example]],
    metric: Metric,
    config: FitConfig,
) -> dict[str, dict[str, LogP]]:
    """Contender -> set -> raw label log-probabilities; all learn from `train` (and some of it with noise) and choose their epoch or penalty on `validation`.

    Args:
        backbones: each is given an adapter.
        embedders: whose frozen states a logistic regression reads; with none, TF-IDF is left out, too.
    """
    train = noisy(train, metric, next(iter(backbones.values())), config)
    found = {name: adapted(backbone, train, validation, sets, metric, config) for name, backbone in backbones.items()}
    everything = [example for examples in sets.values() for example in examples]
    for embedder, backbone in embedders.items():
        wanted = ("embedding + LR",) if "TF-IDF + LR" in found else ("TF-IDF + LR", "embedding + LR")  # texts are the same to every embedder
        scores = score_baselines(backbone, train, validation, everything, metric, wanted)
        named = {(f"embedding of {embedder} + LR" if name == "embedding + LR" else name): one for name, one in scores.items()}
        for name, one in named.items():
            rows, at = rows_of(one), 0
            found[name] = {}
            for file, examples in sets.items():
                found[name][file] = rows[at : at + len(examples)]
                at += len(examples)
    return found


def noisy(train: Sequence[Example], metric: Metric, backbone: Backbone, config: FitConfig) -> list[Example]:
    """The training rows, and some of them again with noise, as the built-in judges learn from them."""
    return [*train, *with_noise(train, metric, backbone, NOISE, config.seed)]


def adapted(
    backbone: Backbone,
    train: Sequence[Example],
    validation: Sequence[Example],
    sets: Mapping[str, Sequence[Example]],
    metric: Metric,
    config: FitConfig,
    scope: Scope = "readout",
) -> dict[str, LogP]:
    """Set -> raw label log-probabilities of an adapter that learned from `train`."""
    judge = fit_judge(backbone, train, validation, scope, config, metric)
    return {file: rows_of(score_judge(backbone, judge, examples, metric)) for file, examples in sets.items()}


def flagged(scores: Scored, held: Scored, metric: Metric) -> Scored:
    """The scores flagged from where the balanced accuracy of held-back rows is highest; as they are where nothing is flagged."""
    return replace(scores, flagged=scores.scores >= best_cut(held, metric)) if metric.positive_labels else scores


def best_cut(held: Scored, metric: Metric) -> float:
    """The threshold with the highest balanced accuracy."""
    truth = positive_of(held, metric)
    tp_K, fp_K = (counts[0] for counts in ranked_counts(held.scores, truth, np.ones((1, len(held)))))
    distinct: NDArray[np.float64] = np.unique(held.scores)[::-1]
    return float(distinct[int(np.argmax(tp_K / max(1, truth.sum()) - fp_K / max(1, (~truth).sum())))])


def told(scores: Scored, metric: Metric, draws: int = 500) -> dict[str, list[float]]:
    """Figure -> value and the ends of its interval; of two labels also accuracy and macro F1 at a half."""
    found = figures(scores, metric, draws=draws)
    if metric.type == "boolean":
        plain = metric.model_copy(update={"type": "choice", "positive": ()})
        found |= {name: figure for name, figure in figures(scores, plain, draws=draws).items() if name in ("accuracy", "macro_f1")}
    return {name: rounded(found[name]) for name in SHOWN if name in found}


def mean_of(values: Sequence[Sequence[float]]) -> list[float]:
    """The mean over these sets; its interval takes their errors as wholly dependent (many share their harmless rows), so it is rather too wide."""
    return [round(sum(value[place] for value in values) / len(values), 4) for place in range(3)]
