"""Choosing what to label next: rows the judge is unsure of, rows on which versions differ, kinds of text that labels lack, and a random share.

The random share is drawn first and keeps the probability of its draw, so that rates estimated from it stay unbiased whatever else is labelled.
Knows scores and texts; nothing of files or of models.

N rows of traffic.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from snapjudge.core.frozen import Frozen
from snapjudge.curate.words import clusters, telling_words, word_matrix

Floats = NDArray[np.float64]
_STREAM = 20260101  # a stream of our own: the draw must not follow whatever else was made with the same seed
Reason = Literal["random", "uncertain", "disagreement", "drift"]


class Choice(Frozen):
    """One row to be labelled: why, how likely it was to be drawn (the random share alone), and a word on what was seen."""

    id: str
    reason: Reason
    probability: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Candidates:
    """Rows that could be labelled.

    Args:
        confidence: of the judge in each row [N].
        gap: how far two versions' scores are apart [N], where there are two.
        drawn: probability of the random share for each row [N]; it adds up to about the rows wanted.
        texts: of the rows, where known; `known_texts` are those that have labels.
        labelled: which rows have a label already [N]; they are drawn at random like others, but not chosen otherwise.
    """

    ids: Sequence[str]
    confidence: Floats
    drawn: Floats
    labelled: NDArray[np.bool_]
    gap: Floats | None = None
    texts: Sequence[str] | None = None
    known_texts: Sequence[str] = ()


def choose(rows: Candidates, count: int, *, seed: int = 0) -> list[Choice]:
    """The random share, then the other reasons in turn, until there are `count`."""
    rng = np.random.default_rng([seed, len(rows.ids), _STREAM])
    at_random = np.flatnonzero(rng.random(len(rows.ids)) < rows.drawn)
    found = {int(place): Choice(id=rows.ids[place], reason="random", probability=float(rows.drawn[place])) for place in at_random.tolist()}
    queues = [queue for queue in (_uncertain(rows), _apart(rows), _drifted(rows)) if queue is not None]
    free = set(np.flatnonzero(~rows.labelled).tolist()) - set(found)
    while len(found) < count and queues:
        for queue in list(queues):
            choice = next(((place, one) for place, one in queue if place in free), None)
            if choice is None:
                queues.remove(queue)
            elif len(found) < count:
                found[choice[0]] = choice[1]
                free.discard(choice[0])
    return list(found.values())


def _uncertain(rows: Candidates) -> Iterator[tuple[int, Choice]]:
    """The least confident first."""
    for place in np.argsort(rows.confidence, kind="stable").tolist():
        yield place, Choice(id=rows.ids[place], reason="uncertain", note=f"confidence {rows.confidence[place]:.2f}")


def _apart(rows: Candidates) -> Iterator[tuple[int, Choice]] | None:
    """The furthest apart first."""
    if rows.gap is None:
        return None
    gap = rows.gap
    order = [place for place in np.argsort(-gap, kind="stable").tolist() if gap[place] > 0]
    return ((place, Choice(id=rows.ids[place], reason="disagreement", note=f"scores {gap[place]:.2f} apart")) for place in order)


def _drifted(rows: Candidates) -> Iterator[tuple[int, Choice]] | None:
    """One after another from the kinds of text of which traffic has most for each labelled one."""
    if rows.texts is None:
        return None
    words = word_matrix([*rows.texts, *rows.known_texts])
    if words is None:
        return None
    matrix, columns = words
    belongs, apart = clusters(matrix)
    here = np.arange(len(belongs)) < len(rows.texts)
    kinds = range(int(belongs.max()) + 1)
    share = {kind: ((belongs == kind) & here).sum() / max(1, here.sum()) for kind in kinds}
    known = {kind: (((belongs == kind) & ~here).sum() + 1) / ((~here).sum() + len(kinds)) for kind in kinds}
    order = sorted((kind for kind in kinds if share[kind] > known[kind]), key=lambda kind: -share[kind] / known[kind])
    named = {kind: ", ".join(telling_words(matrix, columns, belongs == kind, 3)) for kind in order}
    members = {kind: [p for p in np.argsort(apart, kind="stable").tolist() if here[p] and belongs[p] == kind] for kind in order}
    return _in_turn(rows, order, members, {kind: f"{share[kind] / known[kind]:.1f} times as common as among labels: {named[kind]}" for kind in order})


def _in_turn(rows: Candidates, order: Sequence[int], members: dict[int, list[int]], notes: dict[int, str]) -> Iterator[tuple[int, Choice]]:
    for depth in range(max((len(some) for some in members.values()), default=0)):
        for kind in order:
            if depth < len(members[kind]):
                place = members[kind][depth]
                yield place, Choice(id=rows.ids[place], reason="drift", note=notes[kind])
