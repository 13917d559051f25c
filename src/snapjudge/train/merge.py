"""Merging weights: several adapters, or several backbones of one shape, into one, without training.

    linear           sum w_i x_i, the weights normalised to 1                                     (Model soups, Wortsman et al., 2022)
    task arithmetic  base + scale * sum w_i (x_i - base)                                          (Ilharco et al., 2023)
    slerp            along the great circle between two, tensor by tensor                         (Shoemake, 1985)
    ties             differences trimmed to the largest `density`, a sign elected for each weight, the mean of those that agree   (Yadav et al., 2023)
    dare             differences dropped at random, the kept ones divided by `density`, then as task arithmetic or ties           (Yu et al., 2024)

An adapter's difference from its base is its product (alpha / rank) B A; a merged product is written as an adapter again by a truncated SVD. Knows nothing of
what the weights are for.

Tensors: O outputs, I inputs, r rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from snapjudge.core.frozen import Frozen
from snapjudge.errors import OptionInvalid
from snapjudge.model.adapter import Adapter

Method = Literal["linear", "task_arithmetic", "slerp", "ties", "dare", "dare_ties"]
METHODS: tuple[Method, ...] = ("linear", "task_arithmetic", "slerp", "ties", "dare", "dare_ties")
_PARALLEL = 1e-4  # below this angle a great circle is a straight line
_EXACT = 2048  # up to this many rows or columns the SVD is the full one


class MergeConfig(Frozen):
    """How weights are merged."""

    method: Method = "linear"
    weights: tuple[float, ...] = Field(min_length=2, description="one for each model, in order; for slerp the share of the second decides")
    density: float = Field(default=0.5, gt=0, le=1, description="share of differences that ties and dare keep")
    scale: float = Field(default=1.0, gt=0, description="of the merged difference, for all but linear and slerp")
    seed: int = 0

    def checked(self, models: int) -> "MergeConfig":
        """Itself, if it fits that many models.

        Raises:
            OptionInvalid: saying what does not fit.
        """
        if len(self.weights) != models:
            raise OptionInvalid(f"{len(self.weights)} weights for {models} models", hint="give one weight for each", received=str(self.weights))
        if sum(self.weights) <= 0 or min(self.weights) < 0:
            raise OptionInvalid(f"weights {self.weights} are below 0 or all 0", hint="weights are at least 0 and not all 0", received=str(self.weights))
        if self.method == "slerp" and models != 2:
            raise OptionInvalid(f"slerp merges two models, not {models}", hint="use linear, ties or dare", received=str(models))
        return self


def merge_weights(models: Sequence[Mapping[str, Tensor]], config: MergeConfig, base: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """One set of weights from several of the same names and shapes.

    Args:
        base: what all of them were trained from; needed but for linear and slerp.

    Raises:
        OptionInvalid: names or shapes differ, or a base is missing.
    """
    config.checked(len(models))
    _check_alike(models if base is None else [*models, base])
    if base is None and config.method not in ("linear", "slerp"):
        raise OptionInvalid(f"{config.method} needs the weights that all models were trained from", hint="give the base, or merge by linear or slerp")
    generator = torch.Generator().manual_seed(config.seed)
    merged = {}
    for name in sorted(models[0]):
        wide = [model[name].double() for model in models]
        whole = None if base is None else base[name].double()
        merged[name] = _merged(wide, whole, config, generator).to(models[0][name].dtype)
    return merged


@dataclass(frozen=True)
class MergedAdapter:
    """A merged adapter, and how much of the merged product its rank leaves out: the relative Frobenius error over all layers."""

    adapter: Adapter
    error: float


def merge_adapters(adapters: Sequence[Adapter], config: MergeConfig, *, rank: int | None = None) -> MergedAdapter:
    """One adapter from several on the same layers and of one scope.

    Args:
        rank: of the result; the largest of the given ones unless said. With the sum of all ranks a linear merge loses nothing (but what rounding to half
            precision takes where it is kept, which the stated error does not count).

    Raises:
        OptionInvalid: scopes or layers differ.
    """
    config.checked(len(adapters))
    first = adapters[0]
    if any(one.scope != first.scope for one in adapters):
        raise OptionInvalid("adapters of scope readout and all cannot be merged", hint="train both with the same --scope")
    kept = rank or max(one.rank for one in adapters)
    generator = torch.Generator().manual_seed(config.seed)
    _check_alike([{path: up @ down for path, (down, up) in one.weights.items()} for one in adapters])
    weights, lost, total = {}, 0.0, 0.0
    for path in sorted(first.weights):
        products = [_product(one, path) for one in adapters]
        merged_OI = _merged(products, torch.zeros_like(products[0]), config, generator)
        down_rI, up_Or = _factors(merged_OI, kept)
        weights[path] = (down_rI.to(first.weights[path][0].dtype), up_Or.to(first.weights[path][1].dtype))
        lost += float((merged_OI - up_Or @ down_rI).square().sum())
        total += float(merged_OI.square().sum())
    adapter = Adapter(first.scope, kept, float(kept), weights, first.invocation)
    return MergedAdapter(adapter, (lost / total) ** 0.5 if total else 0.0)


def _product(adapter: Adapter, path: str) -> Tensor:
    """What an adapter adds to a layer's weight, [O, I]."""
    down_rI, up_Or = adapter.weights[path]
    return adapter.scale * up_Or.detach().double() @ down_rI.detach().double()


def _factors(product_OI: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Down [r, I] and up [O, r] whose product is nearest (Eckart & Young, 1936); rows of zeros where the product's own rank is smaller."""
    small = min(product_OI.shape)
    if max(product_OI.shape) <= _EXACT or rank >= small:
        left, sizes, right = torch.linalg.svd(product_OI, full_matrices=False)
        right = right[:rank]
    else:
        left, sizes, columns = torch.svd_lowrank(product_OI, q=min(small, rank + 8), niter=4)
        right = columns.T[:rank]
    roots = sizes[:rank].sqrt()
    down, up = roots[:, None] * right, left[:, :rank] * roots
    missing = rank - len(roots)
    return torch.nn.functional.pad(down, (0, 0, 0, missing)), torch.nn.functional.pad(up, (0, missing))


def _merged(models: Sequence[Tensor], base: Tensor | None, config: MergeConfig, generator: torch.Generator) -> Tensor:
    """One tensor from several."""
    shares = [weight / sum(config.weights) for weight in config.weights]
    if config.method == "linear":
        return _sum(models, shares)
    if config.method == "slerp":
        return _slerp(models[0], models[1], shares[1])
    assert base is not None
    differences = [model - base for model in models]
    if config.method.startswith("dare"):
        differences = [_dropped(one, config.density, generator) for one in differences]
    elif config.method == "ties":
        differences = [_trimmed(one, config.density) for one in differences]
    joined = _agreeing(differences, shares) if config.method in ("ties", "dare_ties") else _sum(differences, shares)
    return base + config.scale * joined


def _sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total: Tensor = torch.stack([weight * tensor for weight, tensor in zip(weights, tensors, strict=True)]).sum(0)
    return total


def _slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """A point on the great circle through both directions; lengths are interpolated in a straight line."""
    lengths = first.norm(), second.norm()
    if not float(lengths[0]) or not float(lengths[1]):
        return (1 - share) * first + share * second
    one, other = first / lengths[0], second / lengths[1]
    angle = torch.arccos((one * other).sum().clamp(-1, 1))
    if float(angle) < _PARALLEL or float(torch.pi - angle) < _PARALLEL:
        return (1 - share) * first + share * second
    turned: Tensor = (torch.sin((1 - share) * angle) * one + torch.sin(share * angle) * other) / torch.sin(angle)
    length: Tensor = (1 - share) * lengths[0] + share * lengths[1]
    return turned * length


def _trimmed(difference: Tensor, density: float) -> Tensor:
    """The largest `density` of the weights, the rest zero."""
    flat = difference.abs().flatten()
    kept = max(1, round(density * len(flat)))
    least = flat.kthvalue(len(flat) - kept + 1).values
    return torch.where(difference.abs() >= least, difference, torch.zeros_like(difference))


def _dropped(difference: Tensor, density: float, generator: torch.Generator) -> Tensor:
    """Each weight kept with probability `density` and divided by it."""
    kept = torch.rand(difference.shape, generator=generator, dtype=difference.dtype) < density
    return torch.where(kept.to(difference.device), difference / density, torch.zeros_like(difference))


def _agreeing(differences: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The weighted mean of the differences whose sign is the one elected by their weighted sum."""
    weighted = torch.stack([share * one for share, one in zip(shares, differences, strict=True)])
    elected = weighted.sum(0).sign()
    agree = (weighted.sign() == elected) & (weighted != 0)
    counted = torch.stack([torch.full_like(one, share) for share, one in zip(shares, differences, strict=True)])
    total = (counted * agree).sum(0)
    return (weighted * agree).sum(0) / torch.where(total > 0, total, torch.ones_like(total))


def _check_alike(models: Sequence[Mapping[str, Tensor]]) -> None:
    shapes = [{name: tuple(tensor.shape) for name, tensor in model.items()} for model in models]
    odd = next((number for number, one in enumerate(shapes) if one != shapes[0]), None)
    if odd is not None:
        differing = sorted(set(shapes[0].items()) ^ set(shapes[odd].items()))[:2]
        raise OptionInvalid(f"model {odd + 1} has other weights than the first: {differing}", hint="merge adapters or backbones of one shape only")
