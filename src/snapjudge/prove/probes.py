"""Probes: does the verdict stay when it should (noise, padding, another wording of the question), and move when it should (contrast pairs)?

Makes the inputs and compares the judgements; whoever calls it does the judging. Knows nothing of models.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from snapjudge.core.example import Example
from snapjudge.core.frozen import Frozen
from snapjudge.core.judgement import Judgement
from snapjudge.core.metric import Metric
from snapjudge.curate.near import near_groups, near_text
from snapjudge.curate.perturb.noise import NOISES, noisy_fields, touchable
from snapjudge.prove.figures import Figure, group_numbers, share

Expect = Literal["stays", "moves", "told"]
ROWS = 100
_LONG, _LONG_ROWS = 4000, 50  # characters of neutral text around a row of the probe for long inputs
_NEUTRAL = (
    "The shelves on the second floor are labelled by year. A box of paper stands by the door. The clock in the hall was set last week. "
    "Two chairs are missing from the meeting room. The printer is on the left. "
)
STEADY = 0.03  # of verdicts that a probe may move
ABSURD: Mapping[str, str] = {
    "emoji only": "🙂🙃🙂 🚲🌧️",
    "one letter": "x",
    "digits": "31415926535 897932 38462643",
    "random letters": "qpzt wvoe rrgl kxjh aslq mmbd eotr",
    "markup": "<div><p>&nbsp;</p></div>",
    "code": "for i in range(10):\n    print(i * i)",
    "filler": "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor.",
    "German": "Die Bibliothek öffnet am Montag um neun Uhr, und der Eintritt ist frei.",
    "French": "La bibliothèque ouvre lundi à neuf heures et l'entrée est gratuite.",
    "Spanish": "La biblioteca abre el lunes a las nueve y la entrada es gratuita.",
    "Polish": "Biblioteka otwiera w poniedziałek o dziewiątej, a wstęp jest bezpłatny.",
    "Turkish": "Kütüphane pazartesi saat dokuzda açılıyor ve giriş ücretsiz.",  # noqa: RUF001 - Turkish letters
    "Arabic": "تفتح المكتبة يوم الاثنين الساعة التاسعة والدخول مجاني.",
    "Chinese": "图书馆星期一九点开门，免费入场。",  # noqa: RUF001 - Chinese punctuation
    "Hindi": "पुस्तकालय सोमवार को नौ बजे खुलता है और प्रवेश निःशुल्क है।",
}


class ProbeRow(Frozen):
    """A row whose verdict moved although it should have stayed: scores before and after."""

    id: str
    before: float
    after: float


class Probe(Frozen):
    """One probe: what was done, how many rows it was done to, and how often the verdict moved (or, of pairs, was right on both)."""

    name: str
    expect: Expect
    rows: int
    rate: Figure | None
    shift: float = 0.0
    moved: tuple[ProbeRow, ...] = ()
    note: str = ""

    @property
    def fine(self) -> bool:
        """Whether it is what one would want: at most 3 % of verdicts moved."""
        return self.expect != "stays" or self.rate is None or self.rate.value <= STEADY


@dataclass(frozen=True)
class Variant:
    """Changed inputs of some rows under one name."""

    name: str
    places: tuple[int, ...]
    inputs: tuple[dict[str, Any], ...]


def chosen(examples: Sequence[Example], count: int, seed: int = 0) -> list[Example]:
    """The rows that are probed: a fixed random part."""
    order = random.Random(seed).sample(range(len(examples)), min(count, len(examples)))  # noqa: S311 - a reproducible sample
    return [examples[place] for place in sorted(order)]


def variants(examples: Sequence[Example], metric: Metric, seed: int = 0) -> list[Variant]:
    """Rows with noise, and some of them within long text."""
    found = [_changed(name, examples, metric, _noise(name, seed)) for name in NOISES]
    found.append(_changed("long text around it", examples[:_LONG_ROWS], metric, lambda _row, inputs: amid_pages(inputs)))
    return [one for one in found if one.places]


def _changed(name: str, examples: Sequence[Example], metric: Metric, change: Callable[[str, Mapping[str, Any]], dict[str, Any]]) -> Variant:
    """The rows, changed; those that stay as they are are left out."""
    inputs: list[dict[str, Any]] = [{field: example.inputs[field] for field in metric.ordered_inputs if field in example.inputs} for example in examples]
    changed = {place: change(example.id, one) for place, (example, one) in enumerate(zip(examples, inputs, strict=True))}
    kept = {place: one for place, one in changed.items() if one != inputs[place]}
    return Variant(name, tuple(kept), tuple(kept.values()))


def _noise(name: str, seed: int) -> Callable[[str, Mapping[str, Any]], dict[str, Any]]:
    """One kind of noise, for each row its own."""
    return lambda row, inputs: noisy_fields(inputs, name, random.Random(f"{seed}:{name}:{row}"))  # noqa: S311 - reproducible


def amid_pages(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """One text in the middle of neutral text of several windows."""
    filler = _NEUTRAL * (_LONG // 2 // len(_NEUTRAL))
    return {**inputs, **{field: f"{filler}\n\n{inputs[field]}\n\n{filler}" for field in touchable(inputs, adds=True)[-1:]}}


def wordings(question: str) -> dict[str, str]:
    """The same question in other words."""
    plain = question.strip()
    return {
        "lower case": plain.lower(),
        "no question mark": plain.rstrip("?").rstrip(),
        "more words": f"Please decide: {plain[:1].lower()}{plain[1:]}",
    }


def compared(variant: Variant, examples: Sequence[Example], before: Sequence[Judgement], after: Sequence[Judgement], metric: Metric) -> Probe:
    """How often the verdict moved under a variant."""
    own = [before[place] for place in variant.places]
    moved = np.array([_verdict(a, metric) != _verdict(b, metric) for a, b in zip(own, after, strict=True)])
    groups = group_numbers([examples[place].group for place in variant.places])
    shift = float(np.mean([b.score - a.score for a, b in zip(own, after, strict=True)]))
    rows = [
        ProbeRow(id=examples[place].id, before=a.score, after=b.score)
        for place, a, b, flipped in zip(variant.places, own, after, moved, strict=True)
        if flipped
    ]
    return Probe(name=variant.name, expect="stays", rows=len(own), rate=share(moved, groups), shift=shift, moved=tuple(rows[:10]))


def _verdict(judgement: Judgement, metric: Metric) -> object:
    return judgement.flagged if metric.positive_labels else judgement.label


def neighbours(alone: Sequence[Judgement], together: Sequence[Judgement]) -> Probe:
    """The same rows asked one by one and in one batch: the scores must be equal to the last bit."""
    moved = np.array([a.probabilities != b.probabilities for a, b in zip(alone, together, strict=True)])
    rate = share(moved, np.arange(len(moved)))
    return Probe(name="batch neighbours", expect="stays", rows=len(moved), rate=rate, note="equal to the last bit" if not moved.any() else "scores differ")


def _unturned(before: Sequence[Judgement], swapped: Sequence[Judgement]) -> NDArray[np.bool_]:
    """Which verdicts do not change sides where the answers change places."""
    other = {"a": "b", "b": "a"}
    return np.array([other.get(a.label, a.label) != b.label for a, b in zip(before, swapped, strict=True)], dtype=bool)


def mirrored(examples: Sequence[Example], before: Sequence[Judgement], swapped: Sequence[Judgement]) -> Probe:
    """A pair with its answers in the other order: the verdict must change sides."""
    moved = _unturned(before, swapped)
    return Probe(name="answers in the other order", expect="stays", rows=len(moved), rate=share(moved, group_numbers([e.group for e in examples])))


def position_bias(examples: Sequence[Example], given: Sequence[Judgement], swapped: Sequence[Judgement]) -> Probe:
    """Pairs asked once in each order: how often the place of an answer decides, which asking both orders and averaging takes away."""
    turned = _unturned(given, swapped)
    first = np.mean([one.label == "a" for one in (*given, *swapped)]) if given else 0.0
    note = f"verdicts that turn with the order where it is asked in one only; the first place wins {first:.0%}. The judge asks both"
    return Probe(name="position bias of one order", expect="told", rows=len(turned), rate=share(turned, group_numbers([e.group for e in examples])), note=note)


def contrast(examples: Sequence[Example], judgements: Sequence[Judgement], metric: Metric) -> Probe | None:
    """Pairs that look alike and have different labels: of one stated group, or near duplicates. The rate is that of pairs with both verdicts right."""
    by_group: dict[str, list[int]] = defaultdict(list)
    for place, example in enumerate(examples):
        if example.provenance.group:
            by_group[example.provenance.group].append(place)
    pairs = {(a, b) for members in by_group.values() if len(members) <= 10 for a in members for b in members if a < b}
    near = near_groups([(str(place), near_text(example.inputs)) for place, example in enumerate(examples)], 0.6)
    pairs |= {(min(int(a), int(b)), max(int(a), int(b))) for a, b, _ in near}
    apart = sorted((a, b) for a, b in pairs if examples[a].label_index != examples[b].label_index)
    if not apart:
        return None
    names = metric.label_names
    right = [judgement.label == names[example.label_index] for example, judgement in zip(examples, judgements, strict=True)]
    both = np.array([right[a] and right[b] for a, b in apart])
    groups = group_numbers([examples[a].group for a, _ in apart])
    return Probe(name="look-alike pairs of different labels", expect="moves", rows=len(apart), rate=share(both, groups), note="pairs with both labels right")


def absurd_inputs(metric: Metric) -> list[dict[str, Any]]:
    """The absurd texts as inputs of the metric, each in all its text fields; empty where it reads messages or tools."""
    if not all(name in ("context", "input", "output", "a", "b") for name in metric.needed_inputs):
        return []
    return [dict.fromkeys(metric.needed_inputs, text) for text in ABSURD.values()]


def absurd(judgements: Sequence[Judgement], metric: Metric) -> Probe | None:
    """What the judge says of inputs that nobody would send: told, not judged."""
    if not judgements:
        return None
    flagged = [name for name, judgement in zip(ABSURD, judgements, strict=True) if judgement.flagged]
    told = (
        f"flagged: {', '.join(flagged)}"
        if flagged
        else "none flagged"
        if metric.positive_labels
        else f"labels: {', '.join(sorted({j.label for j in judgements}))}"
    )
    return Probe(name="absurd inputs and other languages", expect="told", rows=len(judgements), rate=None, note=told)
