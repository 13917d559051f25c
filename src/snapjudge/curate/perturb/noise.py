"""Noise that must not change a verdict: case, typos, look-alike letters, spacing, chat templates, padding, neutral sentences around. Knows texts only."""

import random
import re
from collections.abc import Callable, Mapping
from typing import Any

from snapjudge.curate.perturb.neutral import NEUTRAL

Noise = Callable[[str, random.Random], str]
_TYPO_SHARE, _LOOKALIKE_SHARE = 0.04, 0.15
_NEIGHBOURS = dict(zip("qwertyuiopasdfghjklzxcvbnm", "wertyuioptsdfghjklkxcvbnmn", strict=True))
_LOOKALIKES = dict(zip("aceijopsxyABCEHIKMOPTX", "асеіјорѕхуАВСЕНІКМОРТХ", strict=True))  # noqa: RUF001 - Cyrillic on purpose
_TEMPLATES = (
    ("### Response:\n", ""),
    ("<|im_start|>assistant\n", "<|im_end|>"),
    ("[INST] ", " [/INST]"),
    ("Assistant: ", ""),
    ("```\n", "\n```"),
    ("<s>", "</s>"),
)
_BEFORE = ("Message received at the front desk this morning:\n\n", "Ticket 4417, second page.\n\n", "The following text was copied from a document.\n\n")
_AFTER = ("\n\nEnd of the message.", "\n\nPage 2 of 2.", "\n\n--\nSent from a mobile phone")
_LINE = re.compile(r"(?<=[.!?]) +")


def upper(text: str, _: random.Random) -> str:
    """All capitals."""
    return text.upper()


def lower(text: str, _: random.Random) -> str:
    """No capitals."""
    return text.lower()


def typos(text: str, rng: random.Random) -> str:
    """Letters swapped, dropped, doubled or hit beside the key, about one in twenty-five; digits stay."""
    letters = list(text)
    spots = [place for place, letter in enumerate(letters[:-1]) if letter.isalpha() and letters[place + 1].isalpha()]
    for place in rng.sample(spots, min(len(spots), max(1, round(len(spots) * _TYPO_SHARE)))) if spots else ():
        kind, letter = rng.randrange(4), letters[place]
        if kind == 0:
            letters[place], letters[place + 1] = letters[place + 1], letters[place]
        else:
            letters[place] = ("", letter * 2, _NEIGHBOURS.get(letter, letter * 2))[kind - 1]
    return "".join(letters)


def lookalikes(text: str, rng: random.Random) -> str:
    """Some Latin letters as Cyrillic ones that look the same."""
    return "".join(_LOOKALIKES[letter] if letter in _LOOKALIKES and rng.random() < _LOOKALIKE_SHARE else letter for letter in text)


def spacing(text: str, rng: random.Random) -> str:
    """Doubled and no-break spaces, and a space before some punctuation."""
    spaced = "".join((rng.choice(("  ", "\u00a0", " ", " ", " ")) if letter == " " else letter) for letter in text)
    return f" {spaced} \n"


def line_breaks(text: str, _: random.Random) -> str:
    """Every sentence on a line of its own."""
    return _LINE.sub("\n", text)


def template(text: str, rng: random.Random) -> str:
    """Within the tags of a chat template."""
    before, after = rng.choice(_TEMPLATES)
    return f"{before}{text}{after}"


def padding_before(text: str, rng: random.Random) -> str:
    """A neutral line before."""
    return rng.choice(_BEFORE) + text


def padding_after(text: str, rng: random.Random) -> str:
    """A neutral line after."""
    return text + rng.choice(_AFTER)


def diluted(inputs: Mapping[str, Any], rng: random.Random, most: int = 12) -> dict[str, Any]:
    """Neutral sentences before and after one text, fewer than `most` on each side."""
    changed = dict(inputs)
    for name in touchable(inputs, adds=True)[-1:]:
        before, after = (" ".join(rng.choices(NEUTRAL, k=rng.randrange(most))) for _ in range(2))
        changed[name] = f"{before}\n{inputs[name]}\n{after}".strip()
    return changed


def noisy_fields(inputs: Mapping[str, Any], kind: str, rng: random.Random) -> dict[str, Any]:
    """One kind of noise in the texts whose verdict it leaves alone."""
    return {**inputs, **{name: NOISES[kind](inputs[name], rng) for name in touchable(inputs, adds=kind in _ADD)}}


def touchable(inputs: Mapping[str, Any], *, adds: bool) -> list[str]:
    """The text fields that noise may change: no tools and no call of one, which are read to the letter; and noise that adds words goes into the context where
    there is one, for an answer must not say more than that.
    """
    exact = ("tools", "output") if "tools" in inputs else ()
    texts = [name for name, value in inputs.items() if isinstance(value, str) and name not in exact]
    return ["context"] if adds and "context" in texts else texts


NOISES: dict[str, Noise] = {
    "upper case": upper,
    "lower case": lower,
    "typos": typos,
    "look-alike letters": lookalikes,
    "spacing": spacing,
    "line breaks": line_breaks,
    "template tags": template,
    "padding before": padding_before,
    "padding after": padding_after,
}
_ADD = ("padding before", "padding after")
