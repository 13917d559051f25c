"""Questions about a text that a program can answer: asked in training so that the question is read, not guessed from the text."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_WORD = re.compile(r"[A-Za-z]{4,}")
_LENGTHS = (5, 8, 12, 20, 30, 50, 80)
Answered = tuple[str, bool]


def surface_question(inputs: Mapping[str, Any], words: Sequence[str], rng: random.Random) -> Answered:
    """A question about the last text field and whether the answer is yes.

    Args:
        words: words of other texts, to ask about in vain.
    """
    name = next((one for one in reversed(list(inputs)) if isinstance(inputs[one], str)), next(iter(inputs)))
    return rng.choice(_KINDS)(name, str(inputs[name]), words, rng)


def _mentions(name: str, text: str, words: Sequence[str], rng: random.Random) -> Answered:
    own = _WORD.findall(text)
    if own and rng.random() < 0.5:
        return f"Does the {name} contain the word {rng.choice(own).lower()}?", True
    word = rng.choice(words) if words else "lantern"
    return f"Does the {name} contain the word {word.lower()}?", word.lower() in text.lower()


def _starts(name: str, text: str, _words: Sequence[str], rng: random.Random) -> Answered:
    own = text.split()
    word = own[0] if rng.random() < 0.5 or len(own) == 1 else rng.choice(own)
    return f"Does the {name} begin with {word.lower()}?", word.lower() == own[0].lower()


def _longer(name: str, text: str, _words: Sequence[str], rng: random.Random) -> Answered:
    own = len(text.split())
    limit = rng.choice(_LENGTHS)
    return f"Does the {name} have more than {limit} words?", own > limit


def _digits(name: str, text: str, _words: Sequence[str], _rng: random.Random) -> Answered:
    return f"Is there a number in the {name}?", any(letter.isdigit() for letter in text)


def _asks(name: str, text: str, _words: Sequence[str], _rng: random.Random) -> Answered:
    return f"Does the {name} have a question mark?", "?" in text


_KINDS: tuple[Callable[[str, str, Sequence[str], random.Random], Answered], ...] = (_mentions, _mentions, _mentions, _starts, _longer, _digits, _asks)
