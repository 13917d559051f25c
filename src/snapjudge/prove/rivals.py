"""Against the judge it replaces: verdicts that came with the data (an LLM judge's, say) beside the judge's own on the same rows. Knows nothing of files."""

from collections.abc import Sequence

import numpy as np

from snapjudge.core.example import Example
from snapjudge.core.frozen import Frozen
from snapjudge.core.metric import Metric
from snapjudge.curate.agreement import agreement
from snapjudge.prove.figures import Figure, Scored, figures, group_numbers, share

_VERDICT_FIGURES = ("f1", "precision", "recall", "fpr", "balanced_accuracy", "accuracy", "macro_f1", "weighted_kappa")
FEWEST = 10


class Side(Frozen):
    """One of the two: its figures on the rows both judged, cost per thousand verdicts and seconds for one, where known."""

    figures: dict[str, Figure]
    cost_per_1000: float | None = None
    mean_seconds: float | None = None
    median_seconds: float | None = None
    p95_seconds: float | None = None


class Rival(Frozen):
    """A judge whose verdicts came with the data.

    Args:
        rows: that it gave a usable verdict on; `without` it gave none.
        agree: share of equal verdicts; `kappa` the same beyond chance.
        both_wrong, only_judge_wrong, only_rival_wrong: rows.
        repeats: share of the judge's errors that the rival makes too; `repeats_by_chance` what independent errors would give.
    """

    name: str
    rows: int
    without: int
    judge: Side
    rival: Side
    agree: Figure
    kappa: float | None
    both_wrong: int
    only_judge_wrong: int
    only_rival_wrong: int
    repeats: float | None
    repeats_by_chance: float


def rivals(data: Scored, metric: Metric, examples: Sequence[Example], judge_seconds: float | None = None) -> tuple[Rival, ...]:
    """Every verdict column of the examples with enough rows, as a rival.

    Args:
        judge_seconds: for one text in batches, the mean of this run.
    """
    names = dict.fromkeys(name for example in examples for name in example.verdicts)
    found = [_rival(name, data, metric, examples, judge_seconds) for name in names]
    return tuple(one for one in found if one is not None)


def _rival(name: str, data: Scored, metric: Metric, examples: Sequence[Example], judge_seconds: float | None) -> Rival | None:
    labels = metric.label_names
    places = [place for place, example in enumerate(examples) if name in example.verdicts and example.verdicts[name].label in labels]
    if len(places) < FEWEST:
        return None
    verdicts = [examples[place].verdicts[name] for place in places]
    own = data.take(np.array(places, dtype=np.int64))
    said = np.array([labels.index(verdict.label) for verdict in verdicts], dtype=np.int64)
    theirs = _as_scored(said, own, metric)
    positive = [label in metric.positive_labels for label in labels]
    judged = own.flagged if metric.positive_labels else own.probabilities.argmax(1)
    theirs_judged = theirs.flagged if metric.positive_labels else said
    truth = np.array([positive[label] for label in own.labels]) if metric.positive_labels else own.labels
    wrong, theirs_wrong = judged != truth, theirs_judged != truth
    votes = np.stack([np.asarray(judged, dtype=np.int64), np.asarray(theirs_judged, dtype=np.int64)], 1)
    pairs = agreement(votes, 2 if metric.positive_labels else len(labels), draws=2).pairs
    costs, seconds = ([value for verdict in verdicts if (value := getattr(verdict, field)) is not None] for field in ("cost", "seconds"))
    return Rival(
        name=name,
        rows=len(places),
        without=len(examples) - len(places),
        judge=Side(figures=_some(figures(own, metric)), mean_seconds=judge_seconds),
        rival=Side(
            figures=_some(figures(theirs, metric)),
            cost_per_1000=1000 * float(np.mean(costs)) if costs else None,
            median_seconds=float(np.median(seconds)) if seconds else None,
            p95_seconds=float(np.quantile(seconds, 0.95)) if seconds else None,
        ),
        agree=share(judged == theirs_judged, group_numbers([examples[place].group for place in places])),
        kappa=pairs[0][3].value if pairs else None,
        both_wrong=int((wrong & theirs_wrong).sum()),
        only_judge_wrong=int((wrong & ~theirs_wrong).sum()),
        only_rival_wrong=int((~wrong & theirs_wrong).sum()),
        repeats=float(theirs_wrong[wrong].mean()) if wrong.any() else None,
        repeats_by_chance=float(theirs_wrong.mean()),
    )


def _as_scored(said: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]", own: Scored, metric: Metric) -> Scored:
    """Hard verdicts in the shape of scores; only figures of verdicts are read from it."""
    probabilities = np.eye(len(metric.labels))[said]
    flagged = np.array([metric.label_names[label] in metric.positive_labels for label in said], dtype=bool)
    return Scored(probabilities, own.labels, flagged.astype(float), flagged, own.groups)


def _some(found: dict[str, Figure]) -> dict[str, Figure]:
    return {name: figure for name, figure in found.items() if name in _VERDICT_FIGURES}
