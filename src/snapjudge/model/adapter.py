"""LoRA adapters: their weights and PEFT's file layout. How they are applied is in `grouped` and `linears`.

Knows nothing of metrics or text. Formula: y = W x + (alpha / rank) B A x (Hu et al., 2021), on the rows an adapter owns only
(activated LoRA, Greenewald et al., 2025).

Tensors: I inputs, O outputs, r rank.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from snapjudge.errors import AdapterInvalid, PickleRefused

Scope = Literal["readout", "all"]
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."


@dataclass(frozen=True, eq=False)
class Adapter:
    """One judge's LoRA weights: per adapted linear, `down` A [r, I] and `up` B [O, r]. Compared and hashed by identity."""

    scope: Scope
    rank: int
    alpha: float
    weights: Mapping[str, tuple[Tensor, Tensor]]
    invocation: tuple[int, ...] = ()  # the readout's token ids, which PEFT searches for to switch the adapter on

    @property
    def scale(self) -> float:
        """The factor alpha / rank on the low-rank product."""
        return self.alpha / self.rank

    def parameters(self) -> list[Tensor]:
        """All weights, A and B in turn, in layer order."""
        return [tensor for pair in self.weights.values() for tensor in pair]


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
    """The weights as they are kept: detached, and rounded to half precision so that what is validated and proved is what is saved, in half the bytes."""
    weights = {path: (_rounded(down), _rounded(up)) for path, (down, up) in adapter.weights.items()}
    return Adapter(adapter.scope, adapter.rank, adapter.alpha, weights, adapter.invocation)


def _rounded(tensor: Tensor) -> Tensor:
    """In single precision, to the nearest half; as it is where that is past its range."""
    half = tensor.detach().half().float()
    return half if bool(half.isfinite().all()) else tensor.detach().clone()


def _smallest(tensor: Tensor) -> Tensor:
    """In half precision where that changes nothing."""
    plain = tensor.detach().cpu().contiguous()
    half = plain.half()
    return half if torch.equal(half.float(), plain.float()) else plain


def adapter_files(adapter: Adapter, *, backbone: str) -> dict[str, bytes]:
    """The adapter as the files of PEFT's layout: file name -> content."""
    tensors = {}
    for path, (down, up) in adapter.weights.items():
        tensors[f"{_PREFIX}{path}.lora_A.weight"] = _smallest(down)
        tensors[f"{_PREFIX}{path}.lora_B.weight"] = _smallest(up)
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
