"""Personal data in text: patterns with the checks that their formats allow, and redaction. Finds formats, not names: a name has none.

Knows nothing of files. The `pii` judge reads what patterns cannot.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from snapjudge.core.example import TEXT_FIELDS


def _luhn(text: str) -> bool:
    """Luhn's checksum of a card number (ISO/IEC 7812-1)."""
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) if place % 2 else digit for place, digit in enumerate(reversed(digits))]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and sum(doubled) % 10 == 0


def _iban(text: str) -> bool:
    """The remainder by 97 of an IBAN (ISO 13616)."""
    plain = text.replace(" ", "").upper()
    moved = plain[4:] + plain[:4]
    return 15 <= len(plain) <= 34 and moved.isalnum() and int("".join(str(int(character, 36)) for character in moved)) % 97 == 1


def _address(text: str) -> bool:
    """Whether four numbers are an address that could be someone's."""
    parts = [int(part) for part in text.split(".")]
    return all(part < 256 for part in parts) and parts[0] not in (0, 127, 255) and len(set(parts)) > 1


def _phone(text: str) -> bool:
    return 9 <= sum(character.isdigit() for character in text) <= 15


_KINDS: dict[str, tuple[re.Pattern[str], Callable[[str], bool]]] = {
    "email": (re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{2,63})+"), lambda _: True),
    "card": (re.compile(r"\b\d(?:[ -]?\d){12,18}\b"), _luhn),
    "iban": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{1,4}){3,8}\b"), _iban),
    "us_ssn": (re.compile(r"\b(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b"), lambda _: True),
    "phone": (
        re.compile(
            r"(?<![\w.])\+\d{1,3}(?:[ .-]?\(?\d{1,7}\)?){1,5}(?!\w)"  # international
            r"|(?<![\w.-])(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?![\w-])"  # North American
            r"|(?<![\w.,-])0\d{2,4}[ /.-]\d{3,4}[ .-]?\d{3,5}(?![\w-])"  # with the zero of most other countries
        ),
        _phone,
    ),
    "ip_address": (re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.])"), _address),
}
_HINT = re.compile(r"[@+]|\d{2}")  # what every kind has: most texts are done after one look


def personal_spans(text: str) -> list[tuple[int, int, str]]:
    """(start, end, kind) of what looks like personal data, in order and without overlap; on an overlap the kind listed first."""
    if not _HINT.search(text):
        return []
    taken: list[tuple[int, int, str]] = []
    for kind, (pattern, right) in _KINDS.items():
        for match in pattern.finditer(text):
            start, end = match.span()
            if any(start < other and end > begin for begin, other, _ in taken):
                continue
            fits = next((stop for stop in _ends(text, start, end) if right(text[start:stop])), None)
            if fits is not None:
                taken.append((start, fits, kind))
    return sorted(taken)


def _ends(text: str, start: int, end: int) -> Iterator[int]:
    """Where a match may end: there, or before one of its later words or characters, since a pattern takes what follows along."""
    yield end
    for stop in range(end - 1, start + 7, -1):
        if text[stop - 1].isalnum() and not text[stop].isalnum():
            yield stop


def redacted(text: str, kinds: Collection[str] = ()) -> str:
    """The text with personal data, or some kinds of it, replaced by its kind, such as [EMAIL]."""
    parts: list[str] = []
    at = 0
    for start, end, kind in personal_spans(text):
        if kinds and kind not in kinds:
            continue
        parts += [text[at:start], f"[{kind.upper()}]"]
        at = end
    return "".join([*parts, text[at:]])


def redacted_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """All texts of an example's inputs redacted; roles, names and other structure stay."""
    return {name: redacted(value) if name in TEXT_FIELDS and isinstance(value, str) else _within(value) for name, value in inputs.items()}


def _within(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, list):
        return [_within(one) for one in value]
    return {key: _within(one) if key not in ("role", "type", "name") else one for key, one in value.items()} if isinstance(value, dict) else value
