"""The engine on a CUDA device: a decoder of a 3B Llama's shape with random weights in bfloat16, beside the device's measured matrix ceiling.

Skips itself where there is no device.

    python -m benchmarks.accelerator
"""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.common import arguments, record
from benchmarks.shapes import READOUT, judges, linear_work, row, shown
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import hook_up, mini_folder
from snapjudge.model.packing import Ask, NewTokens
from snapjudge.model.tokens import TextTokens, tokenizer_from_folder

LLAMA_3B = {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 28,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 4096,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": True,
}


def main() -> None:
    options = arguments(__doc__ or "", repeats=5)
    if not torch.cuda.is_available():
        print("skipped: no CUDA device here")
        return
    backbone = llama_backbone()
    many = judges(backbone, 32)

    def ask(length: int, count: int) -> Callable[[], Any]:
        ids = tuple(5 + place % 4000 for place in range(length))
        return lambda: backbone.step([NewTokens(ids)], [Ask(0, READOUT, judge) for judge in many[:count]])

    name, rows = torch.cuda.get_device_name(), list[dict[str, Any]]()

    def told(measure: str, value: float, target: str, **more: float) -> None:
        rows.append(row(name, measure, value, target, **more))
        record("accelerator", {"rows": rows, "device": name}, "python -m benchmarks.accelerator")  # line by line: a device may be lent for minutes only

    rate = device_ceiling()
    one = fastest(ask(2048, 1), options.repeats)
    told("2,048 tokens, 1 judge, ms", 1e3 * one, "<= 20", ceiling_tflops=rate / 1e12)
    told("share of the matrix ceiling, 2,048 tokens", linear_work(backbone) * 2048 / one / rate, ">= 0.65")
    told("32 judges / 1 judge on 2,048 tokens", fastest(ask(2048, 32), options.repeats) / one, "<= 1.25")
    told("32 tokens, 1 judge, from a recording, ms", 1e3 * fastest(ask(32, 1), 4 * options.repeats), "<= 20")
    told("15,000 tokens, 1 judge, ms", 1e3 * fastest(ask(15_000, 1), options.repeats), "<= 220")
    told("100,000 tokens, 1 judge, s", fastest(ask(100_000, 1), 2), "<= 4.5")
    print(shown(rows))


def llama_backbone() -> Backbone:
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(**LLAMA_3B), dtype=torch.bfloat16).eval()
    return hook_up(model, "3B Llama shape", "random", TextTokens(tokenizer_from_folder(mini_folder())))


def fastest(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of some calls by the device's clock, after two to warm up."""
    work(), work()
    found: list[float] = []
    for _ in range(repeats):
        began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        began.record()
        work()
        ended.record()
        torch.cuda.synchronize()
        found.append(began.elapsed_time(ended) / 1e3)
    return min(found)


def device_ceiling(size: int = 8192) -> float:
    """The device's measured rate for a large bfloat16 product, FLOP/s."""
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / fastest(lambda: a @ b, 10)


if __name__ == "__main__":
    main()
