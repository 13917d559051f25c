"""The passes training differentiates through: contents packed for adapters on every token, and readouts against padded contents.

Scoring goes through `model.passes`; the contract suite holds both to the same logits.

Tensors: Q query heads, G key heads, S readout tokens, C content tokens, B batch, d head width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from snapjudge.model.attention import LayerState, Shape, causal_window
from snapjudge.model.tables import sent

_TOGETHER = 32  # contents attended in one product
_PADDING = -1  # the part of no content
_SIMILAR = 0.8, 1.25, 8  # lengths that go together: from, to, and so many tokens more


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


@dataclass(frozen=True)
class Packed:
    """A content with its readouts in a pack: rows start..end, the content's tokens first, each readout's after it."""

    start: int
    content: int
    readouts: tuple[int, ...]

    @property
    def end(self) -> int:
        """The row after the last readout's."""
        return self.start + self.content + sum(self.readouts)

    @property
    def last_rows(self) -> list[int]:
        """The row of each readout's last token."""
        return [self.start + self.content + sum(self.readouts[: index + 1]) - 1 for index in range(len(self.readouts))]

    @property
    def places(self) -> list[int]:
        """The position of every row: each readout follows the content directly."""
        return [*range(self.content), *(self.content + step for size in self.readouts for step in range(size))]

    @property
    def parts(self) -> list[int]:
        """What every row belongs to: 0 the content, then the readouts by number."""
        return [number for number, size in enumerate((self.content, *self.readouts)) for _ in range(size)]


@dataclass(frozen=True)
class _Group:
    """Contents attended in one product, padded to the longest: pack rows [B, T], who sees whom [B, T, T], real ones of the B * T rows, places [B, T]."""

    rows_BT: Tensor
    visible_BTT: Tensor
    real: Tensor
    places_BT: Tensor

    @classmethod
    def of(cls, some: Sequence[Packed], *, causal: bool, device: torch.device) -> "_Group":
        """Laid out on the host, then sent."""
        longest = max(one.end - one.start for one in some)
        longest += -longest % 8  # rows of a mask that the fused kernels can read as they lie
        rows_places_parts = np.empty((3, len(some), longest), dtype=np.int64)
        rows_places_parts[0], rows_places_parts[1], rows_places_parts[2] = some[0].start, 0, _PADDING
        for index, one in enumerate(some):
            rows_places_parts[:, index, : one.end - one.start] = np.arange(one.start, one.end), one.places, one.parts
        real = sent(torch.from_numpy(np.flatnonzero(rows_places_parts[2] != _PADDING)), device)
        rows_BT, places_BT, parts_BT = sent(torch.from_numpy(rows_places_parts), device)
        past_TT = torch.ones(longest, longest, dtype=torch.bool, device=device).tril()
        from_B1T, to_BT1 = parts_BT[:, None, :], parts_BT[:, :, None]  # padding sees the content, so that no row of weights is empty
        visible_BTT = (from_B1T == 0) & (past_TT | (to_BT1 != 0)) if causal else (from_B1T == 0).expand(-1, longest, -1)
        return cls(rows_BT, visible_BTT | ((from_B1T == to_BT1) & (to_BT1 > 0) & past_TT), real, places_BT)


@dataclass
class WholePass:
    """Contents and their readouts packed one after another, everything differentiable: what training all weights goes through.

    On a CPU neighbours of similar length are attended together, padded to the longest: one product for many short contents. An accelerator, to which
    padding is cheaper than another launch, attends all of them at once (`fused`).
    """

    packed: Sequence[Packed]
    causal: bool
    device: torch.device
    fused: bool
    groups: list[_Group] = field(default_factory=list)

    def __post_init__(self) -> None:
        at = 0
        while at < len(self.packed):
            kept = len(self.packed) if self.fused else self._alike(self.packed[at:])
            self.groups.append(_Group.of(self.packed[at : at + kept], causal=self.causal, device=self.device))
            at += kept

    def _alike(self, rest: Sequence[Packed]) -> int:
        """How many of the next contents have about the first one's length."""
        first = rest[0].end - rest[0].start
        low, high = first * _SIMILAR[0], first * _SIMILAR[1] + _SIMILAR[2]
        return next((count for count, one in enumerate(rest[:_TOGETHER]) if not low <= one.end - one.start <= high), min(len(rest), _TOGETHER))

    def attend(self, _layer: int, query_BQTd: Tensor, key_BGTd: Tensor, value_BGTd: Tensor, shape: Shape) -> Tensor:
        """Attend within each content and its readouts."""
        parts = []
        turned = [part[0].transpose(0, 1) for part in (query_BQTd, key_BGTd, value_BGTd)]
        for group in self.groups:
            query, key, value = (part.index_select(0, group.rows_BT.flatten()).unflatten(0, group.rows_BT.shape).transpose(1, 2) for part in turned)
            seen = group.visible_BTT[:, None]
            if shape.window is not None:
                seen = seen & (group.places_BT[:, None, :, None] - group.places_BT[:, None, None, :] < shape.window)
            attended = (scores_to_values if self.fused and shape.softcap is None else _plain_attention)(query, key, value, shape, seen)
            parts.append(attended.transpose(1, 2).flatten(0, 1).index_select(0, group.real))
        return torch.cat(parts)[None]


def _plain_attention(query: Tensor, key: Tensor, value: Tensor, shape: Shape, seen: Tensor) -> Tensor:
    """Attention of [N, Q, T, d] on [N, G, T, d] spelled out: on a CPU its backward pass is four times as fast as the fused one's at these lengths."""
    repeat = query.shape[1] // key.shape[1]
    if repeat > 1:
        key, value = key.repeat_interleave(repeat, 1), value.repeat_interleave(repeat, 1)
    scores = (query * shape.scale) @ key.transpose(-1, -2)
    if shape.softcap is not None:
        scores = torch.tanh(scores / shape.softcap) * shape.softcap
    unseen = torch.zeros(seen.shape, dtype=scores.dtype, device=seen.device).masked_fill_(~seen, torch.finfo(scores.dtype).min)
    attended: Tensor = (scores + unseen).softmax(-1) @ value
    return attended


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


def scores_to_values(query: Tensor, key: Tensor, value: Tensor, shape: Shape, visible: Tensor | None, *, causal: bool = False) -> Tensor:
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


def _with_padding(parts: list[Tensor], query_BQTd: Tensor) -> Tensor:
    """Join attended segments [1, Q, n, d] into [1, T, Q, d], with zeros for the padding rows at the end of the pack."""
    missing = query_BQTd.shape[2] - sum(part.shape[2] for part in parts)
    if missing:
        parts = [*parts, query_BQTd.new_zeros(1, query_BQTd.shape[1], missing, query_BQTd.shape[3])]
    return torch.cat(parts, 2).transpose(1, 2)
