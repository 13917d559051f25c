"""From raw scores of the calibration split to a judge's map, threshold and escalation, and to what else could be promised."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from snapjudge.core.calibration import Calibration, SliceBy, band
from snapjudge.core.example import Example, length_of
from snapjudge.core.judgement import judge_of
from snapjudge.core.metric import Metric
from snapjudge.core.rules import ThresholdRule
from snapjudge.prove.calibrators import CalibrationData, fit_calibration, length_edges
from snapjudge.prove.figures import group_numbers
from snapjudge.prove.promises import Promise, agreement_promises, flagging_promises
from snapjudge.prove.thresholds import choose_escalation, choose_threshold

_FEWEST_GROUPS = 20  # in the calibration split, below which nothing is said of promises


@dataclass(frozen=True)
class _Held:
    """What a map says of examples: score, confidence, whether the label is right, whether the truth is flagged, and the group of each."""

    scores: list[float]
    confidence: list[float]
    right: list[bool]
    positive: list[bool]
    groups: list[int]


_EVEN = 0.02  # above an even share, and still no answer
_Fits = Callable[[bool], tuple[Calibration, _Held]]


@dataclass(frozen=True)
class CalibrationTerms:
    """What is calibrated by which rules; `prevalence` as shares of the labels, empty where none is stated."""

    metric: Metric
    examples: Sequence[Example]
    rule: ThresholdRule | None
    escalation: ThresholdRule | None
    prevalence: tuple[float, ...]
    by: SliceBy

    def calibrate(self, log_p: Sequence[tuple[float, ...]]) -> Calibration:
        """Map, threshold and escalation from the calibration split alone.

        A map of two labels keeps the order of scores, so map and a threshold on a rate both come from all of it. A map of more labels or by part may reorder
        scores by what it has seen of the labels, and a rule on cost or confidence holds for probabilities as they are; there the map comes from one half of
        the groups and the guarantee from the other.
        """
        return self._calibrated(self._fits(log_p))

    def calibrate_and_promise(self, log_p: Sequence[tuple[float, ...]]) -> tuple[Calibration, list[Promise]]:
        """The same, and what else could be promised."""
        fits = self._fits(log_p)
        return self._calibrated(fits), self._promised(fits)

    def all_but_even(self, log_p: Sequence[tuple[float, ...]], calibration: Calibration) -> bool:
        """Whether a map leaves nothing of any calibration example's answer: every label is about as likely as every other."""
        parts = [calibration.part_of(length_of(one.inputs), one.provenance.source) for one in self.examples]
        largest = max(max(calibration.apply(row, part)) for row, part in zip(log_p, parts, strict=True))
        return largest < 1 / len(self.metric.labels) + _EVEN

    def _fits(self, log_p: Sequence[tuple[float, ...]]) -> _Fits:
        """The map of all of the split, or of one half of it: each fitted once, where it is asked for."""
        return cache(lambda halved: self._fitted(log_p, halved=halved))

    def _calibrated(self, fits: _Fits) -> Calibration:
        halved = self.escalation is not None or (self.rule is not None and (self._reorders or self.rule.figure == "cost"))
        fitted, held = fits(halved)
        if self.escalation is not None:
            fitted = fitted.model_copy(update={"escalation": choose_escalation(held.confidence, held.right, held.groups, self.escalation)})
        if self.metric.positive_labels:
            fitted = fitted.model_copy(update={"threshold": choose_threshold(held.scores, held.positive, held.groups, self.rule)})
        return fitted

    def _promised(self, fits: _Fits) -> list[Promise]:
        """What could be promised; of agreement always from one half of the groups under a map from the other, and not at another prevalence."""
        groups = {example.group for example in self.examples}
        if len(groups) < _FEWEST_GROUPS:
            return []
        _, half = fits(True)
        _, rates = fits(self._reorders)
        found = flagging_promises(rates.scores, rates.positive, rates.groups) if self.metric.positive_labels else []
        return found if self.prevalence else [*found, *agreement_promises(half.confidence, half.right, half.groups)]

    @property
    def _reorders(self) -> bool:
        """Whether the map may reorder scores by what it has seen of the labels."""
        return len(self.metric.labels) > 2 or bool(self.by)

    def _fitted(self, log_p: Sequence[tuple[float, ...]], *, halved: bool) -> tuple[Calibration, "_Held"]:
        """A map, and what it says of the calibration examples (of the half it has not seen, if halved)."""
        examples, metric, by = self.examples, self.metric, self.by
        groups = group_numbers([example.group for example in examples]).tolist()
        labels = [example.label_index for example in examples]
        mapping, judging = ([i for i, group in enumerate(groups) if not halved or group % 2 == half] for half in (0, 1))
        lengths = [length_of(example.inputs) for example in examples]
        edges = length_edges(lengths) if by == "length" else ()
        parts = [band(length, edges) if by == "length" else example.provenance.source for length, example in zip(lengths, examples, strict=True)]
        data = CalibrationData(log_p, labels, groups, parts if by else ()).take(mapping)
        fitted = fit_calibration(data, metric.type, prevalence=self.prevalence, by=by, edges=edges)
        found = [judge_of("", metric, fitted, log_p[i], 1, fitted.part_of(lengths[i], examples[i].provenance.source)) for i in judging]
        truth = [metric.label_names[labels[i]] for i in judging]
        return fitted, _Held(
            [one.score for one in found],
            [one.confidence for one in found],
            [one.label == name for one, name in zip(found, truth, strict=True)],
            [name in metric.positive_labels for name in truth],
            [groups[i] for i in judging],
        )
