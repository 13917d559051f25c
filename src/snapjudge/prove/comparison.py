"""Two judges on the same examples: every figure's difference with a paired interval, McNemar's test, and the rows that changed. Knows nothing of models."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from snapjudge.core.example import Example, shortened, texts_of
from snapjudge.core.frozen import Frozen
from snapjudge.core.judgement import Judgement
from snapjudge.core.metric import Metric
from snapjudge.prove.figures import LOWER_IS_BETTER, Figure, Ints, Scored, figures, main_figure, paired

_SHOWN, _TEXT = 200, 400
_LEVEL = 0.05


class Difference(Frozen):
    """One figure of both judges, and the second less the first with its 95 % interval over paired draws of groups."""

    name: str
    first: Figure | None
    second: Figure | None
    difference: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


class ChangedRow(Frozen):
    """A row whose verdict differs between the two."""

    id: str
    where: str
    truth: str
    first: str
    second: str
    first_score: float
    second_score: float
    inputs: dict[str, str]


class Comparison(Frozen):
    """compare.json. `fixed` rows were wrong under the first judge and are right under the second, `broken` the other way.

    A verdict is flagged or not, else the label. `worse` are the figures whose interval lies on the wrong side of zero; among ten, one may do so by chance.
    """

    format: int = 1
    first: str
    second: str
    metric: str
    examples: int
    differences: tuple[Difference, ...]
    fixed: tuple[ChangedRow, ...]
    broken: tuple[ChangedRow, ...]
    both_wrong: int
    fixed_count: int
    broken_count: int
    mcnemar_p: float
    worse: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    main_figure: str

    @property
    def is_worse(self) -> bool:
        """Whether the second judge should not take the first's place: clearly worse in the main figure, or by McNemar's test."""
        return self.main_figure in self.worse or (self.mcnemar_p < _LEVEL and self.broken_count > self.fixed_count)

    @property
    def verdict(self) -> str:
        """One sentence on which is better."""
        told = f"{self.second} mends {self.fixed_count} rows and breaks {self.broken_count} of {self.examples} (McNemar by group, p = {self.mcnemar_p:.3f})"
        if self.mcnemar_p >= _LEVEL:
            return f"{told}: not told apart by their verdicts"
        return f"{told}: {'better' if self.fixed_count > self.broken_count else 'worse'} than {self.first}"


def compare_judges(
    names: tuple[str, str],
    arrays: tuple[Scored, Scored],
    judgements: tuple[Sequence[Judgement], Sequence[Judgement]],
    metric: Metric,
    examples: Sequence[Example],
    notes: Sequence[str] = (),
) -> Comparison:
    """Compare two judges' answers to the same examples."""
    both = [figures(one, metric) for one in arrays]
    gaps = paired(arrays[1], arrays[0], metric)
    differences = tuple(
        Difference(name=name, first=both[0].get(name), second=both[1].get(name), difference=gap.difference, low=gap.low, high=gap.high)
        for name, gap in gaps.items()
    )
    right = [[is_right(judgement, example, metric) for judgement, example in zip(some, examples, strict=True)] for some in judgements]
    changed = [place for place in range(len(examples)) if right[0][place] != right[1][place]]
    rows = {place: _row(examples[place], judgements[0][place], judgements[1][place], metric) for place in changed}
    fixed = [rows[place] for place in changed if right[1][place]]
    broken = [rows[place] for place in changed if right[0][place]]
    worse = [d.name for d in differences if d.clear and (d.difference > 0) == (d.name in LOWER_IS_BETTER)]
    return Comparison(
        first=names[0],
        second=names[1],
        metric=metric.name,
        examples=len(examples),
        differences=differences,
        fixed=tuple(fixed[:_SHOWN]),
        broken=tuple(broken[:_SHOWN]),
        fixed_count=len(fixed),
        broken_count=len(broken),
        both_wrong=int(sum(not a and not b for a, b in zip(*right, strict=True))),
        mcnemar_p=_by_group(right, arrays[0].groups),
        notes=tuple(notes),
        worse=tuple(worse),
        main_figure=main_figure(metric),
    )


def _by_group(right: Sequence[Sequence[bool]], groups: Ints) -> float:
    """McNemar's test with one toss a group: rows of one conversation are not independent, so each group counts by what it won or lost on balance."""
    gain = np.asarray(right[1], dtype=int) - np.asarray(right[0], dtype=int)
    _, member = np.unique(groups, return_inverse=True)
    net = np.bincount(member, weights=gain)
    return mcnemar(int((net > 0).sum()), int((net < 0).sum()))


def mcnemar(fixed: int, broken: int) -> float:
    """Exact two-sided McNemar test (McNemar, 1947): the changed rows as tosses of a fair coin."""
    return float(stats.binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0


def is_right(judgement: Judgement, example: Example, metric: Metric) -> bool:
    """Whether a verdict (flagged or not, else the label) is the example's."""
    truth = metric.label_names[example.label_index]
    return judgement.flagged == (truth in metric.positive_labels) if metric.positive_labels else judgement.label == truth


def _row(example: Example, first: Judgement, second: Judgement, metric: Metric) -> ChangedRow:
    def verdict(judgement: Judgement) -> str:
        return ("flagged" if judgement.flagged else "not flagged") if metric.positive_labels else judgement.label

    return ChangedRow(
        id=example.id,
        where=example.where,
        truth=metric.label_names[example.label_index],
        first=verdict(first),
        second=verdict(second),
        first_score=first.score,
        second_score=second.score,
        inputs={name: shortened(text, _TEXT) for name, text in texts_of(example.inputs).items()},
    )
