"""y = x W^T + b where a row's bits do not depend on the number of rows: one order of summation over the inputs, never split.

A library's product picks its kernel by the number of rows, and with it the order of summation (He, Thinking Machines, 2025).

Tensors: T rows, I inputs, O outputs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

STEP = 64  # inputs summed at a time, the same for every shape
_FEW = 128  # rows up to which small tiles keep more of the device busy


@triton.jit  # type: ignore[untyped-decorator]
def _product(  # type: ignore[no-untyped-def]
    x, w, bias, y, rows, outputs, inputs, stride_x, stride_w, stride_y,
    HAS_BIAS: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_I: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    across, down = tl.cdiv(outputs, BLOCK_O), tl.cdiv(rows, BLOCK_T)
    place = tl.program_id(0)
    first = place // (GROUP * across) * GROUP  # neighbours share weights: GROUP row tiles at a time
    height = tl.minimum(down - first, GROUP)
    tile_t = first + place % (GROUP * across) % height
    tile_o = place % (GROUP * across) // height
    at_t = tile_t * BLOCK_T + tl.arange(0, BLOCK_T)
    at_o = tile_o * BLOCK_O + tl.arange(0, BLOCK_O)
    at_i = tl.arange(0, BLOCK_I)
    x_at = x + at_t[:, None].to(tl.int64) * stride_x + at_i[None, :]
    w_at = w + at_o[None, :].to(tl.int64) * stride_w + at_i[:, None]
    total = tl.zeros((BLOCK_T, BLOCK_O), dtype=tl.float32)
    for start in range(0, inputs, BLOCK_I):
        left = at_i < inputs - start
        x_block = tl.load(x_at + start, mask=(at_t[:, None] < rows) & left[None, :], other=0.0)
        w_block = tl.load(w_at + start, mask=(at_o[None, :] < outputs) & left[:, None], other=0.0)
        total = tl.dot(x_block, w_block, total, input_precision="ieee")
    if HAS_BIAS:
        total += tl.load(bias + at_o, mask=at_o < outputs, other=0.0).to(tl.float32)[None, :]
    kept = (at_t[:, None] < rows) & (at_o[None, :] < outputs)
    tl.store(y + at_t[:, None].to(tl.int64) * stride_y + at_o[None, :], total.to(y.dtype.element_ty), mask=kept)


def blocks_for(rows: int) -> tuple[int, int, int]:
    """Rows and outputs of a program, and its warps: small ones for few rows. The order of each sum is the same in both."""
    return (64, 64, 4) if rows <= _FEW else (128, 128, 8)


def product(x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """The frozen product, [T, O]; both tensors with their inputs side by side."""
    rows, inputs = x_TI.shape
    outputs = len(weight_OI)
    y_TO = torch.empty(rows, outputs, dtype=x_TI.dtype, device=x_TI.device)
    block_t, block_o, warps = blocks_for(rows)
    grid = (triton.cdiv(rows, block_t) * triton.cdiv(outputs, block_o),)
    _product[grid](
        x_TI, weight_OI, x_TI if bias_O is None else bias_O, y_TO, rows, outputs, inputs, x_TI.stride(0), weight_OI.stride(0), y_TO.stride(0),
        HAS_BIAS=bias_O is not None, BLOCK_T=block_t, BLOCK_O=block_o, BLOCK_I=STEP, GROUP=8, num_warps=warps, num_stages=3,
    )  # fmt: skip
    return y_TO
