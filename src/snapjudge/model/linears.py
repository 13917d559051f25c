"""The linear layers of a backbone: the frozen product, plus each adapter's on its own rows.

Knows adapters and the rows of a pass; nothing of attention, contents or metrics.

Tensors: T rows of a pack, I inputs, O outputs, r rank.
"""

from torch import Tensor, nn
from torch.nn import functional

from snapjudge.errors import BackboneUnsupported
from snapjudge.model.adapter import Adapter
from snapjudge.model.attention import Switch
from snapjudge.model.products import FrozenProduct, frozen_product


class AdaptedLinear(nn.Module):
    """A frozen linear layer plus the LoRA of whichever adapters own the rows of the current pass."""

    def __init__(self, base: nn.Linear, path: str, switch: Switch, product: FrozenProduct) -> None:
        super().__init__()
        self.base = base
        self.product = product
        self.path = path
        self.switch = switch

    @property
    def weight(self) -> Tensor:
        """The frozen weight; some modelling code reads its dtype."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """The frozen product plus each adapter's on its own rows."""
        switch = self.switch
        if switch.whole:
            return self.product.differentiable(x)
        if switch.trained is not None:
            return self._differentiable(x, switch.trained)
        live = switch.live_from
        flat_TI = switch.once("rows", x, lambda: x.view(-1, x.shape[-1]))
        y_TO = self.product(switch.once("live", x, lambda: flat_TI[live:]) if live else flat_TI, switch)
        if live:
            y_TO = functional.pad(y_TO, (0, 0, live, 0))
        for rows in switch.adapters:
            rows.add_to(y_TO, self.path, switch.once(rows, x, lambda rows=rows: rows.rows_of(flat_TI)))  # type: ignore[misc]
        return y_TO.view(*x.shape[:-1], -1)

    def _differentiable(self, x: Tensor, adapter: Adapter) -> Tensor:
        """The same for one adapter that owns all rows, as in training."""
        y = self.product.differentiable(x)
        down_rI, up_Or = adapter.weights[self.path]
        low = functional.linear(x.to(down_rI.dtype), down_rI)
        return y + functional.linear(low * adapter.scale, up_Or).to(y.dtype)


def adapt_linears(model: nn.Module, switch: Switch, *, int8: bool, skip: nn.Module | None = None) -> dict[str, tuple[int, int]]:
    """Replace every linear layer of `model` but `skip` (its output head) in place; return path -> (inputs, outputs) of each.

    Args:
        int8: whether their frozen products are computed in int8.
    """
    found = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear) and module is not skip}
    if not found:
        raise BackboneUnsupported("the model has no torch.nn.Linear layer to adapt", hint="use a model of the Llama, Qwen, Mistral, Phi or Gemma kind")
    for path, linear in found.items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, AdaptedLinear(linear, path, switch, frozen_product(linear, int8=int8)))
    return {path: (linear.in_features, linear.out_features) for path, linear in found.items()}
