"""How text becomes a backbone's token ids: its tokenizer, its marks, its room. All that rendering needs of a backbone, without its weights.

A server renders in one process and computes in others; `hub.load_prompt_rules` reads this from a model's folder alone.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from snapjudge.model.tokens import Ids, TextTokens

ContentMask = Literal["causal", "bidirectional"]
LONGEST_READOUT = 256  # tokens, what `readout_tokens` never exceeds


@dataclass(frozen=True)
class PromptStyle:
    """How a backbone wants its fields marked. Control ids are out of reach of text; the templates are plain text."""

    open: str = "<{tag}>\n"
    close: str = "\n</{tag}>\n"
    after_field: Ids = ()
    readout: str = "Question: {question}\nAnswer:"

    @property
    def forgeable(self) -> bool:
        """True where only text separates the fields, so that look-alike tags in user text must be escaped."""
        return not self.after_field


class Prompted(Protocol):
    """What `prompt` asks of a backbone, or of its rules alone."""

    @property
    def name(self) -> str:
        """How people name it."""
        ...

    @property
    def tokens(self) -> TextTokens:
        """Its tokenizer."""
        ...

    @property
    def style(self) -> PromptStyle:
        """Its marks."""
        ...

    @property
    def content_tokens(self) -> int:
        """How many tokens a content may have; the rest of the positions is kept for readouts."""
        ...

    @property
    def readout_tokens(self) -> int:
        """How many tokens a readout may have: the same for every metric, so that windows never depend on one."""
        ...


@dataclass(frozen=True)
class PromptRules:
    """The rules of one backbone.

    Args:
        positions: how many positions the model has; content and readout share them.
    """

    name: str
    tokens: TextTokens
    style: PromptStyle
    content_mask: ContentMask
    positions: int

    @property
    def content_tokens(self) -> int:
        """How many tokens a content may have; the rest of the positions is kept for readouts."""
        return self.positions - self.readout_tokens

    @property
    def readout_tokens(self) -> int:
        """How many tokens a readout may have: the same for every metric, so that windows never depend on one."""
        return min(LONGEST_READOUT, max(16, self.positions // 8))
