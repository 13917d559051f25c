"""The frozen product of a linear layer, laid out once for the machine it runs on.

float32 as it is; bfloat16 in oneDNN's own layout, which otherwise is made anew at every call (a fifth of the time of a short pass), and on processors with
AMX in pieces of the inner size, since there the order of a longer sum depends on how many rows there are (docs/design/0006); int8 with one scale
per output channel and, at run time, one per row of activations, accumulated in whole numbers: exact, and so the same in any pack. A plain weight is let go
when the laid-out one is made, and made again from it where training asks for gradients. Knows nothing of adapters.

Tensors: T rows, I inputs, O outputs.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from snapjudge.model.attention import Switch

_ZERO = 128  # of unsigned activations: oneDNN's fast kernels take those
_LARGEST = 127.0
_AMX_INPUTS = 448
_NEAR = 1 << 20  # numbers that stay near the processor from one operation to the next


class FrozenProduct(Protocol):
    """y = x W^T + b of one frozen linear layer."""

    def __call__(self, x_TI: Tensor, switch: Switch) -> Tensor:
        """The product for inference, [T, O]."""
        ...

    def differentiable(self, x: Tensor) -> Tensor:
        """The same with gradients for x, [.., O] of [.., I]."""
        ...


def frozen_product(base: nn.Linear, *, int8: bool) -> FrozenProduct:
    """The product of a linear layer: in int8 where asked for, otherwise in the type of its weight."""
    return Int8Product(base) if int8 else PlainProduct(base)


class PlainProduct:
    """In the weight's own type."""

    def __init__(self, base: nn.Linear) -> None:
        self._base = base
        self._packed: list[Tensor] = []  # pieces of the inner size, in oneDNN's layout

    def __call__(self, x_TI: Tensor, switch: Switch) -> Tensor:
        """The product for inference, [T, O]."""
        if switch.kernels:
            from snapjudge.model.kernels.products import product  # noqa: PLC0415 - Triton is there where there is an accelerator

            return product(x_TI, self._base.weight, self._base.bias)
        if not self._packed and _packable(self._base.weight):
            pieces_OI = self._base.weight.detach().split(_piece(self._base.in_features), 1)
            self._packed = [torch.ops.mkldnn._reorder_linear_weight(piece_OI.contiguous()) for piece_OI in pieces_OI]
            _let_go(self._base)
        if not self._packed:
            return functional.linear(x_TI, self._base.weight, self._base.bias)
        if len(self._packed) == 1:
            return _packed_product(x_TI, self._packed[0], self._base.bias)
        parts_TI = x_TI.split(_piece(self._base.in_features), 1)
        y_TO = _packed_product(parts_TI[0], self._packed[0], self._base.bias).float()
        for part_TI, piece in zip(parts_TI[1:], self._packed[1:], strict=True):
            y_TO += _packed_product(part_TI, piece, None)
        return y_TO.to(x_TI.dtype)

    def differentiable(self, x: Tensor) -> Tensor:
        """The same with gradients for x."""
        if self._packed:
            weight_OI = torch.cat([piece.to_dense() for piece in self._packed], 1)
            self._base.weight = nn.Parameter(weight_OI, requires_grad=False)
            self._packed = []
        return functional.linear(x, self._base.weight, self._base.bias)


class Int8Product:
    """Weights in int8 with a scale per output channel; activations in int8 with a scale per row, found as they come."""

    def __init__(self, base: nn.Linear) -> None:
        self._base = base
        self._laid: tuple[Tensor, Tensor, Tensor] | None = None  # weight as the machine wants it, scale_O, zero_O

    def __call__(self, x_TI: Tensor, switch: Switch) -> Tensor:
        """The product for inference, [T, O] in the type of x."""
        weight, scale_O, zero_O = self._weights()
        x8_TI, scale_T1 = switch.once("int8", x_TI, lambda: _quantised(x_TI))
        if x_TI.device.type == "cpu":
            whole_TO = torch.ops.onednn.qlinear_pointwise(x8_TI, 1.0, _ZERO, weight, scale_O, zero_O, None, 1.0, 0, x_TI.dtype, "none", [], "")
        else:  # this library wants more than 16 rows
            filled_TI = functional.pad(x8_TI, (0, 0, 0, max(0, 32 - len(x8_TI))))
            whole_TO = (torch._int_mm(filled_TI, weight.t())[: len(x8_TI)].float() * scale_O).to(x_TI.dtype)
        y_TO: Tensor = whole_TO.mul_(scale_T1)
        return y_TO if self._base.bias is None else y_TO.add_(self._base.bias)

    def differentiable(self, x: Tensor) -> Tensor:
        """The same with gradients for x: with the weights that int8 stands for, and activations as they are."""
        weight, scale_O, _ = self._weights()
        weight_OI = (weight.to_dense().t() if weight.is_mkldnn else weight).float() * scale_O[:, None]
        return functional.linear(x, weight_OI.to(x.dtype), self._base.bias)

    def _weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """The int8 weight, made at the first call: each channel's largest weight becomes 127."""
        if self._laid is None:
            weight_OI = self._base.weight.detach().float()
            scale_O = (weight_OI.abs().amax(1) / _LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
            whole_OI = (weight_OI / scale_O[:, None]).round().to(torch.int8)
            laid = torch.ops.onednn.qlinear_prepack(whole_OI, None) if weight_OI.device.type == "cpu" else whole_OI
            self._laid = laid, scale_O, torch.zeros(len(scale_O), dtype=torch.int64)
            _let_go(self._base)
        return self._laid


def _quantised(x_TI: Tensor) -> tuple[Tensor, Tensor]:
    """Activations in int8 (on a CPU unsigned, around 128) and each row's scale, in the type of x: rounded up, so that nothing leaves the range."""
    here = x_TI.device.type == "cpu"
    x8_TI = torch.empty(x_TI.shape, dtype=torch.int8, device=x_TI.device)
    scale_T1 = x_TI.new_empty(len(x_TI), 1)
    some = max(16, _NEAR // x_TI.shape[1]) if here else len(x_TI)
    for x_RI, x8_RI, scale_R1 in zip(x_TI.split(some), x8_TI.split(some), scale_T1.split(some), strict=True):
        wide_RI = x_RI.to(torch.float32, copy=True)
        largest_R1 = torch.maximum(wide_RI.amax(-1, keepdim=True), -wide_RI.amin(-1, keepdim=True))
        scale_R1.copy_((largest_R1 * (1.004 / _LARGEST)).clamp_min(torch.finfo(torch.float32).tiny))
        x8_RI.copy_(wide_RI.mul_(scale_R1.float().reciprocal()).round_())
    return x8_TI.view(torch.uint8).bitwise_xor_(_ZERO) if here else x8_TI, scale_T1  # on a CPU 128 is added


def _let_go(base: nn.Linear) -> None:
    """Give the plain weight's memory back; its shape and type are still asked for."""
    base.weight = nn.Parameter(torch.empty_like(base.weight, device="meta"), requires_grad=False)


def _packed_product(x_TI: Tensor, packed: Tensor, bias_O: Tensor | None) -> Tensor:
    y_TO: Tensor = torch.ops.mkldnn._linear_pointwise(x_TI, packed, bias_O, "none", [], "")
    return y_TO


def _piece(inputs: int) -> int:
    """How many inputs a product may sum over so that its order is the same for any number of rows: all of them, but on processors with AMX."""
    if inputs <= _AMX_INPUTS or not torch.cpu._is_amx_tile_supported():
        return inputs
    pieces = -(-inputs // _AMX_INPUTS)
    return -(-inputs // (32 * pieces)) * 32


def _packable(weight: Tensor) -> bool:
    """Whether oneDNN has a layout of its own for this weight on this machine."""
    here = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return here and torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
