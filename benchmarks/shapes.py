"""What the engine's benchmarks share: a decoder of a known shape with random weights, judges for it, and timing side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.common import table, timed
from snapjudge.model.adapter import Adapter, Scope, new_adapter
from snapjudge.model.backbone import Backbone
from snapjudge.model.grouped import Slab
from snapjudge.model.hub import hook_up, mini_folder
from snapjudge.model.readout import Readout
from snapjudge.model.tokens import TextTokens, tokenizer_from_folder

QWEN = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
    "rope_theta": 1e6,
}
READOUT = Readout(tuple(range(100, 110)), ((3, 4), (5,)))  # ten tokens, as a short question has
RANK = 16


def qwen_model() -> Any:
    """A decoder of Qwen2.5-0.5B's shape in bfloat16, random weights, a small vocabulary (the head is not what is measured)."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(Qwen2Config(**QWEN), dtype=torch.bfloat16).eval()


def qwen_backbone(*, int8: bool = False) -> Backbone:
    return hook_up(qwen_model(), "Qwen2.5-0.5B shape", "random", TextTokens(tokenizer_from_folder(mini_folder())), int8=int8)


def random_adapter(backbone: Backbone, seed: int, scope: Scope = "readout") -> Adapter:
    """An adapter of rank 16 that does something."""
    fresh = new_adapter(backbone.linears, scope=scope, rank=RANK, alpha=32.0, seed=seed, invocation=(), device=backbone.device)
    generator = torch.Generator().manual_seed(seed)
    weights = {path: (down.detach(), torch.randn(up.shape, generator=generator) * 0.01) for path, (down, up) in fresh.weights.items()}
    return Adapter(scope, RANK, 32.0, weights)


def judges(backbone: Backbone, count: int, scope: Scope = "readout") -> list[Adapter]:
    """Random adapters side by side in one slab."""
    slab = Slab(backbone.linears, rank=RANK, slots=count, dtype=backbone.dtype, device=backbone.device)
    return [slab.place(random_adapter(backbone, seed, scope), seed) for seed in range(count)]


def beside(works: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Seconds of the fastest call of each work, called in turn, after a round to warm up: what slows the machine for a while slows all of them."""
    for work in works:
        work()
    rounds = [[timed(work) for work in works] for _ in range(repeats)]
    return [min(column) for column in zip(*rounds, strict=True)]


def row(measure: str, what: str, found: float, target: str, **more: float) -> dict[str, Any]:
    """One line of the table; `target` as `>= 1.5` or `<= 1.8`."""
    sign, _, bound = target.partition(" ")
    reached = found >= float(bound) if sign == ">=" else found <= float(bound)
    return {"measure": measure, "what": what, "found": found, "target": target, "reached": reached, **more}


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table."""
    head = ("measure", "what", "found", "target", "")
    return table([head, *((each["measure"], each["what"], each["found"], each["target"], "" if each["reached"] else "MISSED") for each in rows)])


def linear_work(backbone: Backbone) -> int:
    """Floating-point operations of all linears for one token."""
    return 2 * sum(inputs * outputs for inputs, outputs in backbone.linears.values())
