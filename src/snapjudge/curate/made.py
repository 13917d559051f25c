"""Rows made for a mixture: templates filled in, sentences copied out of contexts, requests paired with a scope. Knows texts only."""

import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from snapjudge.curate.perturb.personal import People
from snapjudge.curate.recipe import SLOT, Templates

_SENTENCE = re.compile(r"(?<=[.!?;])\s+")
_PER_TEMPLATE = 200
_SHORTEST, _LONGEST = 20, 300  # letters of a sentence that is copied
_SCOPES = (
    "This assistant helps with: {}.",
    "The bot answers questions about {}.",
    "You are a support agent for {}.",
    "Topics: {}.",
    "Only handle requests about {}.",
    "Scope of the service: {}.",
)

MadeRow = tuple[dict[str, Any], bool, str]  # inputs, whether the answer is yes, group


def expanded(templates: Templates, seed: int) -> list[tuple[int, dict[str, Any], str, str]]:
    """Every template filled in up to 200 ways: (template number, inputs, label, category)."""
    found: dict[str, tuple[int, dict[str, Any], str, str]] = {}
    people = People(seed)
    for number, template in enumerate(templates.rows):
        rng = random.Random(f"{seed}:{number}")  # noqa: S311 - reproducible data

        def fill(match: re.Match[str], rng: random.Random = rng) -> str:
            slot = match.group(1)
            if slot is None:
                return match.group()[0]
            return SLOT.sub(fill, rng.choice(templates.slots[slot])) if slot in templates.slots else people.invented(templates.invented[slot])

        for _ in range(_PER_TEMPLATE):
            inputs: dict[str, Any] = {name: _tidy(SLOT.sub(fill, text)) for name, text in template.inputs.items()}
            found.setdefault(str(inputs), (number, inputs, template.label, template.category))
    return list(found.values())


def _tidy(text: str) -> str:
    """One space between words, a capital at the beginning."""
    joined = re.sub(r" {2,}", " ", text).strip()
    return joined[:1].upper() + joined[1:]


def copied(parents: Sequence[tuple[Mapping[str, Any], str]], count: int, rng: random.Random) -> list[MadeRow]:
    """Sentences of a context as its output, which it supports; and sentences of other contexts, which it does not."""
    contexts = [(str(inputs["context"]), group) for inputs, group in parents if inputs.get("context")]
    sentences = [[part for part in _SENTENCE.split(text) if _SHORTEST <= len(part) <= _LONGEST] for text, _ in contexts]
    usable = [place for place, parts in enumerate(sentences) if len(parts) > 1]
    rows: list[MadeRow] = []
    for number in range(count if len(usable) > 1 else 0):
        place = rng.choice(usable)
        context, group = contexts[place]
        if number % 2:
            rows.append(({"context": context, "output": rng.choice(sentences[place])}, True, group))
            continue
        other = rng.choice(usable)
        foreign = rng.choice(sentences[other])
        if foreign not in context:
            rows.append(({"context": context, "output": foreign}, False, group))
    return rows


def scoped(topics: Sequence[tuple[str, str, str]], count: int, rng: random.Random) -> list[MadeRow]:
    """Requests with a stated scope that holds their topic (the answer to "off topic?" is no) or does not (yes)."""
    names = sorted({topic for _, topic, _ in topics})
    rows: list[MadeRow] = []
    for number in range(count if len(names) > 2 else 0):
        text, topic, group = rng.choice(topics)
        others = rng.sample([name for name in names if name != topic], min(len(names) - 1, rng.randint(2, 9)))
        off = bool(number % 2)
        listed = others if off else rng.sample([topic, *others[1:]], len(others))
        rows.append(({"context": rng.choice(_SCOPES).format(", ".join(listed)), "input": text}, off, group))
    return rows
