"""What a score rests on: the parts of a text that move it most, each left out once. Every part is an exact figure: the score of the text without it.

A text without a sentence is read anew. Leaving the sentence's states out of the readout's sight instead would share one reading, and tell less: under
attention in both directions, and for all that comes after it, the other states have seen it already.
"""

import re
from collections.abc import Sequence

from snapjudge.core.api import Answer, Item, Moved, Reasoning
from snapjudge.live.judges import LiveJudges
from snapjudge.live.judging import Asked, InputsOf, Spent, as_given

MOST_PARTS = 16  # of one text; neighbours are taken together where there are more
SHOWN = 5
_SENTENCE = re.compile(r"\S.*?(?:[.!?]+[\"')\]]*(?=\s)|[\u3002\uff01\uff1f]|\n|$)", re.DOTALL)
_WORD = re.compile(r"\S+")


def parts_of(text: str) -> list[tuple[int, int]]:
    """A text's sentences as places; its words in equal shares where it has but one."""
    spans = [one.span() for one in _SENTENCE.finditer(text)]
    if len(spans) < 2:
        spans = [one.span() for one in _WORD.finditer(text)]
    size = -(-len(spans) // MOST_PARTS)
    return [(spans[at][0], spans[min(at + size, len(spans)) - 1][1]) for at in range(0, len(spans), size)] if spans else []


async def with_evidence(
    judges: LiveJudges, item: Item, asked: Asked, answers: Sequence[Answer], *, deadline: float | None = None, inputs_of: InputsOf = as_given
) -> tuple[list[Answer], Spent]:
    """The answers of trained judges about one item, each with what it rests on; open questions and abstentions stay as they are.

    Raises:
        As `LiveJudges.answer`.
    """
    spent = Spent()
    found = list(answers)
    by_field: dict[str, list[int]] = {}
    for place, _, judge in asked.judges:
        field = judge.metric.place_of_text()
        if answers[place].score is not None and answers[place].reasoning is None and isinstance(inputs_of(item, judge.metric).get(field), str):
            by_field.setdefault(field, []).append(place)
    for field, places in by_field.items():
        some = Asked(tuple((at, name, judge) for at, (_, name, judge) in enumerate(one for one in asked.judges if one[0] in places)))
        text = str(inputs_of(item, some.judges[0][2].metric)[field])
        spans = parts_of(text)
        if len(spans) < 2:
            continue
        without = [Item(inputs={"input": text[:start] + text[end:]}, source=item.source) for start, end in spans]
        results, part = await judges.answer(without, some, deadline=deadline, inputs_of=_in(inputs_of, item, field))
        spent.join(part)
        for at, place in enumerate(one for one, _, _ in asked.judges if one in places):
            own = answers[place]
            moved = [
                Moved(text=text[start:end], start=start, end=end, moved=round((own.score or 0.0) - score, 6))
                for (start, end), result in zip(spans, results, strict=True)
                if (score := result.answers[at].score) is not None
            ]
            strongest = sorted(moved, key=lambda one: -abs(one.moved))[:SHOWN]
            found[place] = own.model_copy(update={"reasoning": Reasoning(by="evidence", field=field, parts=tuple(strongest))})
    return found, spent


def _in(inputs_of: InputsOf, item: Item, field: str) -> InputsOf:
    """The item's own inputs, with another text in one field."""
    return lambda one, metric: {**inputs_of(item, metric), field: one.inputs["input"]}
