"""The backbone: encode contents to content states, read readouts against them to label logits.

One interface for the embedded default and for any decoder in the Hugging Face layout. Knows nothing of text, fields or metrics.

Rows of every pack are padded to a multiple of `row_tile`: matrix libraries pick another summation order for very few rows, and with
the padding a row's result does not depend on what it is packed with (docs/design/0006, tested).

Tensors: T packed tokens, D width, L labels, B batch, S readout tokens, C content tokens.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from snapjudge.errors import BackboneUnsupported
from snapjudge.model.adapter import Adapter
from snapjudge.model.attention import TILE, ContentState, LayerState, Pass, Switch, row_tile
from snapjudge.model.grouped import AdapterRows, Owned, PlacedAdapter, batched
from snapjudge.model.linears import adapt_linears
from snapjudge.model.passes import ContentReads, NewContent, StepPass
from snapjudge.model.readout import Readout, join_words
from snapjudge.model.tokens import Ids, TextTokens
from snapjudge.model.training_passes import EncodePass, TrainPass

ContentMask = Literal["causal", "bidirectional"]


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


@dataclass(frozen=True)
class NewTokens:
    """The next tokens of a content: all of it, or what follows a state at hand."""

    ids: Ids
    past: ContentState | None = None
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Ask:
    """One readout to read under one adapter against one content: a state at hand, or a content of the same step by its index."""

    content: ContentState | int
    readout: Readout
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Step:
    """What a step gives: of each content the state of its new tokens and, where wanted, its mean hidden state; of each ask its label logits [L].

    Args:
        rows: rows computed, the padding among them.
    """

    states: list[ContentState]
    summaries: list[Tensor]
    logits: list[Tensor]
    rows: int


class Backbone:
    """A frozen decoder all judges share.

    Args:
        name: how people name it; `digest` identifies its weights and tokenizer.
        model: module tree whose linears take adapters; `forward` maps (ids, positions) to last hidden states.
        head_VD: output embedding; only the rows of answer tokens are ever multiplied. `head_bias_V` its bias, if any.
        softcap: final logit soft cap (Gemma 2), if any; `logit_scale` a constant factor on logits (Cohere, Granite).
        positions: how many positions the model has; content and readout share them.
        depth: how many attention layers it has.
        int8: whether its linear layers are computed in int8 (`products`); everything else is in the type of its weights.
    """

    def __init__(
        self,
        *,
        name: str,
        digest: str,
        model: nn.Module,
        forward: Callable[[Tensor, Tensor], Tensor],
        head_VD: Tensor,
        tokens: TextTokens,
        content_mask: ContentMask,
        positions: int,
        depth: int,
        switch: Switch,
        style: PromptStyle,
        head_bias_V: Tensor | None = None,
        softcap: float | None = None,
        logit_scale: float = 1.0,
        skip: nn.Module | None = None,
        int8: bool = False,
    ) -> None:
        self.name, self.digest, self.tokens, self.style = name, digest, tokens, style
        self.content_mask: ContentMask = content_mask
        self.positions, self.depth = positions, depth
        self.switch = switch
        self._forward, self._head_VD, self._head_bias_V = forward, head_VD, head_bias_V
        self._softcap, self._logit_scale = softcap, logit_scale
        self.model = model
        self.linears = adapt_linears(model, switch, int8=int8, skip=skip)
        self.device, self.dtype = head_VD.device, head_VD.dtype
        self.precision = "int8" if int8 else str(self.dtype).removeprefix("torch.")
        self._lock = threading.RLock()

    @property
    def width(self) -> int:
        """Length of a hidden state, and so of a content's summary."""
        return int(self._head_VD.shape[1])

    @property
    def content_tokens(self) -> int:
        """How many tokens a content may have; the rest of the positions is kept for readouts."""
        return self.positions - self.readout_tokens

    @property
    def readout_tokens(self) -> int:
        """How many tokens a readout may have: the same for every metric, so that windows never depend on one."""
        return min(256, max(16, self.positions // 8))

    def step(self, contents: Sequence[NewTokens], asks: Sequence[Ask], *, summaries: bool = False) -> Step:
        """One pass over new tokens of contents and readouts of any judges, whatever their adapters and lengths.

        Args:
            asks: each against one of the step's contents, by index, or against a state at hand.
            summaries: whether the contents' mean hidden states are wanted; they cost the last layer of every content token.
        """
        pack = _Pack(contents, asks, self.dtype, self.device)
        one = StepPass(
            contents=pack.contents,
            reads=pack.reads,
            equal=pack.equal,
            reads_from=pack.reads_from,
            reads_to=pack.reads_to,
            causal=self.content_mask == "causal",
            depth=self.depth,
            keep_contents=summaries,
            switch=self.switch,
        )
        with torch.inference_mode():
            hidden_TD = self._run(one, pack.ids, pack.places, pack.total, owners=pack.owners)
            assert len(one.captured) == self.depth, "an attention layer did not ask the pass"
            logits: list[Tensor] = [torch.empty(0)] * len(asks)
            for index, row in pack.last_rows.items():
                logits[index] = self.label_logits(hidden_TD[row : row + 1], asks[index].readout)[0]
        rows = [slice(span.start, span.end) for span in pack.contents]
        states = [ContentState([(keys[:, own], values[:, own]) for keys, values in one.captured], own.stop - own.start) for own in rows]
        return Step(states, [hidden_TD[own].float().mean(0) for own in rows] if summaries else [], logits, pack.total)

    def encode(self, contents: Sequence[Ids], adapter: Adapter | None = None) -> list[ContentState]:
        """Content states of token id sequences, computed in one pass."""
        return self.step([NewTokens(ids, adapter=adapter) for ids in contents], []).states

    def append(self, state: ContentState, ids: Ids, adapter: Adapter | None = None) -> ContentState:
        """The state of a content that goes on: only the new tokens are computed. Streaming and sessions are built on it.

        Raises:
            BackboneUnsupported: the backbone's tokens see what comes after them, so that nothing computed before stays valid.
        """
        if self.content_mask != "causal":
            raise BackboneUnsupported(
                f"{self.name} reads contents in both directions and cannot append", hint="encode the whole content, or use a causal backbone"
            )
        (new,) = self.step([NewTokens(ids, state, adapter)], []).states
        pairs = zip(state.layers, new.layers, strict=True)
        layers = [(torch.cat((old[0], more[0]), 1), torch.cat((old[1], more[1]), 1)) for old, more in pairs]
        return ContentState(layers, state.length + len(ids))

    def read(self, asks: Sequence[Ask]) -> list[Tensor]:
        """Label logits [L] in float32 of every ask against states at hand, computed in one pass, in the order asked."""
        return self.step([], asks).logits

    def encode_for_training(self, contents: Sequence[Ids], adapter: Adapter) -> list[ContentState]:
        """Content states under an adapter on every token, differentiable in it."""
        segments, total = _segments([len(ids) for ids in contents])
        one = EncodePass(segments, causal=self.content_mask == "causal")
        ids = [i for content in contents for i in content]
        places = [place for content in contents for place in range(len(content))]
        self._run(one, ids, places, total, trained=adapter)
        return [ContentState([(keys[:, start:end], values[:, start:end]) for keys, values in one.captured], end - start) for start, end in segments]

    def read_batch(self, layers: Callable[[int], LayerState], lengths_B: Tensor, readout: Readout, adapter: Adapter) -> Tensor:
        """Label logits [B, L] of one readout against B padded contents: the differentiable form that training uses."""
        batch, steps = len(lengths_B), len(readout.token_ids)
        ids_BS = torch.tensor(readout.token_ids, device=self.device).expand(batch, steps)
        places_BS = lengths_B[:, None] + torch.arange(steps, device=self.device)
        with self._pass(TrainPass(layers, lengths_B), trained=adapter):
            hidden_BSD = self._forward(ids_BS, places_BS)
        return self.label_logits(hidden_BSD[:, -1], readout)

    def label_logits(self, hidden_BD: Tensor, readout: Readout) -> Tensor:
        """Label logits [B, L] of last hidden states, always in float32; only the answer tokens' rows are computed."""
        rows = torch.tensor([i for label in readout.label_tokens for i in label], device=self.device)
        head_RD = self._head_VD[rows].float()
        logits_BR = (hidden_BD.float()[:, None] * head_RD).sum(-1) * self._logit_scale
        if self._head_bias_V is not None:
            logits_BR = logits_BR + self._head_bias_V[rows].float()
        if self._softcap is not None:
            logits_BR = torch.tanh(logits_BR / self._softcap) * self._softcap
        return join_words(logits_BR, [len(label) for label in readout.label_tokens])

    def _run(self, one: Pass, ids: list[int], places: list[int], total: int, *, owners: Sequence[AdapterRows] = (), trained: Adapter | None = None) -> Tensor:
        """One packed forward pass over `total` rows; returns hidden states [T, D]."""
        padding = [0] * (total - len(ids))
        ids_1T = torch.tensor([ids + padding], device=self.device)
        places_1T = torch.tensor([places + padding], device=self.device)
        with self._pass(one, owners=owners, trained=trained):
            return self._forward(ids_1T, places_1T)[0]

    @contextmanager
    def _pass(self, one: Pass, *, owners: Sequence[AdapterRows] = (), trained: Adapter | None = None) -> Iterator[None]:
        with self._lock:  # threads take turns: the modules find the pass on the switch
            assert self.switch.current is None, "a pass inside a pass"
            self.switch.current, self.switch.adapters, self.switch.trained = one, owners, trained
            try:
                yield
            finally:
                self.switch.reset()


def _segments(lengths: Sequence[int]) -> tuple[list[tuple[int, int]], int]:
    """Start and end of each item in a pack, and the pack's padded length."""
    segments, at = [], 0
    for length in lengths:
        segments.append((at, at + length))
        at += length
    return segments, at + (-at % TILE)


class _Pack:
    """Where everything of a step lies: contents first, then readouts by length and adapter, then padding.

    The padding makes the rows of every product a multiple of `row_tile`.
    """

    def __init__(self, contents: Sequence[NewTokens], asks: Sequence[Ask], dtype: torch.dtype, device: torch.device) -> None:
        self.ids: list[int] = []
        self.places: list[int] = []
        self.contents: list[NewContent] = []
        owners: list[Owned] = []
        for one in contents:
            span = NewContent(len(self.ids), len(self.ids) + len(one.ids), one.past)
            self.ids += one.ids
            self.places += range(span.before, span.length)
            self.contents.append(span)
            if one.adapter is not None:
                _own(owners, one.adapter, span.start, len(one.ids))
        self.reads_from, of_contents = len(self.ids), owners
        owners = []
        self.last_rows: dict[int, int] = {}
        self.equal: list[tuple[int, int]] = []
        of_content: dict[int, tuple[int | ContentState, list[int], list[int]]] = {}
        for index in sorted(range(len(asks)), key=lambda index: _place(asks[index])):
            ask = asks[index]
            size, start = len(ask.readout.token_ids), len(self.ids)
            length = self._length(ask.content)
            self.ids += ask.readout.token_ids
            self.places += range(length, length + size)
            self.last_rows[index] = len(self.ids) - 1
            known = self.equal[-1] if self.equal and self.equal[-1][1] == size else None
            self.equal[len(self.equal) - (known is not None) :] = [((known[0] if known else 0) + 1, size)]
            key = ask.content if isinstance(ask.content, int) else id(ask.content) + len(contents)
            _, rows, offsets = of_content.setdefault(key, (ask.content, [], []))
            rows += range(start - self.reads_from, len(self.ids) - self.reads_from)
            offsets += range(size)
            if ask.adapter is not None:
                _own(owners, ask.adapter, start, size)
        self.reads_to = len(self.ids)
        self.reads = [
            ContentReads(content, self._length(content), _span(rows, device), torch.tensor(offsets, device=device))
            for content, rows, offsets in of_content.values()
        ]
        self.owners = [*batched(of_contents, dtype, device), *batched(owners, dtype, device)]
        self.total = len(self.ids) + -len(self.ids) % row_tile(dtype, device)

    def _length(self, content: int | ContentState) -> int:
        return self.contents[content].length if isinstance(content, int) else content.length


def _place(ask: Ask) -> tuple[int, int, int, int]:
    """Readouts of a length side by side, in them those of a rank, in them the adapters of a slab in their order."""
    adapter, size = ask.adapter, len(ask.readout.token_ids)
    if isinstance(adapter, PlacedAdapter):
        return size, adapter.rank, id(adapter.slab), adapter.slot
    return (size, 0, 0, 0) if adapter is None else (size, adapter.rank, id(adapter), 0)


def _own(owners: list[Owned], adapter: Adapter, start: int, rows: int) -> None:
    """Note that an adapter owns the next rows, together with those right before them if they are its own too."""
    last = owners[-1] if owners else None
    if last is not None and last.adapter is adapter and last.start + last.rows == start:
        owners[-1] = Owned(adapter, last.start, last.rows + rows)
    else:
        owners.append(Owned(adapter, start, rows))


def _span(rows: list[int], device: torch.device) -> slice | Tensor:
    """Rows as a slice where they lie side by side."""
    if rows[-1] - rows[0] == len(rows) - 1:
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows, device=device)
