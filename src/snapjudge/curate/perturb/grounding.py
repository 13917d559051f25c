"""Corruptions of a grounded answer: one fact of it is changed, so that its context no longer supports it. Knows texts only."""

import random
import re
from collections.abc import Callable, Sequence

Corruption = Callable[[str, str, Sequence[str], random.Random], str | None]
_NUMBER = re.compile(r"(?<![\w.])\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?<![\w.])\d+(?:\.\d+)?(?![\w])")
_MONTHS = ["January", "February", "March", "April", "June", "July", "August", "September", "October", "November", "December"]  # May is a verb, too
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_DATED = re.compile(rf"\b({'|'.join((*_MONTHS, *_DAYS))})\b")
_YEAR = re.compile(r"\b(1[5-9]\d\d|20\d\d)\b")
_UNITS = (
    *(("km", "miles"), ("kilometers", "miles"), ("kilometres", "miles"), ("meters", "feet"), ("metres", "feet"), ("kg", "pounds"), ("grams", "ounces")),
    *(("minutes", "hours"), ("days", "weeks"), ("months", "years"), ("million", "billion"), ("thousand", "million"), ("percent", "percentage points")),
    *(("Celsius", "Fahrenheit"), ("liters", "gallons"), ("dollars", "euros"), ("morning", "evening"), ("north", "south"), ("east", "west")),
    *(("first", "last"), ("before", "after"), ("more", "less"), ("increased", "decreased"), ("highest", "lowest")),
)
_SWAPS = {**dict(_UNITS), **{b: a for a, b in _UNITS}}
_UNIT = re.compile(rf"\b({'|'.join(map(re.escape, _SWAPS))})\b(?!['\u2019])")
_NEGATED = re.compile(
    r"\b(ca|wo)n['\u2019]t\b|\b(is|are|was|were|could|would|has|have|had|does|did|do|should|must)(?:n['\u2019]t| not)\b"
    r"|\b(can|will|may) not\b|\bcannot\b|\bnever \b",
    re.IGNORECASE,
)
_PLAIN = re.compile(r"\b(is|are|was|were|can|could|will|would|has|have|had|does|did|should|must)\b(?! not\b|['\u2019])", re.IGNORECASE)
_NAME = re.compile(r"(?<![.!?] )(?<!^)\b[A-Z][\w'-]+(?: (?:of|the|de|van|and) [A-Z][\w'-]+| [A-Z][\w'-]+)*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def _replaced(text: str, match: re.Match[str], by: str) -> str:
    return text[: match.start()] + by + text[match.end() :]


def number(text: str, _context: str, _others: Sequence[str], rng: random.Random) -> str | None:
    """One number becomes another of the same look."""
    found = [match for match in _NUMBER.finditer(text) if not _YEAR.fullmatch(match.group())]
    if not found:
        return None
    match = rng.choice(found)
    plain = match.group().replace(",", "")
    if "." in plain:
        digits = len(plain.partition(".")[2])
        value = f"{float(plain) * rng.choice((0.5, 1.3, 1.7, 2.5)) + 10**-digits:.{digits}f}"
    else:
        changed = int(plain) + rng.choice((-1, 1)) * rng.randint(1, max(2, int(plain) // 3))
        value = f"{changed if changed >= 0 else int(plain) + 2:,}" if "," in match.group() else str(changed if changed >= 0 else int(plain) + 2)
    return _replaced(text, match, value)


def date(text: str, _context: str, _others: Sequence[str], rng: random.Random) -> str | None:
    """A year, a month or a weekday becomes another."""
    found = [*_YEAR.finditer(text), *_DATED.finditer(text)]
    if not found:
        return None
    match = rng.choice(found)
    if match.group().isdigit():
        return _replaced(text, match, str(int(match.group()) + rng.choice((-12, -7, -3, -1, 1, 3, 7, 12))))
    same = _MONTHS if match.group() in _MONTHS else _DAYS
    return _replaced(text, match, rng.choice([name for name in same if name != match.group()]))


def unit(text: str, _context: str, _others: Sequence[str], rng: random.Random) -> str | None:
    """A unit, direction, order or comparison becomes its counterpart."""
    found = list(_UNIT.finditer(text))
    if not found:
        return None
    match = rng.choice(found)
    return _replaced(text, match, _SWAPS[match.group()])


def negation(text: str, _context: str, _others: Sequence[str], rng: random.Random) -> str | None:
    """A statement is negated, or a negation dropped."""
    negated = list(_NEGATED.finditer(text))
    if negated:
        match = rng.choice(negated)
        short = (match.group(1) or "").lower()
        kept = "will" if short == "wo" else "can" if short == "ca" or match.group().lower() == "cannot" else match.group(2) or match.group(3) or ""
        return _replaced(text, match, kept)
    found = list(_PLAIN.finditer(text))
    if not found:
        return None
    match = rng.choice(found)
    return _replaced(text, match, f"{match.group()} not")


def entity(text: str, context: str, others: Sequence[str], rng: random.Random) -> str | None:
    """A name becomes another one of the context, else of another row."""
    found = [match for match in _NAME.finditer(text) if match.group() in context]
    if not found:
        return None
    match = rng.choice(found)
    known = sorted({name for name in _NAME.findall(context) if name not in text and match.group() not in name})
    known = known or sorted({name for other in others for name in _NAME.findall(other) if name not in text and name not in context})
    return _replaced(text, match, rng.choice(known)) if known else None


def foreign_sentence(text: str, context: str, others: Sequence[str], rng: random.Random) -> str | None:
    """A sentence of another row's answer takes the place of one, or follows the only one."""
    sentences = _SENTENCE.split(text)
    foreign = [sentence for other in others for sentence in _SENTENCE.split(other) if len(sentence) > 25 and sentence not in context]
    if not foreign:
        return None
    chosen = rng.choice(foreign)
    if len(sentences) == 1:
        return f"{text} {chosen}"
    sentences[rng.randrange(len(sentences))] = chosen
    return " ".join(sentences)


CORRUPTIONS: dict[str, Corruption] = {
    "entity swap": entity,
    "number swap": number,
    "date swap": date,
    "unit swap": unit,
    "negation": negation,
    "foreign sentence": foreign_sentence,
}
