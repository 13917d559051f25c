"""One step of a backbone on an accelerator: all rows' attention in one launch per layer, over pages of the cache and the rows of the pack.

The same rows see the same keys as in `passes`, which this stands in for wherever Triton's kernels run. Tensors: T rows of the pack, Q query heads,
G key heads, d head width, P rows of the pool.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from snapjudge.model.adapter import Adapter
from snapjudge.model.attention import ContentState, LayerState, Paged, Shape, Switch, row_tile
from snapjudge.model.grouped import Owned, PlacedAdapter, Slab, filled_rank
from snapjudge.model.kernels.attention import Tiles, attend_tiles, rows_of_a_tile
from snapjudge.model.kernels.lora import COMMON, ROWS, TABLES, OwnedTiles, add_adapters
from snapjudge.model.tables import Ints, ReadoutRows, Span, Upload, lying, sight, tiles

Pool = Callable[[int], LayerState]  # layer -> keys and values [P, G, d]
PAGE = 16  # tokens, where contents at hand lie in no pool and are laid in one for the step


@dataclass
class KernelPass:
    """The attention of one step.

    Args:
        spans, readouts: what lies where.
        pool: keys and values of what is at hand, if anything is, and whose it is if it lasts; `page` tokens to a page.
        rows: of the pack; the readouts' begin at `reads_from`.
        fixed: the tables of a recorded step, where it is one; otherwise they are made when a layer first asks.
    """

    spans: Sequence[Span]
    readouts: Sequence[ReadoutRows]
    pool: Pool | None
    page: int
    rows: int
    reads_from: int
    causal: bool
    depth: int
    keep_contents: bool
    switch: Switch
    pool_owner: object = None
    fixed: Tiles | None = None
    captured: list[LayerState] = field(default_factory=list)
    _made: dict[tuple[int | None, bool], Tiles] = field(default_factory=dict)

    def attend(self, layer: int, query_BQTd: Tensor, key_BGTd: Tensor, value_BGTd: Tensor, shape: Shape) -> Tensor:
        """Attend from every row of the pack to what it may see."""
        assert layer == len(self.captured), "layers ran out of order"
        self.switch.windows.add(shape.window)
        self.switch.heads = query_BQTd.shape[1], key_BGTd.shape[1], key_BGTd.shape[3] * key_BGTd.element_size()
        self.captured.append((key_BGTd[0], value_BGTd[0]))
        last = layer == self.depth - 1 and not self.keep_contents and self.fixed is None
        parts = [_side_by_side(part[0].transpose(0, 1)) for part in (query_BQTd, key_BGTd, value_BGTd)]
        pool = self.pool(layer) if self.pool is not None else (parts[1], parts[2])
        out_TQd = attend_tiles(parts[0], parts[1], parts[2], pool, self._tiles(shape.window, not last, query_BQTd.device), shape)
        if last:
            self.switch.leave_out(self.reads_from, row_tile(query_BQTd.dtype, query_BQTd.device))
        return out_TQd[None]

    def recorded(self, tables: Tiles, rows: int) -> "KernelPass":
        """The same pass over tables that lie at a fixed place."""
        return replace(self, fixed=tables, rows=rows, captured=[], _made={})

    def _tiles(self, window: int | None, contents: bool, device: torch.device) -> Tiles:  # noqa: FBT001
        if self.fixed is not None:
            assert window is None, "recorded steps have no windows"
            return self.fixed
        if (window, contents) not in self._made:
            self._made[window, contents] = Tiles(**Upload(self.arrays(window, contents=contents)).send(device), page=self.page)
        return self._made[window, contents]

    def arrays(self, window: int | None, *, contents: bool) -> dict[str, Ints]:
        """The tables of this step for layers with a window."""
        seen = sight(self.spans, self.readouts, self.rows, causal=self.causal, window=window)
        size = rows_of_a_tile(*self.switch.heads)
        return {**tiles(self.spans, self.readouts, seen, size, contents=contents), **seen, **lying(self.spans)}


@dataclass(frozen=True)
class LaidOut:
    """Where states at hand lie: their pool (None: there are none) and whose it is (None: made for this step), tokens of its pages, each state's pages."""

    pool: Pool | None
    owner: object
    page: int
    blocks: list[Sequence[int]]


def laid_out(states: Sequence[ContentState]) -> LaidOut:
    """Find the pool of some states.

    States of one cache lie in its pool already; others are laid in one for the step.
    """
    if not states:
        return LaidOut(None, None, PAGE, [])
    paged = [state.layers for state in states if isinstance(state.layers, Paged)]
    if len(paged) == len(states) and len({id(layers.owner) for layers in paged}) == 1:
        return LaidOut(paged[0].pool, paged[0].owner, paged[0].page, [layers.blocks for layers in paged])
    blocks: list[Sequence[int]] = []
    taken = 0
    for state in states:
        blocks.append(range(taken, taken + -(-state.length // PAGE)))
        taken += len(blocks[-1])

    def pool(layer: int) -> LayerState:
        pairs = [state.layers[layer] for state in states]
        keys, values = (
            torch.cat([functional.pad(pair[which].transpose(0, 1), (0, 0, 0, 0, 0, -pair[which].shape[1] % PAGE)) for pair in pairs]) for which in (0, 1)
        )
        return keys, values

    return LaidOut(pool, None, PAGE, blocks)


class AdapterTiles:
    """The rows of a pack that adapters own, for the grouped kernel; stands in for `grouped.AdapterRows`.

    Args:
        owners: whose rows lie where. Adapters that lie in no slab are laid in one for the step.
        shapes: path -> (inputs, outputs) of the backbone's linears.
    """

    def __init__(self, owners: Sequence[Owned], shapes: Mapping[str, tuple[int, int]], dtype: torch.dtype, device: torch.device) -> None:
        self.end = max(owner.start + owner.rows for owner in owners)
        self.owned, self._before = _all_placed(owners, shapes, dtype, device)
        self._device = device
        self._tiles: OwnedTiles | None = None
        self.width = max(COMMON, *(1 << (owner.adapter.rank - 1).bit_length() for owner in self.owned))

    @classmethod
    def of(cls, owners: Sequence[Owned], shapes: Mapping[str, tuple[int, int]], dtype: torch.dtype, device: torch.device) -> "list[AdapterTiles]":
        """All owners: those of common ranks in one launch, higher ones in another, so that neither changes the other's."""
        some = [owner for owner in owners if owner.adapter.rank <= COMMON], [owner for owner in owners if owner.adapter.rank > COMMON]
        return [cls(each, shapes, dtype, device) for each in some if each]

    def recorded(self, tiles: OwnedTiles) -> "AdapterTiles":
        """The same layers over tables that lie at a fixed place."""
        twin = copy(self)
        twin._tiles = tiles
        return twin

    def rows_of(self, x_TI: Tensor) -> Tensor:
        """The kernel finds its rows by itself."""
        return x_TI

    def add_to(self, y_TO: Tensor, path: str, x_TI: Tensor) -> None:
        """Add the adapters' products to their rows' outputs."""
        if self._tiles is None:
            self._tiles = OwnedTiles(**Upload(adapter_arrays(self.owned)).send(self._device), width=self.width)
        add_adapters(y_TO, x_TI, self._tiles, self._before[path])


def adapter_arrays(owned: Sequence[Owned]) -> dict[str, Ints]:
    """The tables of the grouped kernel: tiles of one owner's rows, and where its weights begin."""
    tiles_ = [
        (owner.start + at, min(ROWS, owner.rows - at), owner.adapter.address, owner.adapter.rank)
        for owner in owned
        if isinstance(owner.adapter, PlacedAdapter)
        for at in range(0, owner.rows, ROWS)
    ]
    return {name: np.array(column, dtype=np.int64) for name, column in zip(TABLES, zip(*tiles_, strict=True), strict=True)}


def _all_placed(
    owners: Sequence[Owned], shapes: Mapping[str, tuple[int, int]], dtype: torch.dtype, device: torch.device
) -> tuple[list[Owned], Mapping[str, int]]:
    """The owners, those that lie in no slab of the kernel's type laid in one; and what comes before each layer, the same in every slab."""
    placed: dict[Adapter, PlacedAdapter] = {}
    for adapter in {owner.adapter for owner in owners}:
        if isinstance(adapter, PlacedAdapter) and adapter.slab.flat_sP.dtype == dtype:
            placed[adapter] = adapter
        else:
            placed[adapter] = Slab(shapes, rank=filled_rank(adapter.rank), slots=1, dtype=dtype, device=device).place(adapter, 0)
    before = next(iter(placed.values())).slab.before
    return [Owned(placed[owner.adapter], owner.start, owner.rows) for owner in owners], before


def _side_by_side(part_TQd: Tensor) -> Tensor:
    """With head widths side by side, as the kernel reads them."""
    return part_TQd if part_TQd.stride(2) == 1 else part_TQd.contiguous()
