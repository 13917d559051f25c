"""Many adapters at once: where their weights lie side by side, and the rows of a pack as one batched product over all of them.

Knows adapters and rows; nothing of attention, contents or metrics.

Tensors: T rows of a pack, n items, m rows of an item, s slots, I inputs, O outputs, r rank.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from snapjudge.model.adapter import Adapter
from snapjudge.model.attention import TILE, row_tile

LEAST_ITEMS = 2
OWN_PRODUCT = 4  # adapters of one slab from which on they get a product of their own, that copies no weights


@dataclass(frozen=True, eq=False)
class PlacedAdapter(Adapter):
    """An adapter whose weights are views into a slab, its scale already in B."""

    slab: "Slab" = field(kw_only=True)
    slot: int = field(kw_only=True)

    @property
    def address(self) -> int:
        """Where its weights begin in the device's memory."""
        return self.slab.flat_sP[self.slot].data_ptr()


def filled_rank(rank: int) -> int:
    """A rank filled up to a multiple of TILE, as slabs and batched products have it."""
    return rank + -rank % TILE


class Slab:
    """Room for several adapters of one rank, side by side, so that a batched product over neighbours needs no copy.

    Each adapter is one piece of memory, `flat_sP[slot]`: A [r, I] and B [O, r] of one layer after the other. `before` tells the inputs and outputs, summed, of
    the layers that come before one; a layer begins at that many times the rank.

    Args:
        shapes: path -> (inputs, outputs) of the backbone's linears.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, int]], *, rank: int, slots: int, dtype: torch.dtype, device: torch.device) -> None:
        self.rank, self.slots = rank, slots
        *starts, total = accumulate((inputs + outputs for inputs, outputs in shapes.values()), initial=0)
        self.before = dict(zip(shapes, starts, strict=True))
        self.flat_sP = torch.empty(slots, rank * total, dtype=dtype, device=device)
        self.weights: dict[str, tuple[Tensor, Tensor]] = {}
        for path, (inputs, outputs) in shapes.items():
            down_sX, up_sX = self.flat_sP[:, rank * self.before[path] :][:, : rank * (inputs + outputs)].split([rank * inputs, rank * outputs], 1)
            self.weights[path] = down_sX.view(slots, rank, inputs), up_sX.view(slots, outputs, rank)

    def place(self, adapter: Adapter, slot: int) -> PlacedAdapter:
        """Copy an adapter into a slot, its rank filled up with zeros and B scaled; the result's weights are views into the slab."""
        weights = {}
        for path, (down_srI, up_sOr) in self.weights.items():
            down, up = adapter.weights[path]
            down_srI[slot, : adapter.rank], down_srI[slot, adapter.rank :] = down.detach(), 0
            up_sOr[slot, :, : adapter.rank], up_sOr[slot, :, adapter.rank :] = up.detach() * adapter.scale, 0
            weights[path] = (down_srI[slot], up_sOr[slot])
        return PlacedAdapter(adapter.scope, self.rank, self.rank, weights, adapter.invocation, slab=self, slot=slot)

    def pair(self, path: str, slots: slice) -> tuple[Tensor, Tensor]:
        """A transposed [n, I, r] and B transposed [n, r, O] of some neighbours, without a copy."""
        down_srI, up_sOr = self.weights[path]
        return down_srI[slots].transpose(1, 2), up_sOr[slots].transpose(1, 2)


@dataclass(frozen=True)
class Owned:
    """Consecutive rows of a pack that one adapter owns."""

    adapter: Adapter
    start: int
    rows: int


class RowAdapters(Protocol):
    """Adapters and the rows of a pack they own, as linear layers apply them."""

    @property
    def end(self) -> int:
        """The row after the last that is owned."""
        ...

    def rows_of(self, x_TI: Tensor) -> Tensor:
        """What is multiplied of a layer's input: made once for all layers that share the input."""
        ...

    def add_to(self, y_TO: Tensor, path: str, rows: Tensor) -> None:
        """Add the adapters' products to their rows' outputs, in place."""
        ...


@dataclass(eq=False)
class AdapterRows:
    """The rows of a pack that some adapters of one rank (in TILEs) own, laid out for one batched product over all of them.

    In float32 the product always has at least LEAST_ITEMS items of a multiple of TILE rows: batched products of fewer or shorter items sum in another
    order on some libraries, and a row's bits must not depend on what it is batched with (docs/design/0006).

    Args:
        adapters: one for every item; one that comes several times has its rows cut in parts.
        size: rows of an item.
        rows_R: the rows they own, a slice where they lie side by side.
        gather_T: rows of the pack that the items multiply, some of them only to fill an item up; None where they are `rows_R`.
        kept_R: where among those results the ones of `rows_R` lie.
        dtype: of the weights, as slabs of the same backbone have them.
    """

    adapters: tuple[Adapter, ...]
    size: int
    rows_R: Tensor | slice
    gather_T: Tensor | None
    kept_R: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, owners: Sequence[Owned], dtype: torch.dtype, device: torch.device) -> "AdapterRows":
        """Lay out some owners, in the order of their rows; items are as long as the rows of most of them."""
        assert all(first.start < second.start for first, second in pairwise(owners)), "owners out of order"
        tile = row_tile(dtype, device)
        least = 1 if tile == 1 else LEAST_ITEMS
        middle = sorted(owner.rows for owner in owners)[len(owners) // 2]
        size = -(-middle // tile) * tile
        if sum(-(-owner.rows // size) for owner in owners) < least:
            size = max(tile, -(-max(owner.rows for owner in owners) // (least * tile)) * tile)
        adapters: list[Adapter] = []
        gather: list[Tensor] = []
        owned: list[Tensor] = []
        kept: list[Tensor] = []
        for owner in owners:
            parts = -(-owner.rows // size)
            own_R = torch.arange(owner.rows)
            owned.append(owner.start + own_R)
            kept.append(len(adapters) * size + own_R)
            gather.append(owner.start + torch.arange(parts * size).clamp_max(owner.rows - 1))
            adapters += [owner.adapter] * parts
        if missing := max(0, least - len(adapters)):
            adapters += adapters[-1:] * missing
            gather.append(gather[-1][-size:].repeat(missing))
        rows_R, gather_T = torch.cat(owned), torch.cat(gather)
        span = slice(int(rows_R[0]), int(rows_R[-1]) + 1)
        together = span.stop - span.start == len(rows_R)
        exact = together and torch.equal(rows_R, gather_T)
        rows = span if together else rows_R.to(device)
        return cls(tuple(adapters), size, rows, None if exact else gather_T.to(device), torch.cat(kept).to(device), dtype)

    @property
    def end(self) -> int:
        """The row after the last that is owned."""
        return self.rows_R.stop if isinstance(self.rows_R, slice) else int(self.rows_R[-1]) + 1

    def rows_of(self, x_TI: Tensor) -> Tensor:
        """The items' rows [n, m, I]; a view where nothing has to be filled up."""
        rows = x_TI[self.rows_R] if self.gather_T is None else x_TI.index_select(0, self.gather_T)
        return rows.view(len(self.adapters), self.size, -1)

    def add_to(self, y_TO: Tensor, path: str, rows_nmI: Tensor) -> None:
        """Add the adapters' products to their rows' outputs."""
        down_nIr, up_nrO = self.pair(path)
        low_nmr = torch.bmm(rows_nmI.to(down_nIr.dtype), down_nIr)
        delta_TO = torch.bmm(low_nmr, up_nrO).flatten(0, 1).to(y_TO.dtype)
        if self.gather_T is not None:
            delta_TO = delta_TO.index_select(0, self.kept_R)
        if isinstance(self.rows_R, slice):
            y_TO[self.rows_R].add_(delta_TO)
        else:
            y_TO.index_add_(0, self.rows_R, delta_TO)

    def pair(self, path: str) -> tuple[Tensor, Tensor]:
        """A transposed [n, I, r] and scaled B transposed [n, r, O] of all items at one linear, r a multiple of TILE.

        Views where they are one adapter's or lie side by side in a slab.
        """
        first, count = self.adapters[0], len(self.adapters)
        if self._place is not None:
            assert isinstance(first, PlacedAdapter)
            return first.slab.pair(path, self._place)
        if all(one is first for one in self.adapters):
            down_rI, up_Or = _filled(first, path, self.dtype)
            return down_rI.t().expand(count, -1, -1), up_Or.t().expand(count, -1, -1)
        downs, ups = zip(*(_filled(one, path, self.dtype) for one in self.adapters), strict=True)
        return torch.stack(downs).transpose(1, 2), torch.stack(ups).transpose(1, 2)

    def __post_init__(self) -> None:
        first = self.adapters[0]
        self._place: slice | None = None
        if isinstance(first, PlacedAdapter):
            side_by_side = (
                isinstance(one, PlacedAdapter) and one.slab is first.slab and one.slot == first.slot + place for place, one in enumerate(self.adapters)
            )
            self._place = slice(first.slot, first.slot + len(self.adapters)) if all(side_by_side) else None


def batched(owners: Sequence[Owned], dtype: torch.dtype, device: torch.device) -> list[AdapterRows]:
    """One product for the adapters of a slab where there are several, one for all others of a rank."""
    return [AdapterRows.of(some, dtype, device) for some in _groups(owners)]


def _groups(owners: Sequence[Owned]) -> Iterator[list[Owned]]:
    by_rank: dict[int, dict[int, list[Owned]]] = {}
    for owner in owners:
        adapter = owner.adapter
        slab = id(adapter.slab) if isinstance(adapter, PlacedAdapter) else 0
        by_rank.setdefault(filled_rank(adapter.rank), {}).setdefault(slab, []).append(owner)
    for by_slab in by_rank.values():
        if len(by_slab) == 1:
            yield from by_slab.values()
            continue
        yield from (some for some in by_slab.values() if len(some) >= OWN_PRODUCT)
        rest = [owner for some in by_slab.values() if len(some) < OWN_PRODUCT for owner in some]
        if rest:
            yield sorted(rest, key=lambda owner: owner.start)


def _filled(adapter: Adapter, path: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A [r, I] and B [O, r] times the adapter's scale, as a slab would have them: of this type, the rank filled up with zeros to a multiple of TILE."""
    down_rI, up_Or = adapter.weights[path]
    if isinstance(adapter, PlacedAdapter):
        return down_rI, up_Or
    missing = filled_rank(adapter.rank) - adapter.rank
    return functional.pad(down_rI.to(dtype), (0, 0, 0, missing)), functional.pad((up_Or * adapter.scale).to(dtype), (0, missing))
