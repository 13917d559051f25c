"""Near-duplicates: texts whose sets of character 5-grams overlap by a Jaccard similarity of 0.8 or more, found by MinHash and then checked exactly.

Case, spacing and punctuation do not count, nor does what a good part of all texts share. Knows nothing of files or labels.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snapjudge.core.example import Example, Inputs, texts_of

SIMILAR = 0.8
_GRAM = 5
_PERMUTATIONS = 64
_MOST = 20_000  # characters of one field that are looked at
_COMMON, _SAMPLE, _FEWEST_FOR_COMMON, _FEWEST_OWN = 0.2, 2_000, 20, 12  # see `common_shingles`


def shingles(text: str) -> NDArray[np.uint64]:
    """Hashes of a text's distinct character 5-grams, sorted."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    plain = " ".join("".join(character if character.isalnum() else " " for character in folded).split())
    plain = plain or folded  # nothing but punctuation or emoji
    codes = np.frombuffer(plain.ljust(_GRAM).encode("utf-32-le", errors="replace"), dtype=np.uint32).astype(np.uint64)
    count = len(codes) - _GRAM + 1
    value = np.zeros(count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for place in range(_GRAM):
            value = value * np.uint64(0x9E3779B97F4A7C15) + codes[place : place + count]
        value ^= value >> np.uint64(31)
        value *= np.uint64(0xBF58476D1CE4E5B9)
    found: NDArray[np.uint64] = np.unique((value >> np.uint64(32)).astype(np.uint64))
    return found


def similarity(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> float:
    """Jaccard similarity of two sets of shingles."""
    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / (len(first) + len(second) - both)


def near_text(inputs: Inputs) -> str:
    """The text by which examples are compared: the beginning of every field, so that a long one does not hide the others."""
    return "\n".join(text[:_MOST] for text in texts_of(inputs).values())


def common_shingles(texts: Sequence[str]) -> NDArray[np.uint64]:
    """Shingles that a good part of the texts have: a shared context, tool list or template makes no two of them near each other."""
    step = max(1, len(texts) // _SAMPLE)
    some = [shingles(text) for text in texts[::step][:_SAMPLE]]
    if len(some) < _FEWEST_FOR_COMMON:
        return np.empty(0, dtype=np.uint64)
    values, counts = np.unique(np.concatenate(some), return_counts=True)
    found: NDArray[np.uint64] = values[counts >= max(10, _COMMON * len(some))]
    return found


class NearIndex:
    """Texts by name; asked for the one that is nearest to a given text.

    Args:
        common: shingles that do not count, unless a text has hardly any others.
    """

    def __init__(self, common: NDArray[np.uint64] | None = None, threshold: float = SIMILAR) -> None:
        from datasketch import MinHash, MinHashLSH  # noqa: PLC0415 - an optional package

        self.threshold = threshold
        self._common = np.empty(0, dtype=np.uint64) if common is None else common
        self._empty = MinHash(num_perm=_PERMUTATIONS, hashfunc=int)
        self._lsh = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, weights=(0.2, 0.8))  # a missed pair is worse than one checked in vain
        self._shingles: list[NDArray[np.uint64]] = []
        self._names: list[str] = []

    def add(self, name: str, text: str) -> None:
        """Keep a text under a name."""
        own, signature = self._look(text)
        self._lsh.insert(len(self._names), signature)
        self._shingles.append(own.astype(np.uint32))
        self._names.append(name)

    def near(self, text: str) -> tuple[str, float] | None:
        """The most similar text at or above the threshold, with its similarity."""
        own, signature = self._look(text)
        best: tuple[str, float] | None = None
        for place in self._lsh.query(signature):
            found = similarity(own, self._shingles[place])
            if found >= self.threshold and (best is None or found > best[1]):
                best = self._names[place], found
        return best

    def _look(self, text: str) -> tuple[NDArray[np.uint64], Any]:
        whole = shingles(text)
        own = np.setdiff1d(whole, self._common, assume_unique=True)
        own = own if len(own) >= _FEWEST_OWN else whole
        signature = self._empty.copy()
        signature.update_batch(own.tolist())
        return own, signature


def index_of(examples: Iterable[Example], common: NDArray[np.uint64] | None = None) -> NearIndex:
    """An index of all of some examples, by id."""
    index = NearIndex(common)
    for example in examples:
        index.add(example.id, near_text(example.inputs))
    return index


def near_groups(texts: Sequence[tuple[str, str]], threshold: float = SIMILAR) -> Iterator[tuple[str, str, float]]:
    """For (name, text) pairs: each that is near an earlier one, that one, and how similar they are. A text that is near one is not compared with later ones."""
    index = NearIndex(common_shingles([text for _, text in texts]), threshold)
    for name, text in texts:
        found = index.near(text)
        if found is None:
            index.add(name, text)
        else:
            yield name, *found
