"""Near-duplicates: texts whose sets of character 5-grams overlap by a Jaccard similarity of 0.8 or more, found by MinHash and then checked exactly.

Case, spacing and punctuation do not count. Knows nothing of examples.
"""

import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

SIMILAR = 0.8
_GRAM = 5
_PERMUTATIONS = 64
_MOST = 20_000  # characters of one text that are looked at


def shingles(text: str) -> NDArray[np.uint64]:
    """Hashes of a text's distinct character 5-grams, sorted."""
    folded = unicodedata.normalize("NFKC", text[:_MOST]).casefold()
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


class NearIndex:
    """Texts by name; asked for one that is near a given text."""

    def __init__(self, threshold: float = SIMILAR) -> None:
        from datasketch import MinHash, MinHashLSH  # noqa: PLC0415 - an optional package

        self.threshold = threshold
        self._empty = MinHash(num_perm=_PERMUTATIONS, hashfunc=int)
        self._lsh = MinHashLSH(threshold=threshold, num_perm=_PERMUTATIONS, weights=(0.2, 0.8))  # a missed pair is worse than one checked in vain
        self._shingles: dict[int, NDArray[np.uint64]] = {}
        self._names: list[str] = []

    def near(self, text: str, *, add_as: str | None = None) -> tuple[str, float] | None:
        """The most similar text at or above the threshold, with its similarity.

        Args:
            add_as: add the text under this name if nothing is near it.
        """
        own = shingles(text)
        signature = self._empty.copy()
        signature.update_batch(own.tolist())
        best: tuple[str, float] | None = None
        for place in self._lsh.query(signature):
            found = similarity(own, self._shingles[place])
            if found >= self.threshold and (best is None or found > best[1]):
                best = self._names[place], found
        if best is None and add_as is not None:
            self._lsh.insert(len(self._names), signature)
            self._shingles[len(self._names)] = own.astype(np.uint32)
            self._names.append(add_as)
        return best


def near_groups(texts: Iterable[tuple[str, str]], threshold: float = SIMILAR) -> Iterator[tuple[str, str, float]]:
    """For (name, text) pairs: each that is near an earlier one, that one, and how similar they are."""
    index = NearIndex(threshold)
    for name, text in texts:
        found = index.near(text, add_as=name)
        if found is not None:
            yield name, *found
