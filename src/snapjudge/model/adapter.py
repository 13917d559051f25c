"""LoRA adapters: their weights, the module that applies them by rows of a pack, and PEFT's file layout.

Knows nothing of metrics or text. Formula: y = W x + (alpha / rank) B A x (Hu et al., 2021), on the rows an adapter owns only
(activated LoRA, Greenewald et al., 2025).

Tensors: N rows of a pack, I inputs, O outputs, r rank.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional

from snapjudge.errors import AdapterInvalid, BackboneUnsupported, PickleRefused
from snapjudge.model.attention import TILE, Switch
from snapjudge.model.products import FrozenProduct

Scope = Literal["readout", "all"]
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
LEAST_ITEMS = 4


@dataclass(frozen=True, eq=False)
class Adapter:
    """One judge's LoRA weights: per adapted linear, `down` A [r, I] and `up` B [O, r]. Compared and hashed by identity."""

    scope: Scope
    rank: int
    alpha: float
    weights: Mapping[str, tuple[Tensor, Tensor]]
    invocation: tuple[int, ...] = ()  # the readout's token ids, which PEFT searches for to switch the adapter on
    slab: "Slab | None" = None  # where the weights are views into a slab, and at which slot
    slot: int = 0

    @property
    def scale(self) -> float:
        """The factor alpha / rank on the low-rank product."""
        return self.alpha / self.rank

    def parameters(self) -> list[Tensor]:
        """All weights, A and B in turn, in layer order."""
        return [tensor for pair in self.weights.values() for tensor in pair]


class Slab:
    """Room for several adapters of one rank, side by side, so that a batched product over neighbours needs no copy.

    Args:
        shapes: path -> (inputs, outputs) of the backbone's linears.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, int]], *, rank: int, slots: int, dtype: torch.dtype, device: torch.device) -> None:
        self.rank, self.slots = rank, slots
        self.weights = {
            path: (torch.empty(slots, rank, inputs, dtype=dtype, device=device), torch.empty(slots, outputs, rank, dtype=dtype, device=device))
            for path, (inputs, outputs) in shapes.items()
        }

    def place(self, adapter: Adapter, slot: int) -> Adapter:
        """Copy an adapter into a slot, its rank filled up with zeros; the result's weights are views into the slab."""
        weights = {}
        for path, (down_srI, up_sOr) in self.weights.items():
            down, up = adapter.weights[path]
            down_srI[slot, : adapter.rank], down_srI[slot, adapter.rank :] = down.detach(), 0
            up_sOr[slot, :, : adapter.rank], up_sOr[slot, :, adapter.rank :] = up.detach(), 0
            weights[path] = (down_srI[slot], up_sOr[slot])
        return Adapter(adapter.scope, self.rank, adapter.scale * self.rank, weights, adapter.invocation, self, slot)


@dataclass(frozen=True)
class Owned:
    """Consecutive rows of a pack that one adapter owns."""

    adapter: Adapter
    start: int
    rows: int


@dataclass(frozen=True, eq=False)
class AdapterRows:
    """The rows of a pack that adapters of one rank (in TILEs) own, laid out for one batched product over all of them.

    In float32 the product always has at least LEAST_ITEMS items of a multiple of TILE rows: batched products of fewer or shorter items sum in another
    order on some libraries, and a row's bits must not depend on what it is batched with (docs/design/0006).

    Args:
        adapters: one for every item; one that comes several times has its rows cut in parts.
        scale_n11: each item's factor on the low-rank product.
        first: the first row that is owned.
        rows_R: the rows, a slice where they lie side by side.
        gather_nm: rows of the pack each item multiplies, filled up with rows whose results nobody takes.
        kept_R: where in the n * m results those of `rows_R` lie.
    """

    adapters: tuple[Adapter, ...]
    scale_n11: Tensor
    first: int
    rows_R: Tensor | slice
    gather_nm: Tensor
    kept_R: Tensor

    @classmethod
    def of(cls, owners: Sequence[Owned], device: torch.device) -> "AdapterRows":
        """Lay out some owners; items are as long as the rows of most of them."""
        least = LEAST_ITEMS if next(iter(owners[0].adapter.weights.values()))[0].dtype == torch.float32 else 1
        middle = sorted(owner.rows for owner in owners)[len(owners) // 2]
        size = -(-middle // TILE) * TILE
        if sum(-(-owner.rows // size) for owner in owners) < least:
            size = max(TILE, -(-max(owner.rows for owner in owners) // (least * TILE)) * TILE)
        adapters: list[Adapter] = []
        gather: list[Tensor] = []
        rows: list[Tensor] = []
        kept: list[Tensor] = []
        for owner in owners:
            parts = -(-owner.rows // size)
            own_R = torch.arange(owner.rows)
            rows.append(owner.start + own_R)
            kept.append(len(adapters) * size + own_R)
            gather.append(owner.start + torch.arange(parts * size).clamp_max(owner.rows - 1).view(parts, size))
            adapters += [owner.adapter] * parts
        missing = least - len(adapters)
        if missing > 0:
            adapters += adapters[-1:] * missing
            gather.append(gather[-1][-1:].expand(missing, -1))
        rows_R = torch.cat(rows)
        scale = torch.tensor([adapter.scale for adapter in adapters], device=device).view(-1, 1, 1)
        span = slice(int(rows_R[0]), int(rows_R[-1]) + 1)
        together = span.stop - span.start == len(rows_R)
        return cls(tuple(adapters), scale, span.start, span if together else rows_R.to(device), torch.cat(gather).to(device), torch.cat(kept).to(device))

    def pair(self, path: str) -> tuple[Tensor, Tensor]:
        """A [n, r, I] and B [n, O, r] of all items at one linear, r a multiple of TILE.

        A view where they are one adapter's or lie side by side in a slab.
        """
        first, count = self.adapters[0], len(self.adapters)
        if all(one is first for one in self.adapters):
            down_rI, up_Or = _filled(first, path)
            return down_rI.expand(count, -1, -1), up_Or.expand(count, -1, -1)
        slab = first.slab
        if slab is not None and all(one.slab is slab and one.slot == first.slot + place for place, one in enumerate(self.adapters)):
            down_srI, up_sOr = slab.weights[path]
            return down_srI[first.slot : first.slot + count], up_sOr[first.slot : first.slot + count]
        downs, ups = zip(*(_filled(one, path) for one in self.adapters), strict=True)
        return torch.stack(downs), torch.stack(ups)

    def add_to(self, flat_TO: Tensor, path: str, flat_TI: Tensor) -> None:
        """Add the adapters' products to their rows' outputs."""
        down_nrI, up_nOr = self.pair(path)
        rows_nmI = flat_TI.index_select(0, self.gather_nm.view(-1)).view(*self.gather_nm.shape, -1)
        low_nmr = torch.bmm(rows_nmI.to(down_nrI.dtype), down_nrI.transpose(1, 2))
        delta_nmO = torch.bmm(low_nmr * self.scale_n11.to(low_nmr.dtype), up_nOr.transpose(1, 2))
        delta_RO = delta_nmO.view(-1, delta_nmO.shape[-1]).index_select(0, self.kept_R).to(flat_TO.dtype)
        if isinstance(self.rows_R, slice):
            flat_TO[self.rows_R] += delta_RO
        else:
            flat_TO.index_add_(0, self.rows_R, delta_RO)


def _filled(adapter: Adapter, path: str) -> tuple[Tensor, Tensor]:
    """A [r, I] and B [O, r] with the rank filled up with zeros to a multiple of TILE."""
    down_rI, up_Or = adapter.weights[path]
    missing = -adapter.rank % TILE
    return (functional.pad(down_rI, (0, 0, 0, missing)), functional.pad(up_Or, (0, missing))) if missing else (down_rI, up_Or)


class AdaptedLinear(nn.Module):
    """A frozen linear layer plus the LoRA of whichever adapters own the rows of the current pass."""

    def __init__(self, base: nn.Linear, path: str, switch: Switch) -> None:
        super().__init__()
        self.base = base
        self.product = FrozenProduct(base)
        self.path = path
        self.switch = switch

    @property
    def weight(self) -> Tensor:
        """The frozen weight; some modelling code reads its dtype."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """The frozen product plus each adapter's on its own rows."""
        if self.switch.trained is not None:
            return self._differentiable(x, self.switch.trained)
        live, groups = self.switch.live_from, self.switch.adapters
        if live:
            y = x.new_zeros(*x.shape[:-1], self.base.out_features)
            if live < x.shape[-2]:
                y[..., live:, :] = self.product(x[..., live:, :])
        else:
            y = self.product(x)
        flat_TI, flat_TO = x.view(-1, x.shape[-1]), y.view(-1, y.shape[-1])
        for group in groups:
            group.add_to(flat_TO, self.path, flat_TI)
        return y

    def _differentiable(self, x: Tensor, adapter: Adapter) -> Tensor:
        """The same for one adapter that owns all rows, as in training."""
        y = self.product.differentiable(x)
        down_rI, up_Or = adapter.weights[self.path]
        low = functional.linear(x.to(down_rI.dtype), down_rI)
        return y + functional.linear(low * adapter.scale, up_Or).to(y.dtype)


def adapt_linears(model: nn.Module, switch: Switch, skip: nn.Module | None = None) -> dict[str, tuple[int, int]]:
    """Replace every linear layer of `model` but `skip` (its output head) in place; return path -> (inputs, outputs) of each."""
    found = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear) and module is not skip}
    if not found:
        raise BackboneUnsupported("the model has no torch.nn.Linear layer to adapt", hint="use a model of the Llama, Qwen, Mistral, Phi or Gemma kind")
    for path, linear in found.items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, AdaptedLinear(linear, path, switch))
    return {path: (linear.in_features, linear.out_features) for path, linear in found.items()}


def new_adapter(
    shapes: Mapping[str, tuple[int, int]], *, scope: Scope, rank: int, alpha: float, seed: int, invocation: tuple[int, ...], device: torch.device
) -> Adapter:
    """A fresh adapter that changes nothing yet: A uniform within 1/sqrt(I) as PEFT does it, B zero."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for path, (inputs, outputs) in shapes.items():
        down = (torch.rand(rank, inputs, generator=generator) * 2 - 1) / inputs**0.5
        weights[path] = (down.to(device).requires_grad_(), torch.zeros(outputs, rank, device=device, requires_grad=True))
    return Adapter(scope, rank, alpha, weights, invocation)


def frozen_copy(adapter: Adapter) -> Adapter:
    """The same weights, detached and copied: a snapshot that training does not move."""
    weights = {path: (down.detach().clone(), up.detach().clone()) for path, (down, up) in adapter.weights.items()}
    return Adapter(adapter.scope, adapter.rank, adapter.alpha, weights, adapter.invocation)


def adapter_files(adapter: Adapter, *, backbone: str) -> dict[str, bytes]:
    """The adapter as the files of PEFT's layout: file name -> content."""
    tensors = {}
    for path, (down, up) in adapter.weights.items():
        tensors[f"{_PREFIX}{path}.lora_A.weight"] = down.detach().cpu().contiguous()
        tensors[f"{_PREFIX}{path}.lora_B.weight"] = up.detach().cpu().contiguous()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": backbone,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(adapter.weights),
        "alora_invocation_tokens": list(adapter.invocation) if adapter.scope == "readout" else None,
    }
    return {CONFIG_FILE: (json.dumps(config, indent=2) + "\n").encode(), WEIGHTS_FILE: save(tensors)}


def load_adapter(folder: Path, shapes: Mapping[str, tuple[int, int]], device: torch.device) -> Adapter:
    """Read an adapter in PEFT's layout and check that it fits the backbone's layers.

    Raises:
        PickleRefused: the weights are not safetensors.
        AdapterInvalid: a layer is missing, unknown or of another size, or an option changes the formula.
    """
    config = _read_config(folder / CONFIG_FILE)
    raw = (folder / WEIGHTS_FILE).read_bytes()
    try:
        tensors = load(raw)
    except SafetensorError as error:
        raise PickleRefused(
            f"{folder / WEIGHTS_FILE} is not a safetensors file: {error}", hint="snapjudge never unpickles; train or export the judge again"
        ) from error
    rank, weights = int(config["r"]), {}
    for path, (inputs, outputs) in shapes.items():
        names = (f"{_PREFIX}{path}.lora_A.weight", f"{_PREFIX}{path}.lora_B.weight")
        if names[0] not in tensors and names[1] not in tensors:
            continue
        pair = tensors.pop(names[0], None), tensors.pop(names[1], None)
        sizes = tuple(None if tensor is None else tuple(tensor.shape) for tensor in pair)
        if sizes != ((rank, inputs), (outputs, rank)) or pair[0] is None or pair[1] is None:
            raise AdapterInvalid(
                f"adapter layer {path}: found shapes {sizes}, expected {((rank, inputs), (outputs, rank))}",
                hint="the adapter was trained on a backbone of another shape",
            )
        if not all(bool(tensor.isfinite().all()) for tensor in pair if tensor is not None):
            raise AdapterInvalid(f"adapter layer {path}: a weight is not finite", hint="train the judge again")
        weights[path] = (pair[0].float().to(device), pair[1].float().to(device))
    if tensors or not weights:
        raise AdapterInvalid(f"adapter layers the backbone does not have: {sorted(tensors)[:4]}", hint="load it with the backbone it was trained on")
    return Adapter(
        "readout" if config.get("alora_invocation_tokens") else "all",
        rank,
        float(config["lora_alpha"]),
        _complete(weights, shapes, rank, device),
        tuple(config.get("alora_invocation_tokens") or ()),
    )


def _complete(
    weights: dict[str, tuple[Tensor, Tensor]], shapes: Mapping[str, tuple[int, int]], rank: int, device: torch.device
) -> dict[str, tuple[Tensor, Tensor]]:
    """Give layers that the adapter leaves alone a zero pair, so that every layer has one."""
    for path, (inputs, outputs) in shapes.items():
        weights.setdefault(path, (torch.zeros(rank, inputs, device=device), torch.zeros(outputs, rank, device=device)))
    return weights


def _read_config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(path.read_bytes())
    plain = {"use_rslora": False, "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}, "bias": "none", "modules_to_save": None}
    odd = [key for key, value in plain.items() if config.get(key, value) not in (value, None)]
    if config.get("peft_type") != "LORA" or odd:
        raise AdapterInvalid(f"{path}: options this reader does not apply: {odd or config.get('peft_type')}", hint="export a plain LoRA adapter")
    return config
