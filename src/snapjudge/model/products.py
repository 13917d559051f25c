"""The frozen product of a linear layer, laid out once for the machine it runs on.

oneDNN reorders a bfloat16 weight at every call unless it is handed over in its own layout: a fifth of the time of a short pass. The plain weight is let
go when the laid-out one is made, and made again from it where training asks for gradients. Knows nothing of adapters.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class FrozenProduct:
    """y = x W^T + b of one frozen linear layer."""

    def __init__(self, base: nn.Linear) -> None:
        self.base = base
        self._packed: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """The product for inference, [.., O] of [.., I]."""
        if self._packed is None and _packable(self.base.weight):
            self._pack()
        if self._packed is None:
            return functional.linear(x, self.base.weight, self.base.bias)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.base.bias, "none", [], "")
        return y

    def differentiable(self, x: Tensor) -> Tensor:
        """The same with gradients for x."""
        if self._packed is not None:
            self.base.weight = nn.Parameter(self._packed.to_dense(), requires_grad=False)
            self._packed = None
        return functional.linear(x, self.base.weight, self.base.bias)

    def _pack(self) -> None:
        weight = self.base.weight
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous())
        self.base.weight = nn.Parameter(torch.empty_like(weight, device="meta"), requires_grad=False)  # its shape and type are still asked for


def _packable(weight: Tensor) -> bool:
    """Whether oneDNN has a layout of its own for this weight on this machine."""
    here = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return here and torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
