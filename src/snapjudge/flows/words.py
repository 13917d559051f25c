"""Which words can be answer words under a backbone."""

from collections.abc import Sequence
from dataclasses import dataclass

from snapjudge.model.hub import load_backbone


@dataclass(frozen=True)
class Word:
    """Whether a word can be an answer word under a backbone."""

    word: str
    fits: bool
    pieces: tuple[str, ...]


def check_words(words: Sequence[str], backbone_name: str) -> list[Word]:
    """Which words are one token under a backbone, as they would follow its readout."""
    backbone = load_backbone(backbone_name)
    before = backbone.style.readout.rsplit(maxsplit=1)[-1]
    found = []
    for word in words:
        identity, pieces = backbone.tokens.one_token(word, before)
        found.append(Word(word, identity is not None, tuple(backbone.tokens.text_of(pieces if identity is None else (identity,)))))
    return found
