"""Attention over content states: one function that every backbone calls, and the three kinds of pass it serves.

Knows nothing of text, adapters or models; a pass is set on a backbone's `Switch` for as long as it runs.

Tensors: Q query heads, G key heads (Q is a multiple of G), T packed tokens, S readout tokens, C content tokens, B batch, d head width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

LayerState = tuple[Tensor, Tensor]  # keys_GCd, values_GCd


@dataclass(frozen=True)
class Shape:
    """What a layer asks of attention besides its tensors: score scale, soft cap on scores, sliding window in tokens."""

    scale: float
    softcap: float | None = None
    window: int | None = None


@dataclass(frozen=True)
class ContentState:
    """What a backbone keeps of one content: keys and values per layer, and the mean of its last hidden states.

    It depends on the backbone and the content's token ids (and, for scope `all`, the adapter) alone, never on the metric.
    """

    layers: tuple[LayerState, ...]
    summary_D: Tensor

    @property
    def length(self) -> int:
        """Content tokens."""
        return int(self.layers[0][0].shape[1])


class Pass(Protocol):
    """One forward pass of a backbone, as its attention layers see it."""

    def attend(self, layer: int, query_BQTd: Tensor, key_BGTd: Tensor, value_BGTd: Tensor, shape: Shape) -> Tensor:
        """Return the attended values, [B, T, Q, d]."""
        ...


class Switch:
    """Holds the pass and the adapter rows of a backbone's current forward; shared by all its modules."""

    def __init__(self) -> None:
        self.current: Pass | None = None
        self.adapters: Any = ()


def scores_to_values(query: Tensor, key: Tensor, value: Tensor, shape: Shape, visible: Tensor | None, *, causal: bool) -> Tensor:
    """Plain attention of query [B, Q, n, d] on key/value [B, G, m, d]; `visible` is a boolean [.., n, m] or None for all."""
    if shape.softcap is None:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=visible, is_causal=causal, scale=shape.scale, enable_gqa=query.shape[1] != key.shape[1]
        )
    repeat = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = torch.tanh(query @ key.transpose(-1, -2) * (shape.scale / shape.softcap)) * shape.softcap
    if causal:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    return scores.softmax(-1, dtype=torch.float32).to(value.dtype) @ value


def causal_window(length: int, window: int, device: torch.device) -> Tensor:
    """Boolean [length, length]: each token sees itself and the `window` - 1 before it."""
    full = torch.ones(length, length, dtype=torch.bool, device=device)
    return full.tril() & full.triu(1 - window)


@dataclass
class EncodePass:
    """Contents packed one after another; each attends to itself alone, causally or in both directions."""

    segments: Sequence[tuple[int, int]]
    causal: bool
    captured: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def attend(self, layer: int, query_BQTd: Tensor, key_BGTd: Tensor, value_BGTd: Tensor, shape: Shape) -> Tensor:
        """Attend within each content and keep its keys and values."""
        assert layer == len(self.captured), "layers ran out of order"
        self.captured.append((key_BGTd[0], value_BGTd[0]))
        parts = []
        for start, end in self.segments:
            windowed = self.causal and shape.window is not None and end - start > shape.window
            visible = causal_window(end - start, shape.window or 0, query_BQTd.device) if windowed else None
            span = slice(start, end)
            parts.append(
                scores_to_values(query_BQTd[:, :, span], key_BGTd[:, :, span], value_BGTd[:, :, span], shape, visible, causal=self.causal and not windowed)
            )
        return _with_padding(parts, query_BQTd)


@dataclass
class ReadPass:
    """Readouts packed one after another; each attends to its own content and causally to itself."""

    segments: Sequence[tuple[int, int]]
    contents: Sequence[ContentState]

    def attend(self, layer: int, query_BQTd: Tensor, key_BGTd: Tensor, value_BGTd: Tensor, shape: Shape) -> Tensor:
        """Attend from each readout to its content and to itself."""
        out_BTQd = query_BQTd.new_zeros(query_BQTd.transpose(1, 2).shape)
        for (start, end), content in zip(self.segments, self.contents, strict=True):
            keys, values = content.layers[layer]
            key = torch.cat((keys[None].to(key_BGTd.dtype), key_BGTd[:, :, start:end]), 2)
            value = torch.cat((values[None].to(value_BGTd.dtype), value_BGTd[:, :, start:end]), 2)
            visible = readout_visible(content.length, end - start, shape.window, query_BQTd.device)
            part = scores_to_values(query_BQTd[:, :, start:end], key, value, shape, visible, causal=False)
            out_BTQd[:, start:end] = part.transpose(1, 2)
        return out_BTQd


@dataclass
class TrainPass:
    """A batch of equal-length readouts against padded contents: what training differentiates through.

    keys/values are [B, G, C, d] per layer with `lengths_B` valid tokens in each row.
    """

    layers: Callable[[int], LayerState]
    lengths_B: Tensor

    def attend(self, layer: int, query_BQTd: Tensor, key_BGTd: Tensor, value_BGTd: Tensor, shape: Shape) -> Tensor:
        """Attend from all readouts to their padded contents at once."""
        keys, values = self.layers(layer)
        padded, steps = keys.shape[2], query_BQTd.shape[2]
        place = torch.arange(padded, device=keys.device)
        step = torch.arange(steps, device=keys.device)
        seen = place < self.lengths_B[:, None, None]
        own = (step[None, :] <= step[:, None]).expand(len(self.lengths_B), steps, steps)
        if shape.window is not None:
            distance = self.lengths_B[:, None, None] + step[None, :, None] - place
            seen = seen & (distance < shape.window)
            own = own & (step[:, None] - step[None, :] < shape.window)
        visible = torch.cat((seen.expand(-1, steps, -1), own), 2)[:, None]
        return two_part_attention(query_BQTd, (keys, values), (key_BGTd, value_BGTd), shape, visible).transpose(1, 2)


def two_part_attention(query: Tensor, content: LayerState, own: LayerState, shape: Shape, visible: Tensor) -> Tensor:
    """Attention over content and own keys without joining them, so that frozen contents cost no gradient.

    query [B, Q, S, d]; content and own keys and values [B, G, C or S, d]; visible [B, 1, S, C + S].
    """
    repeat = query.shape[1] // own[0].shape[1]
    if repeat > 1:
        content = (content[0].repeat_interleave(repeat, 1), content[1].repeat_interleave(repeat, 1))
        own = (own[0].repeat_interleave(repeat, 1), own[1].repeat_interleave(repeat, 1))
    query = query * shape.scale
    scores = torch.cat((query @ content[0].transpose(-1, -2), query @ own[0].transpose(-1, -2)), -1)
    if shape.softcap is not None:
        scores = torch.tanh(scores / shape.softcap) * shape.softcap
    weights = scores.masked_fill(~visible, float("-inf")).softmax(-1, dtype=torch.float32).to(query.dtype)
    over_content, over_own = weights.split([content[0].shape[2], own[0].shape[2]], -1)
    joined: Tensor = over_content @ content[1] + over_own @ own[1]
    return joined


def readout_visible(content: int, steps: int, window: int | None, device: torch.device) -> Tensor:
    """Boolean [steps, content + steps]: a readout token sees the content and the readout up to itself, within the window."""
    visible = torch.ones(steps, content + steps, dtype=torch.bool, device=device).tril(content)
    if window is not None:
        visible = visible.triu(content + 1 - window)
    return visible


def _with_padding(parts: list[Tensor], query_BQTd: Tensor) -> Tensor:
    """Join attended segments [1, Q, n, d] into [1, T, Q, d], with zeros for the padding rows at the end of the pack."""
    missing = query_BQTd.shape[2] - sum(part.shape[2] for part in parts)
    if missing:
        parts = [*parts, query_BQTd.new_zeros(1, query_BQTd.shape[1], missing, query_BQTd.shape[3])]
    return torch.cat(parts, 2).transpose(1, 2)
