"""Which rows a built-in judge learns from: as many of every label as there can be, from many sources, length and source matched where those would tell."""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from snapjudge.core.example import length_of

JsonRow = dict[str, Any]
_Part = TypeVar("_Part", str, int)
_COUNTS_AS = 3


def balanced(rows: Sequence[JsonRow], count: int, rng: random.Random) -> list[JsonRow]:
    """Up to `count` rows, labels as even as they can be, and within a label the sources by the root of their size."""
    return _shuffled(_even(rows, count, Counter(), rng), rng)


def matched(rows: Sequence[JsonRow], count: int, rng: random.Random, label: str, *, by_source: bool = True) -> list[JsonRow]:
    """Up to `count` rows, of which `label` has the same share at every length, and (`by_source`) there in every source that has it and others.

    Of two labels it has a half; beside many it counts as three of them, since most of what is read is of it. Lengths (in octaves of letters) that it or all
    others lack are left out; what is short in one octave is made up for in others, by the root of what they have. Half of an octave's rows are of sources that
    have both, as far as there are.
    """
    others = len({row["label"] for row in rows}) - 1
    sides = 1 if others == 1 else _COUNTS_AS, others
    octaves: dict[int, list[JsonRow]] = {}
    for row in rows:
        octaves.setdefault(int(math.log2(max(length_of(row["inputs"]), 1))), []).append(row)
    cells = {octave: _Cell(found, label, sides, by_source=by_source) for octave, found in octaves.items()}
    shares, have = _shares({octave: cell.most for octave, cell in cells.items()}, count // sum(sides)), Counter[str]()
    return _shuffled([row for octave, share in shares.items() for row in cells[octave].chosen(share, have, rng)], rng)


class _Cell:
    """The rows of one length: those of one label and those of the others, by source. They are taken in units of so many of each side."""

    def __init__(self, rows: Sequence[JsonRow], label: str, sides: tuple[int, int], *, by_source: bool) -> None:
        self.sides = sides
        both: dict[str, tuple[list[JsonRow], list[JsonRow]]] = {}
        for row in rows:
            both.setdefault(row["meta"]["source"], ([], []))[row["label"] != label].append(row)
        self.common = {source: pair for source, pair in both.items() if by_source and all(pair)}
        self.units = {source: self._units(pair) for source, pair in self.common.items()}
        alone = [pair for source, pair in both.items() if source not in self.common]
        self.alone = [row for own, _ in alone for row in own], [row for _, rest in alone for row in rest]
        self.units_alone = self._units(self.alone)
        self.most = sum(self.units.values()) + self.units_alone

    def _units(self, pair: tuple[list[JsonRow], list[JsonRow]]) -> int:
        return min(len(rows) // side for rows, side in zip(pair, self.sides, strict=True))

    def chosen(self, units: int, have: Counter[str], rng: random.Random) -> list[JsonRow]:
        """So many units: half of sources with both sides, more where the others have too little; labels, with those chosen before, as even as can be."""
        own, rest = self.sides
        found: list[JsonRow] = []
        shares = _shares(self.units, max(units // 2, units - self.units_alone))
        for source, share in shares.items():
            found += [*rng.sample(self.common[source][0], share * own), *_even(self.common[source][1], share * rest, have, rng)]
        left = min(units - sum(shares.values()), self.units_alone)
        return [*found, *_of_sources(self.alone[0], left * own, rng), *_even(self.alone[1], left * rest, have, rng)]


def _shuffled(rows: list[JsonRow], rng: random.Random) -> list[JsonRow]:
    rng.shuffle(rows)
    return rows


def _even(rows: Sequence[JsonRow], count: int, have: Counter[str], rng: random.Random) -> list[JsonRow]:
    """Up to `count` rows, with which all that is had by label comes as near to even as it can; what is chosen is added to it."""
    by_label: dict[str, list[JsonRow]] = {}
    for row in rows:
        by_label.setdefault(row["label"], []).append(row)
    shares: Counter[str] = Counter()
    for _ in range(min(count, len(rows))):
        left = [label for label in by_label if shares[label] < len(by_label[label])]
        label = min(left, key=lambda label: (have[label], -len(by_label[label])))
        shares[label] += 1
        have[label] += 1
    order = sorted(by_label, key=lambda label: len(by_label[label]))
    return [row for label in order for row in _of_sources(by_label[label], shares[label], rng)]


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
