"""The proof: every figure of a judge and its baselines on one test split, with what a report needs to draw them.

`prove` is a pure function of scores and labels. Knows nothing of models, files or HTML.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example, length_of, shortened, texts_of
from snapjudge.core.frozen import Frozen
from snapjudge.core.judgement import Judgement, judge_of
from snapjudge.core.metric import Metric
from snapjudge.core.rules import Gate
from snapjudge.errors import RuleInvalid
from snapjudge.prove.figures import Figure, Scored, figure_names, figures, group_numbers, main_figure, positive_of, ranked_counts, share, wilson
from snapjudge.prove.probes import Probe
from snapjudge.prove.promises import Promise
from snapjudge.prove.rivals import Rival, rivals

LogP = Sequence[tuple[float, ...]]
FORMAT = 1
_WORST = 12
_POINTS = 200
_FEWEST_IN_SLICE = 20


class Reliability(Frozen):
    """One bin of the reliability picture: mean claimed probability, observed share with Wilson's interval, examples in it."""

    claimed: float
    observed: float
    count: int
    low: float = 0.0
    high: float = 1.0


class Curves(Frozen):
    """What the pictures show; empty for metrics without a flagged label."""

    roc: tuple[tuple[float, float], ...] = Field(default=(), description="(false-positive rate, recall)")
    precision_recall: tuple[tuple[float, float], ...] = Field(default=(), description="(recall, precision)")
    reliability: tuple[Reliability, ...] = ()
    histogram: dict[str, tuple[int, ...]] = Field(default={}, description="label -> counts of the score in twenty bins")


class Slice(Frozen):
    """Figures of a part of the test."""

    by: str
    value: str
    examples: int
    figures: dict[str, Figure]


class WorstError(Frozen):
    """A test example the judge is most wrong about."""

    id: str
    where: str
    truth: str
    label: str
    score: float
    inputs: dict[str, str]


class GateResult(Frozen):
    """Whether a stated gate was met, and the number it was held against."""

    gate: str
    found: float | None
    passed: bool


class Selective(Frozen):
    """What the judge answers itself on the test under its promise of agreement, and how often it is right there."""

    coverage: Figure
    agreement: Figure | None


class Contender(Frozen):
    """The judge or a baseline on the test: its figures and the threshold they were taken at."""

    name: str
    figures: dict[str, Figure]
    threshold: float


class Proof(Frozen):
    """proof.json: format first, then everything the report says."""

    format: int = FORMAT
    judge: str
    metric: str
    criteria_version: int
    question: str
    backbone: str
    scope: str
    data: dict[str, int] = Field(description="examples in each split")
    labels: dict[str, int] = Field(description="test examples by label")
    positive: tuple[str, ...]
    main_figure: str
    confidence: float = 0.95
    calibration: Calibration
    contenders: tuple[Contender, ...]
    confusion: dict[str, dict[str, int]] = Field(description="truth -> answer -> count")
    slices: tuple[Slice, ...]
    worst: tuple[WorstError, ...]
    curves: Curves
    selective: Selective | None = None
    rivals: tuple[Rival, ...] = ()
    promises: tuple[Promise, ...] = ()
    probes: tuple[Probe, ...] = ()
    gates: tuple[GateResult, ...] = ()
    notes: tuple[str, ...] = ()
    bundle_digest: str = ""
    created: str = ""
    made_with: dict[str, str] = Field(default={}, description="what it takes to make the proof again")

    @property
    def judge_figures(self) -> dict[str, Figure]:
        """The judge's own figures."""
        return self.contenders[0].figures

    @property
    def failed_gates(self) -> list[GateResult]:
        """Gates that were missed."""
        return [gate for gate in self.gates if not gate.passed]


@dataclass(frozen=True)
class Contestant:
    """Raw scores of the judge or a baseline on the test, and its own calibration."""

    name: str
    log_p: LogP
    calibration: Calibration


@dataclass(frozen=True)
class Header:
    """What the proof says of the judge, beside figures."""

    judge: str
    backbone: str
    scope: str
    data: Mapping[str, int]
    notes: Sequence[str] = ()
    bundle_digest: str = ""
    created: str = ""
    promises: Sequence[Promise] = ()
    probes: Sequence[Probe] = ()
    made_with: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    texts: bool = True  # whether the worst errors are shown with their texts


def scored(log_p: LogP, calibration: Calibration, metric: Metric, examples: Sequence[Example]) -> tuple[Scored, list[Judgement]]:
    """Judgements of raw scores, and the same as arrays for the figures."""
    parts = [calibration.part_of(length_of(example.inputs), example.provenance.source) for example in examples]
    judgements = [judge_of("", metric, calibration, row, 1, part) for row, part in zip(log_p, parts, strict=True)]
    arrays = Scored(
        probabilities=np.array([list(one.probabilities.values()) for one in judgements]),
        labels=np.array([example.label_index for example in examples], dtype=np.int64),
        scores=np.array([one.score for one in judgements]),
        flagged=np.array([one.flagged for one in judgements], dtype=bool),
        groups=group_numbers([example.group for example in examples]),
        prior=_prior(calibration, examples),
    )
    return arrays, judgements


def _prior(calibration: Calibration, examples: Sequence[Example]) -> NDArray[np.float64] | None:
    """Weights that give the labels the shares the calibration states; none where it states none."""
    if not calibration.prevalence:
        return None
    labels = np.array([example.label_index for example in examples])
    seen = np.bincount(labels, minlength=len(calibration.prevalence)) / len(labels)
    weights: NDArray[np.float64] = (np.array(calibration.prevalence) / np.maximum(seen, 1e-12))[labels]
    return weights


def prove(metric: Metric, examples: Sequence[Example], contestants: Sequence[Contestant], header: Header, gates: Sequence[Gate] = ()) -> Proof:
    """The proof of the first contestant beside the others; `check_gates` has seen the gates."""
    contenders = []
    for contestant in contestants:
        arrays, _ = scored(contestant.log_p, contestant.calibration, metric, examples)
        contenders.append(Contender(name=contestant.name, figures=figures(arrays, metric), threshold=contestant.calibration.threshold.value))
    judge = contestants[0]
    arrays, judgements = scored(judge.log_p, judge.calibration, metric, examples)
    answers = [metric.label_names[index] for index in arrays.probabilities.argmax(1)]
    truths = [metric.label_names[index] for index in arrays.labels]
    pairs = Counter(zip(truths, answers, strict=True))
    return Proof(
        judge=header.judge,
        metric=metric.name,
        criteria_version=metric.version,
        question=metric.question,
        backbone=header.backbone,
        scope=header.scope,
        data=dict(header.data),
        labels={name: truths.count(name) for name in metric.labels},
        positive=metric.positive_labels,
        main_figure=main_figure(metric),
        calibration=judge.calibration,
        contenders=tuple(contenders),
        confusion={truth: {answer: pairs[truth, answer] for answer in metric.labels} for truth in metric.labels},
        slices=tuple(_slices(arrays, metric, examples)),
        worst=tuple(_worst(metric, examples, judgements, texts=header.texts)),
        curves=_curves(arrays, metric),
        selective=_selective(arrays, judge.calibration, judgements),
        rivals=rivals(arrays, metric, examples, header.seconds),
        promises=tuple(header.promises),
        probes=tuple(header.probes),
        gates=tuple(_gates(gates, contenders[0].figures)),
        notes=tuple(header.notes),
        bundle_digest=header.bundle_digest,
        created=header.created,
        made_with=dict(header.made_with),
    )


def _selective(arrays: Scored, calibration: Calibration, judgements: Sequence[Judgement]) -> Selective | None:
    if calibration.escalation is None:
        return None
    answered = np.array([not one.escalate for one in judgements])
    right = arrays.probabilities.argmax(1) == arrays.labels
    return Selective(coverage=share(answered, arrays.groups), agreement=share(right[answered], arrays.groups[answered]) if answered.any() else None)


_UNBOUNDED = ("mae", "log_loss", "brier")  # figures that may be above 1


def check_gates(gates: Sequence[Gate], metric: Metric) -> None:
    """Refuse gates on figures that a metric of this kind does not have, or that no figure can miss or meet, before any work is done.

    Raises:
        RuleInvalid: listing the figures there are, or saying where the figure lies.
    """
    names = figure_names(metric)
    for gate in gates:
        if gate.figure not in names:
            raise RuleInvalid(f"gate {gate}: a {metric.type} metric has no figure {gate.figure!r}", hint=f"one of {', '.join(names)}", received=str(gate))
        if gate.figure not in _UNBOUNDED and gate.bound > 1:
            raise RuleInvalid(f"gate {gate}: {gate.figure} is never above 1", hint=f"{gate.figure}{gate.end}{gate.sign}0.9, a share of 1", received=str(gate))


def _gates(gates: Sequence[Gate], found: Mapping[str, Figure]) -> list[GateResult]:
    """Each gate against its figure; one that the data could not give is missed, not passed over."""
    results = []
    for gate in gates:
        figure = found.get(gate.figure)
        if figure is None:
            results.append(GateResult(gate=str(gate), found=None, passed=False))
            continue
        value = {"": figure.value, ".low": figure.low, ".high": figure.high}[gate.end]
        results.append(GateResult(gate=str(gate), found=value, passed=gate.passes(value)))
    return results


def _slices(arrays: Scored, metric: Metric, examples: Sequence[Example]) -> list[Slice]:
    """Thirds by length in characters, and every source; slices of fewer than twenty examples are left out."""
    lengths = np.array([length_of(example.inputs) for example in examples])
    short, long = np.quantile(lengths, [1 / 3, 2 / 3])
    bands = [
        (f"up to {short:.0f}", lengths <= short),
        (f"{short:.0f} to {long:.0f}", (lengths > short) & (lengths <= long)),
        (f"over {long:.0f}", lengths > long),
    ]
    parts = [("characters", name, chosen) for name, chosen in bands]
    for by in ("source", "category"):
        values = np.array([getattr(example.provenance, by) for example in examples])
        if len(set(values)) > 1:
            parts += [(by, str(value), values == value) for value in sorted(set(values))]
    return [
        Slice(by=by, value=value or "(none)", examples=int(chosen.sum()), figures=figures(arrays.take(chosen), metric))
        for by, value, chosen in parts
        if chosen.sum() >= _FEWEST_IN_SLICE
    ]


def _worst(metric: Metric, examples: Sequence[Example], judgements: Sequence[Judgement], *, texts: bool) -> list[WorstError]:
    """Wrong answers, the most confident first."""

    def probability_of_truth(index: int) -> float:
        return judgements[index].probabilities[metric.label_names[examples[index].label_index]]

    order = sorted(range(len(examples)), key=probability_of_truth)
    wrong = [index for index in order if judgements[index].label != metric.label_names[examples[index].label_index]]
    return [
        WorstError(
            id=examples[index].id,
            where=examples[index].where,
            truth=metric.label_names[examples[index].label_index],
            label=judgements[index].label,
            score=judgements[index].score,
            inputs={name: shortened(text, 600) for name, text in texts_of(examples[index].inputs).items()} if texts else {},
        )
        for index in wrong[:_WORST]
    ]


def _curves(arrays: Scored, metric: Metric) -> Curves:
    if not metric.positive_labels:
        return Curves()
    truth = positive_of(arrays, metric)
    tp, fp = (counts[0] for counts in ranked_counts(arrays.scores, truth, np.ones((1, len(arrays)))))
    positives, negatives = max(1, int(truth.sum())), max(1, int((~truth).sum()))
    keep = np.unique(np.linspace(0, len(tp) - 1, _POINTS).astype(int))
    roc = [(0.0, 0.0), *((float(fp[k] / negatives), float(tp[k] / positives)) for k in keep)]
    recall_precision = [(float(tp[k] / positives), float(tp[k] / (tp[k] + fp[k]))) for k in keep]
    return Curves(
        roc=tuple(roc),
        precision_recall=tuple(recall_precision),
        reliability=tuple(_reliability(arrays.scores, truth, arrays.prior)),
        histogram={"flagged label": _histogram(arrays.scores[truth]), "others": _histogram(arrays.scores[~truth])},
    )


def _reliability(scores: NDArray[np.float64], truth: NDArray[np.bool_], prior: NDArray[np.float64] | None) -> list[Reliability]:
    """Ten bins with about equally many examples each; Wilson's interval for as many examples as the weights are worth."""
    order = np.argsort(scores, kind="stable")
    weights = np.ones(len(scores)) if prior is None else prior
    found = []
    for part in np.array_split(order, min(10, len(order))):
        own = weights[part]
        observed, worth = float(np.average(truth[part], weights=own)), float(own.sum() ** 2 / (own**2).sum())
        low, high = wilson(observed * worth, worth)
        claimed = float(np.average(scores[part], weights=own))
        found.append(Reliability(claimed=claimed, observed=observed, count=len(part), low=low, high=high))
    return found


def _histogram(scores: NDArray[np.float64]) -> tuple[int, ...]:
    return tuple(int(count) for count in np.histogram(scores, bins=20, range=(0.0, 1.0))[0])
