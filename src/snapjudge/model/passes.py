"""One step of a backbone as its attention sees it: new tokens of some contents, and readouts of any judges, in one pack.

Each content attends to what of it came before and to itself, each readout to its own content and to itself. The product of a content's keys with
all its readouts is computed once, in tiles of `READ_TILE` rows; causal contents are computed in tiles of `CAUSAL_TILE` positions. So the shapes a row's
result depends on are set by its own content and position, whatever else is in the step (docs/design/0006).

Tensors: Q query heads, G key heads, T rows of the pack, R rows of readouts, C content tokens, n items, d head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from snapjudge.model.attention import TILE, ContentState, LayerState, Shape, Switch, attend, causal_window, merge

CAUSAL_TILE = 32
READ_TILE = 32


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
        whole = [_joined(one, layer, key, value) for one in self.contents]
        if not last:
            for one, state in zip(self.contents, whole, strict=True):
                rows = slice(one.start, one.end)
                attended_QCd = (self._causal if self.causal else self._bidirectional)(one, query[:, rows], state, shape)
                out_TQd[rows] = attended_QCd.transpose(0, 1)
        if self.equal:
            rows = slice(self.reads_from, self.reads_to)
            own = self._own(query[:, rows], key[:, rows], value[:, rows], shape)
            content = self._content(layer, query[:, rows], whole, shape)
            out_TQd[rows] = merge(content, own)
        if last:
            self.switch.leave_out(self.reads_from)
        return out_TQd[None]

    def _bidirectional(self, one: NewContent, query_QCd: Tensor, state: LayerState, shape: Shape) -> Tensor:
        """A whole content against itself, in one product."""
        short = max(0, READ_TILE - one.length)
        values, _ = attend(functional.pad(query_QCd, (0, 0, 0, short))[None], *_item(state), shape)
        return values[0, :, : one.length]

    def _causal(self, one: NewContent, query_QNd: Tensor, state: LayerState, shape: Shape) -> Tensor:
        """New tokens of a causal content, tile by tile: each tile against all before it, and against itself."""
        first, end = one.before // CAUSAL_TILE, -(-one.length // CAUSAL_TILE)
        begin, skipped, missing = first * CAUSAL_TILE, one.before - first * CAUSAL_TILE, end * CAUSAL_TILE - one.length
        query_nQtd = _tiles(functional.pad(query_QNd, (0, 0, skipped, missing)), CAUSAL_TILE)
        own = [_tiles(functional.pad(part[:, begin:], (0, 0, 0, missing)), CAUSAL_TILE) for part in state]
        narrow = shape.window is not None and shape.window < CAUSAL_TILE
        visible = causal_window(CAUSAL_TILE, shape.window or 0, query_QNd.device) if narrow else None
        values_nQtd, lse_nQt = attend(query_nQtd, own[0], own[1], shape, causal=not narrow, visible_RK=visible)
        out = []
        for tile, at in enumerate(range(begin, end * CAUSAL_TILE, CAUSAL_TILE)):
            now = values_nQtd[tile : tile + 1], lse_nQt[tile : tile + 1]
            earlier, seen = _within(at, torch.arange(CAUSAL_TILE, device=query_QNd.device), shape.window)
            if earlier.start < at:
                past = attend(query_nQtd[tile : tile + 1], *_item(state, earlier), shape, visible_RK=seen)
                out.append(merge(past, now)[0])
            else:
                out.append(now[0][0])
        joined_QNd: Tensor = torch.cat(out, 1)[:, skipped : skipped + query_QNd.shape[1]]
        return joined_QNd

    def _own(self, query_QRd: Tensor, key_GRd: Tensor, value_GRd: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
        """Every readout against itself, causally: values [R, Q, d] and log-sum-exps [R, Q]. Readouts of one length go together."""
        values, lses, start = [], [], 0
        for count, size in self.equal:
            span = slice(start, start + count * size)
            start += count * size
            padded = size + -size % TILE
            narrow = shape.window is not None and shape.window < size
            visible = causal_window(padded, shape.window or 0, query_QRd.device) if narrow else None
            items = [functional.pad(_tiles(part[:, span], size), (0, 0, 0, padded - size)) for part in (query_QRd, key_GRd, value_GRd)]
            value_nQsd, lse_nQs = attend(items[0], items[1], items[2], shape, causal=not narrow, visible_RK=visible)
            values.append(value_nQsd[:, :, :size].transpose(1, 2).flatten(0, 1))
            lses.append(lse_nQs[:, :, :size].transpose(1, 2).flatten(0, 1))
        return _cat(values), _cat(lses)

    def _content(self, layer: int, query_QRd: Tensor, whole: Sequence[LayerState], shape: Shape) -> tuple[Tensor, Tensor]:
        """Every readout against its content: values [R, Q, d] and log-sum-exps [R, Q]. All readouts of a content go together."""
        values_RQd = query_QRd.new_empty(query_QRd.shape[1], query_QRd.shape[0], whole[0][1].shape[-1] if whole else query_QRd.shape[2])
        lse_RQ = torch.empty(values_RQd.shape[:2], device=query_QRd.device)
        for one in self.reads:
            state = whole[one.content] if isinstance(one.content, int) else one.content.layers[layer]
            rows_QRd = query_QRd[:, one.rows_R]
            count = rows_QRd.shape[1]
            missing = -count % READ_TILE
            tiles_nQtd = _tiles(functional.pad(rows_QRd, (0, 0, 0, missing)), READ_TILE)
            keys, visible = _within(one.length, functional.pad(one.offset_R, (0, missing)), shape.window)
            if visible is None:
                shared = [part[None, :, keys].to(query_QRd.dtype).expand(len(tiles_nQtd), -1, -1, -1) for part in state]
                value, lse = attend(tiles_nQtd, shared[0], shared[1], shape)
            else:
                tiles = [
                    attend(tile, *_item(state, keys), shape, visible_RK=seen) for tile, seen in zip(tiles_nQtd.split(1), visible.split(READ_TILE), strict=True)
                ]
                value, lse = torch.cat([part for part, _ in tiles]), torch.cat([part for _, part in tiles])
            values_RQd[one.rows_R] = value.transpose(1, 2).flatten(0, 1)[:count]
            lse_RQ[one.rows_R] = lse.transpose(1, 2).flatten(0, 1)[:count]
        return values_RQd, lse_RQ


def _joined(one: NewContent, layer: int, key_GTd: Tensor, value_GTd: Tensor) -> LayerState:
    """Keys and values of a content up to its last new token."""
    new = key_GTd[:, one.start : one.end], value_GTd[:, one.start : one.end]
    if one.past is None:
        return new
    keys, values = one.past.layers[layer]
    return torch.cat((keys[:, : one.before].to(new[0].dtype), new[0]), 1), torch.cat((values[:, : one.before].to(new[1].dtype), new[1]), 1)


def _item(state: LayerState, keys: slice = slice(None)) -> LayerState:
    """Keys and values as a batch of one."""
    return state[0][None, :, keys], state[1][None, :, keys]


def _tiles(part_QRd: Tensor, size: int) -> Tensor:
    """[n, Q, size, d] from [Q, n * size, d], without a copy."""
    tiles_nQsd: Tensor = part_QRd.unflatten(1, (-1, size)).transpose(0, 1)
    return tiles_nQsd


def _within(place: int, offset_R: Tensor, window: int | None) -> tuple[slice, Tensor | None]:
    """Which of the `place` keys before them rows at place + offset see: a span, and [R, span] where they do not all see all of it."""
    lowest = 0 if window is None else min(place, max(0, place + 1 - window))
    if window is None or int(offset_R.max()) + place - lowest < window:
        return slice(lowest, place), None
    keys = torch.arange(lowest, place, device=offset_R.device)
    return slice(lowest, place), place + offset_R[:, None] - keys < window


def _cat(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
