"""The language of texts, by py3langid. Short texts are often misread, and are not told."""

from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

import numpy as np

FEWEST_LETTERS = 20  # below which no language is told
LOOKED_AT = 2000  # characters of a text
SAMPLE = 2000  # texts of many
SHARE = 0.02  # of texts, from which on a language counts as one that a judge was proved on
SURE, POSSIBLE = 0.9, 0.05  # of the found language; of one that is proved, from which on a text may be in it


def tells(text: str) -> bool:
    """Whether there is enough of a text to tell its language."""
    return sum(character.isalpha() for character in text[:LOOKED_AT]) >= FEWEST_LETTERS


def language_of(text: str) -> str:
    """The likeliest language, as an ISO 639-1 code."""
    return str(_identifier().classify(text[:LOOKED_AT])[0])


def languages_of(texts: Sequence[str]) -> dict[str, float]:
    """The shares of languages among texts that tell theirs, the largest first; those of a fixed sample where there are many."""
    long = [text for text in texts if tells(text)]
    if len(long) > SAMPLE:
        long = [long[place] for place in np.sort(np.random.default_rng(0).choice(len(long), SAMPLE, replace=False))]
    counts = Counter(language_of(text) for text in long)
    return {name: count / len(long) for name, count in counts.most_common()}


def foreign(text: str, proved: Collection[str]) -> str:
    """The language of a text, where that is none that a judge was proved on; empty where it is, may be, or cannot be told."""
    if not proved or not tells(text):
        return ""
    ranked = dict(_identifier().rank(text[:LOOKED_AT]))
    best = max(ranked, key=lambda name: ranked[name])
    if best in proved or ranked[best] < SURE or any(ranked.get(name, 0.0) >= POSSIBLE for name in proved):
        return ""
    return str(best)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415 - its model takes a moment

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
