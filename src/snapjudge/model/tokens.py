"""Text to token ids, so that text can never become a control token and is never cut.

Knows nothing of fields, metrics or models.
"""

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

Ids = tuple[int, ...]
_MARKER = re.compile(r"^(<[^\s<>]+>|\[[A-Z_]+\])$")  # <tool_call> and the like act as control tokens though few tokenizers say so


class TextTokens:
    """A backbone's tokenizer with its control tokens kept out of reach of text.

    Args:
        tokenizer: a fast tokenizer; its own truncation, padding and special-token templates are switched off.
        control: strings of further control tokens, beside those the tokenizer marks as special. Other added tokens, such as runs of spaces,
            are ordinary text.
    """

    def __init__(self, tokenizer: Tokenizer, control: Sequence[str] = ()) -> None:
        spec = json.loads(tokenizer.to_str())
        added = {entry["content"]: int(entry["id"]) for entry in spec.get("added_tokens", ()) if entry["special"] or _MARKER.match(entry["content"])}
        for text in control:
            identity = tokenizer.token_to_id(text)
            if identity is not None:
                added[text] = identity
        self.begin: Ids = self._template_start(tokenizer)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self._control_ids = frozenset(added.values())
        self._control_texts = sorted(added, key=len, reverse=True)

    @staticmethod
    def _template_start(tokenizer: Tokenizer) -> Ids:
        """The ids the tokenizer's own template puts before a text, such as <bos>."""
        plain, full = tokenizer.encode("a", add_special_tokens=False).ids, tokenizer.encode("a").ids
        for start in range(len(full)):
            if full[start : start + len(plain)] == plain:
                return tuple(full[:start])
        return ()

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> Ids:
        """Token ids of plain text; a control token spelled out in it is taken apart into ordinary tokens."""
        ids = tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)
        if self._control_ids.isdisjoint(ids):
            return ids
        return self._encode_apart(text)

    def encode_many(self, texts: Sequence[str]) -> list[Ids]:
        """Like `encode`, for many texts at once."""
        found = (tuple(item.ids) for item in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False))
        return [ids if self._control_ids.isdisjoint(ids) else self._encode_apart(text) for text, ids in zip(texts, found, strict=True)]

    def unknown_share(self, text: str) -> float:
        """The share of tokens that stand for something that the vocabulary lacks."""
        ids = self.encode(text.encode(errors="replace").decode())
        return ids.count(self._unknown) / len(ids) if ids and self._unknown is not None else 0.0

    def ends(self, text: str) -> list[int]:
        """Where each token of a text ends, in characters; about so where a control token is spelled out."""
        whole = text.encode(errors="replace").decode()  # a lone surrogate is one character, too
        return [int(end) for _, end in self._tokenizer.encode(whole, add_special_tokens=False).offsets]

    def _encode_apart(self, text: str) -> Ids:
        """Split every spelled-out control token after its first character and tokenise the pieces one by one."""
        cuts = {0, len(text)}
        for control in self._control_texts:
            at = text.find(control)
            while at >= 0 and len(control) > 1:
                cuts.add(at + 1)
                at = text.find(control, at + 1)
        edges = sorted(cuts)
        ids: list[int] = []
        for start, end in pairwise(edges):
            ids += self._tokenizer.encode(text[start:end], add_special_tokens=False).ids
        # An unknown-token id stands for text the vocabulary lacks, wherever it is; no other control id may remain.
        return tuple(i for i in ids if i not in self._control_ids or i == self._unknown)

    @property
    def _unknown(self) -> int | None:
        token = getattr(self._tokenizer.model, "unk_token", None)
        return None if token is None else self._tokenizer.token_to_id(token)

    def control(self, text: str) -> int:
        """The id of a control token, for the renderer alone."""
        identity = self._tokenizer.token_to_id(text)
        assert identity is not None, f"the tokenizer has no token {text!r}"
        return int(identity)

    def one_token(self, word: str, before: str) -> tuple[int | None, Ids]:
        """The single token of an answer word as it continues `before`, else None; with the ids found.

        The form with a space before it is tried first, as language models write it; then the bare word.
        """
        base, spaced = self.encode(before), self.encode(f"{before} {word}")
        continued = spaced[len(base) :] if spaced[: len(base)] == base else ()
        bare = self.encode(word)
        for ids in (continued, bare):
            if len(ids) == 1 and ids[0] != self._unknown and ids[0] not in self._control_ids:
                return ids[0], ids
        return None, continued or bare

    def text_of(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's own spelling of each id."""
        return [self._tokenizer.id_to_token(i) or "?" for i in ids]


def tokenizer_from_folder(folder: Path) -> Tokenizer:
    """The fast tokenizer of a Hugging Face folder; older formats are converted by transformers."""
    path = folder / "tokenizer.json"
    if path.exists():
        return Tokenizer.from_file(str(path))
    from transformers import AutoTokenizer  # noqa: PLC0415 - three seconds, needed by old folders only

    loaded: Any = AutoTokenizer.from_pretrained(folder)
    backend: Tokenizer = loaded.backend_tokenizer
    return backend


def special_texts(folder: Path) -> list[str]:
    """Special tokens named in a folder's tokenizer configuration, as strings."""
    texts: list[str] = []
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        if path.exists():
            for key, value in json.loads(path.read_bytes()).items():
                if key.endswith("_token"):
                    texts.append(value["content"] if isinstance(value, dict) else str(value))
    return [text for text in texts if text and text != "None"]
