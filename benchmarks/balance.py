"""Which rows a built-in judge learns from: as many of every label as there can be, from many sources, and of the same lengths where length would tell."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from snapjudge.core.example import length_of

JsonRow = dict[str, Any]
_Part = TypeVar("_Part", str, int)
_COUNTS_AS = 3


def balanced(rows: Sequence[JsonRow], count: int, rng: random.Random) -> list[JsonRow]:
    """Up to `count` rows, labels as even as they can be, and within a label the sources by the root of their size."""
    return _shuffled(_even(rows, count, rng), rng)


def matched(rows: Sequence[JsonRow], count: int, rng: random.Random, label: str) -> list[JsonRow]:
    """Up to `count` rows, of which `label` has the same share at every length, so that length alone does not tell it.

    Of two labels it has a half; beside many it counts as three of them, since most of what is read is of it. Lengths (in octaves of letters) that it or all
    others lack are left out; what is short in one octave is made up for in others, by the root of what they have.
    """
    others = len({row["label"] for row in rows}) - 1
    counts_as = 1 if others == 1 else _COUNTS_AS
    cells: dict[int, tuple[list[JsonRow], list[JsonRow]]] = {}
    for row in rows:
        octave = int(math.log2(max(length_of(row["inputs"]), 1)))
        cells.setdefault(octave, ([], []))[row["label"] != label].append(row)
    most = {octave: min(len(own) // counts_as, len(rest) // others) for octave, (own, rest) in cells.items()}
    chosen: list[JsonRow] = []
    for octave, share in _shares(most, count // (others + counts_as)).items():
        own, rest = cells[octave]
        chosen += [*_of_sources(own, share * counts_as, rng), *_even(rest, share * others, rng)]
    return _shuffled(chosen, rng)


def _shuffled(rows: list[JsonRow], rng: random.Random) -> list[JsonRow]:
    rng.shuffle(rows)
    return rows


def _even(rows: Sequence[JsonRow], count: int, rng: random.Random) -> list[JsonRow]:
    by_label: dict[str, list[JsonRow]] = {}
    for row in rows:
        by_label.setdefault(row["label"], []).append(row)
    chosen: list[JsonRow] = []
    for position, label in enumerate(sorted(by_label, key=lambda label: len(by_label[label]))):
        chosen += _of_sources(by_label[label], (count - len(chosen)) // (len(by_label) - position), rng)
    return chosen


def _of_sources(rows: Sequence[JsonRow], count: int, rng: random.Random) -> list[JsonRow]:
    """Rows of some sources, small ones whole, large ones by the root of their size."""
    sources: dict[str, list[JsonRow]] = {}
    for row in rows:
        sources.setdefault(row["meta"]["source"], []).append(row)
    shares = _shares({source: len(some) for source, some in sources.items()}, count)
    return [row for source, share in shares.items() for row in rng.sample(sources[source], share)]


def _shares(sizes: Mapping[_Part, int], count: int) -> dict[_Part, int]:
    """How many of each part's rows are taken, by the root of its size; what a small part lacks goes to the larger ones."""
    shares: dict[_Part, int] = {}
    names = sorted(sizes, key=lambda name: sizes[name])
    for position, name in enumerate(names):
        weights = [max(sizes[other], 1) ** 0.5 for other in names[position:]]
        shares[name] = min(round((count - sum(shares.values())) * weights[0] / sum(weights)), sizes[name])
    return shares
