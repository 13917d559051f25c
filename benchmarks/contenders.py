"""What a judge is held against on the same rows: the same adapter on other backbones, TF-IDF and frozen-embedding logistic regression."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import fit_judge, score_baselines, score_judge
from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.model.backbone import Backbone
from snapjudge.prove.figures import Scored, figures, positive_of, ranked_counts
from snapjudge.prove.proof import scored
from snapjudge.train.terms import FitConfig

SHOWN = ("auroc", "balanced_accuracy", "recall_at_1_fpr", "fpr", "recall", "f1", "macro_f1", "accuracy", "macro_auroc", "ece")
Told = dict[str, dict[str, list[float]]]


def contend(
    backbones: Mapping[str, Backbone],
    embedder: Backbone | None,
    train: Sequence[Example],
    validation: Sequence[Example],
    sets: Mapping[str, Sequence[Example]],
    metric: Metric,
    config: FitConfig,
) -> dict[str, dict[str, Scored]]:
    """Contender -> set -> scores; all learn from `train` and choose their epoch, penalty and threshold on `validation`.

    Args:
        embedder: whose states the frozen-embedding baseline reads; None leaves the two baselines out.
    """
    found: dict[str, dict[str, Scored]] = {}
    for name, backbone in backbones.items():
        judge = fit_judge(backbone, train, validation, "readout", config, metric)
        held = scored(judge.log_p, Calibration(), metric, validation)[0]
        found[name] = {file: flagged(score_judge(backbone, judge, examples, metric), held, metric) for file, examples in sets.items()}
    if embedder is None:
        return found
    everything = [example for examples in sets.values() for example in examples]
    for name, scores in score_baselines(embedder, train, validation, [*validation, *everything], metric).items():
        held, at = scores.take(np.arange(len(validation))), len(validation)
        found[name] = {}
        for file, examples in sets.items():
            found[name][file] = flagged(scores.take(np.arange(at, at + len(examples))), held, metric)
            at += len(examples)
    return found


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
    return {name: [round(found[name].value, 4), round(found[name].low, 4), round(found[name].high, 4)] for name in SHOWN if name in found}
