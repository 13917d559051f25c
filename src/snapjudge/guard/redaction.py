"""Personal data taken out of a text: what patterns find, then the sentences that a judge still flags, then a last look at what is left.

A name or an address has no pattern; the judge that found it says in which sentences it stands. Knows nothing of policies.
"""

import re
from collections.abc import Awaitable, Callable, Sequence

from snapjudge.curate.personal import redacted

Flagged = Callable[[Sequence[str]], Awaitable[Sequence[bool]]]
MOST_SENTENCES = 128
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+|\n+|$)\s*")
REMOVED = "[REDACTED]"


async def redact(text: str, flagged: Flagged, kinds: Sequence[str] = ()) -> str | None:
    """The text without personal data; None where it is flagged whatever is taken out.

    Args:
        flagged: whether each of some texts is still flagged.
        kinds: of `curate.personal`; all unless said.
    """
    cleaned = redacted(text, kinds)
    (bad,) = await flagged([cleaned])
    if not bad:
        return cleaned
    sentences = sentences_of(cleaned)
    if len(sentences) > MOST_SENTENCES:
        return None
    verdicts = await flagged(sentences)
    left = "".join(f"{REMOVED} " if bad else sentence for sentence, bad in zip(sentences, verdicts, strict=True)).rstrip()
    if left == cleaned or not left:
        return None
    (still,) = await flagged([left])
    return None if still else left


def sentences_of(text: str) -> list[str]:
    """The sentences of a text, with what stands between them."""
    return [match[0] for match in _SENTENCE.finditer(text)] or [text]
