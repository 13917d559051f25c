"""One step of a backbone as its attention sees it: new tokens of some contents, and readouts of any judges, in one pack.

Each content attends to what of it came before and to itself, each readout to its own content and to itself. The product of a content's keys with
all its readouts is computed once, in one product; causal contents are computed in tiles of `CAUSAL_TILE` positions. So the shapes a row's
result depends on are set by its own content and position, whatever else is in the step (docs/design/0006).

Tensors: Q query heads, G key heads, T rows of the pack, R rows of readouts, C content tokens, n items, d head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from snapjudge.model.attention import ContentState, LayerState, Shape, Switch, attend, attend_until, causal_window, filled, merge, row_tile
from snapjudge.model.prompt_rules import LONGEST_READOUT

CAUSAL_TILE = 32
MASKED = 1024  # keys, up to which a tile of a causal content is one product under a mask; beyond, the mask would outweigh what it saves


@dataclass(frozen=True)
class NewContent:
    """New tokens of one content: rows start..end of the pack, and the part of the content that is at hand."""

    start: int
    end: int
    past: ContentState | None

    @property
    def before(self) -> int:
        """Tokens of the content that come before the new ones."""
        return self.past.length if self.past is not None else 0

    @property
    def length(self) -> int:
        """Tokens of the content up to the last new one."""
        return self.before + self.end - self.start


@dataclass(frozen=True)
class ContentReads:
    """All readout rows of one content: the content (one of the step's, by index, or one at hand), its length, their rows and offsets.

    `rows_R` counts from the first readout row of the pack; a slice where they lie side by side. `offset_R` is each row's place in its readout.
    """

    content: int | ContentState
    length: int
    rows_R: Tensor | slice
    offset_R: Tensor


@dataclass
class StepPass:
    """The attention of one step.

    Args:
        equal: readouts of equal length lie side by side: (how many, tokens of each), in pack order, the first at row `reads_from`.
        reads_to: the row after the last readout's; what follows is padding.
        depth: layers of the backbone; after the last one's attention the contents' rows are of no more use, unless `keep_contents`.
    """

    contents: Sequence[NewContent]
    reads: Sequence[ContentReads]
    equal: Sequence[tuple[int, int]]
    reads_from: int
    reads_to: int
    causal: bool
    depth: int
    keep_contents: bool
    switch: Switch
    captured: list[LayerState] = field(default_factory=list)

    def attend(self, layer: int, query_BQTd: Tensor, key_BGTd: Tensor, value_BGTd: Tensor, shape: Shape) -> Tensor:
        """Attend from every row of the pack to what it may see."""
        assert layer == len(self.captured), "layers ran out of order"
        query, key, value = query_BQTd[0], key_BGTd[0], value_BGTd[0]
        self.captured.append((key, value))
        last = layer == self.depth - 1 and not self.keep_contents
        out_TQd = query.new_zeros(query.shape[1], query.shape[0], query.shape[2])
        whole = [_joined(one, layer, key, value, self.causal) for one in self.contents]
        if not last:
            for one, state in zip(self.contents, whole, strict=True):
                rows = slice(one.start, one.end)
                (self._causal if self.causal else self._bidirectional)(one, query[:, rows], state, shape, out_TQd[rows])
        if self.equal:
            rows = slice(self.reads_from, self.reads_to)
            own = self._own(query[:, rows], key[:, rows], value[:, rows], shape)
            content = self._content(layer, query[:, rows], whole, shape)
            out_TQd[rows] = merge(content, own)
        if last:
            self.switch.leave_out(self.reads_from, row_tile(query.dtype, query.device))
        return out_TQd[None]

    def _bidirectional(self, _: NewContent, query_QCd: Tensor, state: LayerState, shape: Shape, out_CQd: Tensor) -> None:
        """A whole content against itself, in one product."""
        out_CQd.copy_(attend(query_QCd[None], *_item(state), shape)[0][0].transpose(0, 1))

    def _causal(self, one: NewContent, query_QNd: Tensor, state: LayerState, shape: Shape, out_NQd: Tensor) -> None:
        """New tokens of a causal content, tile by tile: each row against all before it and itself, among keys whose number is set by its tile's place."""
        for at in range(one.before // CAUSAL_TILE * CAUSAL_TILE, one.length, CAUSAL_TILE):
            begin, end = max(at, one.before), min(at + CAUSAL_TILE, one.length)
            new = slice(begin - one.before, end - one.before)
            rows_1QRd = query_QNd[None, :, new]
            lowest = 0 if shape.window is None else max(0, at + 1 - shape.window)
            keys, own = slice(lowest, at + CAUSAL_TILE), slice(at, at + CAUSAL_TILE)
            if keys.stop - keys.start <= MASKED:
                values_1QRd, _ = attend_until(rows_1QRd, *_item(state, keys), shape, begin - lowest)
            else:
                earlier, seen = _within(at, torch.arange(begin - at, end - at, device=query_QNd.device), CAUSAL_TILE, shape.window)
                now = attend_until(rows_1QRd, *_item(state, own), shape, begin - at)
                values_1QRd = merge(attend(rows_1QRd, *_item(state, earlier), shape, visible_RK=seen), now)
            out_NQd[new] = values_1QRd[0].transpose(0, 1)

    def _own(self, query_QRd: Tensor, key_GRd: Tensor, value_GRd: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
        """Every readout against itself, causally: values [R, Q, d] and log-sum-exps [R, Q]. Readouts of one length go together."""
        values, lses, start = [], [], 0
        for count, size in self.equal:
            span = slice(start, start + count * size)
            start += count * size
            narrow = shape.window is not None and shape.window < size
            visible = causal_window(size, shape.window or 0, query_QRd.device) if narrow else None
            query_nQsd, key_nGsd, value_nGsd = (_tiles(part[:, span], size) for part in (query_QRd, key_GRd, value_GRd))
            value_nQsd, lse_nQs = attend(query_nQsd, key_nGsd, value_nGsd, shape, causal=not narrow, visible_RK=visible)
            values.append(value_nQsd.transpose(1, 2).flatten(0, 1))
            lses.append(lse_nQs.transpose(1, 2).flatten(0, 1))
        return _cat(values), _cat(lses)

    def _content(self, layer: int, query_QRd: Tensor, whole: Sequence[LayerState], shape: Shape) -> tuple[Tensor, Tensor]:
        """Every readout against its content: values [R, Q, d] and log-sum-exps [R, Q]. All readouts of a content go together."""
        values_RQd = query_QRd.new_empty(query_QRd.shape[1], query_QRd.shape[0], whole[0][1].shape[-1] if whole else query_QRd.shape[2])
        lse_RQ = torch.empty(values_RQd.shape[:2], device=query_QRd.device)
        for one in self.reads:
            state = whole[one.content] if isinstance(one.content, int) else one.content.layers[layer]
            rows_QRd = query_QRd[:, one.rows_R]
            keys, visible_RK = _within(one.length, one.offset_R, LONGEST_READOUT, shape.window)
            shared = [part.to(query_QRd.dtype) for part in _item(state, keys)]
            value, lse = attend(rows_QRd[None], shared[0], shared[1], shape, visible_RK=visible_RK)
            values_RQd[one.rows_R] = value[0].transpose(0, 1)
            lse_RQ[one.rows_R] = lse[0].transpose(0, 1)
        return values_RQd, lse_RQ


def _joined(one: NewContent, layer: int, key_GTd: Tensor, value_GTd: Tensor, causal: bool) -> LayerState:  # noqa: FBT001
    """Keys and values of a content up to its last new one; where it is causal, filled up with zeros to a whole tile."""
    missing = -one.length % CAUSAL_TILE if causal else 0
    new = key_GTd[:, one.start : one.end], value_GTd[:, one.start : one.end]
    if one.past is None:
        return filled(new[0], 0, missing), filled(new[1], 0, missing)
    past = one.past.layers[layer]
    pairs = [(old[:, : one.before].to(more.dtype), more, more.new_zeros(more.shape[0], missing, more.shape[2])) for old, more in zip(past, new, strict=True)]
    return torch.cat(pairs[0], 1), torch.cat(pairs[1], 1)


def _item(state: LayerState, keys: slice = slice(None)) -> LayerState:
    """Keys and values as a batch of one."""
    return state[0][None, :, keys], state[1][None, :, keys]


def _tiles(part_QRd: Tensor, size: int) -> Tensor:
    """[n, Q, size, d] from [Q, n * size, d], without a copy."""
    tiles_nQsd: Tensor = part_QRd.unflatten(1, (-1, size)).transpose(0, 1)
    return tiles_nQsd


def _within(place: int, offset_R: Tensor, longest: int, window: int | None) -> tuple[slice, Tensor | None]:
    """Which of the `place` keys before them rows at place + offset see: a span, and [R, span] where not all could see all of it.

    Args:
        longest: what no offset reaches; how a row is computed must not depend on which other rows there are.
    """
    lowest = 0 if window is None else min(place, max(0, place + 1 - window))
    if window is None or longest - 1 + place - lowest < window:
        return slice(lowest, place), None
    keys = torch.arange(lowest, place, device=offset_R.device)
    return slice(lowest, place), place + offset_R[:, None] - keys < window


def _cat(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
