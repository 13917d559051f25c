"""The backbone: encode contents to content states, read readouts against them to label logits.

One interface for the embedded default and for any decoder in the Hugging Face layout. Knows nothing of text, fields or metrics.

Rows of every pack are padded to a multiple of `ROWS`: matrix libraries pick another summation order for very few rows, and with
the padding a row's result does not depend on what it is packed with (docs/design/0003, tested).

Tensors: T packed tokens, D width, L labels, B batch, S readout tokens, C content tokens.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from snapjudge.model.adapter import Adapter, AdapterRows, adapt_linears
from snapjudge.model.attention import ContentState, EncodePass, LayerState, Pass, ReadPass, Switch, TrainPass
from snapjudge.model.readout import Readout, join_words
from snapjudge.model.tokens import Ids, TextTokens

ROWS = 16
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
class Ask:
    """One readout to read against one content under one adapter."""

    content: ContentState
    readout: Readout
    adapter: Adapter | None = None


class Backbone:
    """A frozen decoder all judges share.

    Args:
        name: how people name it; `digest` identifies its weights and tokenizer.
        model: module tree whose linears take adapters; `forward` maps (ids, positions) to last hidden states.
        head_VD: output embedding; only the rows of answer tokens are ever multiplied. `head_bias_V` its bias, if any.
        softcap: final logit soft cap (Gemma 2), if any; `logit_scale` a constant factor on logits (Cohere, Granite).
        positions: how many positions the model has; content and readout share them.
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
        switch: Switch,
        style: PromptStyle,
        head_bias_V: Tensor | None = None,
        softcap: float | None = None,
        logit_scale: float = 1.0,
        skip: nn.Module | None = None,
    ) -> None:
        self.name, self.digest, self.tokens, self.style = name, digest, tokens, style
        self.content_mask: ContentMask = content_mask
        self.positions = positions
        self.switch = switch
        self._forward, self._head_VD, self._head_bias_V = forward, head_VD, head_bias_V
        self._softcap, self._logit_scale = softcap, logit_scale
        self.model = model
        self.linears = adapt_linears(model, switch, skip)
        self.device, self.dtype = head_VD.device, head_VD.dtype
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

    def encode(self, contents: Sequence[Ids], adapter: Adapter | None = None) -> list[ContentState]:
        """Content states of token id sequences, computed in one pass. Differentiable in `adapter` where gradients are on."""
        segments, total = _segments([len(ids) for ids in contents])
        one = EncodePass(segments, causal=self.content_mask == "causal")
        ids = [i for content in contents for i in content]
        places = [place for content in contents for place in range(len(content))]
        hidden_TD = self._run(one, ids, places, total, (AdapterRows(adapter, total),))
        states = []
        for start, end in segments:
            layers = tuple((keys[:, start:end], values[:, start:end]) for keys, values in one.captured)
            states.append(ContentState(layers, hidden_TD[start:end].detach().float().mean(0)))
        return states

    def read(self, asks: Sequence[Ask]) -> list[Tensor]:
        """Label logits [L] in float32 of every ask, computed in one pass, in the order asked."""
        order = _by_adapter(asks)
        ids: list[int] = []
        places: list[int] = []
        segments: list[tuple[int, int]] = []
        owners: list[AdapterRows] = []
        for group in order:
            begin = len(ids)
            for index in group:
                ask = asks[index]
                segments.append((len(ids), len(ids) + len(ask.readout.token_ids)))
                ids += ask.readout.token_ids
                places += range(ask.content.length, ask.content.length + len(ask.readout.token_ids))
            padding = -(len(ids) - begin) % ROWS
            ids += [0] * padding
            places += [0] * padding
            owners.append(AdapterRows(asks[group[0]].adapter, len(ids) - begin))
        flat = [index for group in order for index in group]
        one = ReadPass(segments, [asks[index].content for index in flat])
        hidden_TD = self._run(one, ids, places, len(ids), tuple(owners))
        logits: list[Tensor] = [torch.empty(0)] * len(asks)
        for index, (_, end) in zip(flat, segments, strict=True):
            logits[index] = self.label_logits(hidden_TD[end - 1 : end], asks[index].readout)[0]
        return logits

    def read_batch(self, layers: Callable[[int], LayerState], lengths_B: Tensor, readout: Readout, adapter: Adapter) -> Tensor:
        """Label logits [B, L] of one readout against B padded contents: the differentiable form that training uses."""
        batch, steps = len(lengths_B), len(readout.token_ids)
        ids_BS = torch.tensor(readout.token_ids, device=self.device).expand(batch, steps)
        places_BS = lengths_B[:, None] + torch.arange(steps, device=self.device)
        with self._pass(TrainPass(layers, lengths_B), (AdapterRows(adapter, batch * steps),)):
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

    def _run(self, one: Pass, ids: list[int], places: list[int], total: int, owners: tuple[AdapterRows, ...]) -> Tensor:
        """One packed forward pass over `total` rows; returns hidden states [T, D]."""
        padding = [0] * (total - len(ids))
        ids_1T = torch.tensor([ids + padding], device=self.device)
        places_1T = torch.tensor([places + padding], device=self.device)
        with self._pass(one, owners):
            return self._forward(ids_1T, places_1T)[0]

    @contextmanager
    def _pass(self, one: Pass, owners: tuple[AdapterRows, ...]) -> Iterator[None]:
        with self._lock:  # threads take turns: the modules find the pass on the switch
            assert self.switch.current is None, "a pass inside a pass"
            self.switch.current, self.switch.adapters = one, owners
            try:
                yield
            finally:
                self.switch.current, self.switch.adapters = None, ()


def _segments(lengths: Sequence[int]) -> tuple[list[tuple[int, int]], int]:
    """Start and end of each item in a pack, and the pack's padded length."""
    segments, at = [], 0
    for length in lengths:
        segments.append((at, at + length))
        at += length
    return segments, at + (-at % ROWS)


def _by_adapter(asks: Sequence[Ask]) -> list[list[int]]:
    """Indices of the asks grouped by adapter, groups in order of first appearance."""
    groups: dict[int, list[int]] = {}
    for index, ask in enumerate(asks):
        groups.setdefault(id(ask.adapter), []).append(index)
    return list(groups.values())
