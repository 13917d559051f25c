"""Grouped LoRA: the rows of a pack times each owner's adapter, whatever adapters they are, in two launches.

The rows are cut in tiles of one owner each; a tile finds its adapter by address, so adapters may lie in any slab and nothing is copied
(after Punica's SGMV, arXiv 2310.18547, and S-LoRA, arXiv 2311.03285). Every sum runs in one order, so a row's bits depend on its adapter and itself alone.

Tensors: T rows of a pack, t tiles, I inputs, O outputs, r rank.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 16  # of a tile
COMMON = 64  # ranks up to here share a launch, whatever they are; higher ones go by themselves


TABLES = ("start_t", "count_t", "base_t", "rank_t")  # of OwnedTiles, in its order


@dataclass(frozen=True)
class OwnedTiles:
    """Where the adapters' rows lie.

    Args:
        start_t: first row of each tile; `count_t` how many of its ROWS rows the adapter owns (0: an empty tile).
        base_t: address of each tile's adapter: all its weights in one piece, A [r, I] and B [O, r], its scale in it, layer after layer.
        rank_t: its rank, a multiple of 16.
        width: a power of two that no rank is above.
    """

    start_t: Tensor
    count_t: Tensor
    base_t: Tensor
    rank_t: Tensor
    width: int = COMMON


@triton.jit  # type: ignore[untyped-decorator]
def _shrink(  # type: ignore[no-untyped-def]
    x, low, start_t, count_t, base_t, rank_t, before, inputs, stride_x, ROWS: tl.constexpr, RANK: tl.constexpr, BLOCK_I: tl.constexpr
):
    tile = tl.program_id(0)
    count = tl.load(count_t + tile)
    if count > 0:
        row, at_i, at_r = tl.arange(0, ROWS), tl.arange(0, BLOCK_I), tl.arange(0, RANK)
        at_t = tl.load(start_t + tile) + row
        rank = tl.load(rank_t + tile)
        down = tl.load(base_t + tile).to(tl.pointer_type(x.dtype.element_ty)) + rank * before
        total = tl.zeros((ROWS, RANK), dtype=tl.float32)
        for first in range(0, inputs, BLOCK_I):
            left = at_i < inputs - first
            x_block = tl.load(x + at_t[:, None].to(tl.int64) * stride_x + first + at_i[None, :], mask=(row[:, None] < count) & left[None, :], other=0.0)
            a_block = tl.load(down + at_r[None, :] * inputs + first + at_i[:, None], mask=left[:, None] & (at_r[None, :] < rank), other=0.0)
            total = tl.dot(x_block, a_block, total, input_precision="ieee")
        tl.store(low + (tile * ROWS + row)[:, None] * RANK + at_r[None, :], total.to(low.dtype.element_ty))


@triton.jit  # type: ignore[untyped-decorator]
def _expand(  # type: ignore[no-untyped-def]
    low, y, start_t, count_t, base_t, rank_t, before, inputs, outputs, stride_y, ROWS: tl.constexpr, RANK: tl.constexpr, BLOCK_O: tl.constexpr
):
    tile = tl.program_id(0)
    count = tl.load(count_t + tile)
    if count > 0:
        row, at_r = tl.arange(0, ROWS), tl.arange(0, RANK)
        at_o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
        at_t = tl.load(start_t + tile) + row
        rank = tl.load(rank_t + tile)
        up = tl.load(base_t + tile).to(tl.pointer_type(y.dtype.element_ty)) + rank * (before + inputs)
        low_block = tl.load(low + (tile * ROWS + row)[:, None] * RANK + at_r[None, :])
        b_block = tl.load(up + at_o[None, :] * rank + at_r[:, None], mask=(at_o[None, :] < outputs) & (at_r[:, None] < rank), other=0.0)
        delta = tl.dot(low_block, b_block, input_precision="ieee")
        place = y + at_t[:, None].to(tl.int64) * stride_y + at_o[None, :]
        kept = (row[:, None] < count) & (at_o[None, :] < outputs)
        present = tl.load(place, mask=kept, other=0.0)
        tl.store(place, (present.to(tl.float32) + delta).to(y.dtype.element_ty), mask=kept)


def inputs_at_once(width: int) -> int:
    """Inputs summed at a time: as many as fit beside the ranks."""
    return 128 if width <= COMMON else 32


def add_adapters(y_TO: Tensor, x_TI: Tensor, tiles: OwnedTiles, before: int) -> None:
    """Add every owner's B A x to its rows of y, in place.

    Args:
        before: inputs and outputs, summed, of the layers that come before this one in an adapter's piece.
    """
    count, (inputs, outputs) = len(tiles.start_t), (x_TI.shape[1], y_TO.shape[1])
    low = torch.empty(count * ROWS, tiles.width, dtype=x_TI.dtype, device=x_TI.device)
    tables = tiles.start_t, tiles.count_t, tiles.base_t, tiles.rank_t
    _shrink[(count,)](x_TI, low, *tables, before, inputs, x_TI.stride(0), ROWS=ROWS, RANK=tiles.width, BLOCK_I=inputs_at_once(tiles.width), num_warps=4)
    grid = (count, triton.cdiv(outputs, 128))
    _expand[grid](low, y_TO, *tables, before, inputs, outputs, y_TO.stride(0), ROWS=ROWS, RANK=tiles.width, BLOCK_O=128, num_warps=4)
