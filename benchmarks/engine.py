"""What one pass for many is worth: encode rate, 32 judges on one content, and the same against PEFT, side by side in one run.

A decoder of Qwen2.5-0.5B's shape with random weights in bfloat16, and mini in float32. Ratios only: the machine's rate is measured in the same run, and
peers run right beside. Numbers of the measures are those of the project's target table.

    python -m benchmarks.engine
"""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.common import arguments, ceiling, record, table, timed
from snapjudge.engine.engine import Engine, Read
from snapjudge.model.adapter import Adapter, Slab, new_adapter
from snapjudge.model.backbone import Ask, Backbone, NewTokens
from snapjudge.model.hub import hook_up, load_backbone, mini_folder
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


def main() -> None:
    options = arguments(__doc__ or "", repeats=3)
    rows = [*mini_rows(options.repeats), *decoder_rows(options.repeats)]
    print(table([("measure", "what", "found", "target"), *((row["measure"], row["what"], row["found"], row["target"]) for row in rows)]))
    record("engine", {"rows": rows}, "python -m benchmarks.engine")


def best(work: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of some calls, after one to warm up."""
    work()
    return min(timed(work) for _ in range(repeats))


def row(measure: str, what: str, found: float, target: str, **more: float) -> dict[str, Any]:
    return {"measure": measure, "what": what, "found": found, "target": target, **more}


def linear_work(backbone: Backbone) -> int:
    """Floating-point operations of all linears for one token."""
    return 2 * sum(inputs * outputs for inputs, outputs in backbone.linears.values())


def judges(backbone: Backbone, count: int) -> list[Adapter]:
    """Random adapters of rank 16, side by side in one slab."""
    slab = Slab(backbone.linears, rank=16, slots=count, dtype=backbone.dtype, device=backbone.device)
    made = []
    for seed in range(count):
        fresh = new_adapter(backbone.linears, scope="readout", rank=16, alpha=32.0, seed=seed, invocation=(), device=backbone.device)
        weights = {path: (down.detach(), torch.randn_like(up.detach()) * 0.01) for path, (down, up) in fresh.weights.items()}
        made.append(slab.place(Adapter("readout", 16, 32.0, weights), seed))
    return made


def encode_row(backbone: Backbone, dtype: torch.dtype, target: str, repeats: int) -> dict[str, Any]:
    """Measure 1: 16 contents of 512 tokens (as long as mini reads), encoded in steps, against the rate of a large product."""
    ids = tuple(range(5, 5 + min(512, backbone.content_tokens)))
    rate = ceiling(dtype)
    seconds = best(lambda: [backbone.encode([ids] * 2) for _ in range(8)], repeats)
    share = linear_work(backbone) * 16 * len(ids) / seconds / rate
    return row("1", f"encode 16 x {len(ids)} / matrix ceiling, {backbone.name}", share, target, ceiling_gflops=rate / 1e9, seconds=seconds)


def mini_rows(repeats: int) -> list[dict[str, Any]]:
    from transformers import BertModel

    backbone = load_backbone("mini")
    plain = BertModel.from_pretrained(mini_folder(), attn_implementation="sdpa", add_pooling_layer=False, dtype=torch.float32).eval()
    ids, six = tuple(range(1000, 1128)), judges(backbone, 6)
    with torch.inference_mode():
        alone = best(lambda: plain(torch.tensor([ids])), 10 * repeats)
    asked = best(lambda: backbone.step([NewTokens(ids)], [Ask(0, READOUT, one) for one in six]), 10 * repeats)
    ratio = row("5", "128 tokens, 6 judges on mini / plain forward of the content", asked / alone, "<= 2.5", seconds=asked, plain_seconds=alone)
    return [encode_row(backbone, torch.float32, ">= 0.40", repeats), ratio]


def qwen_model() -> Any:
    """A decoder of Qwen2.5-0.5B's shape, random weights, a small vocabulary (the head is not what is measured)."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(Qwen2Config(**QWEN), dtype=torch.bfloat16).eval()


def decoder_rows(repeats: int) -> list[dict[str, Any]]:
    backbone = hook_up(qwen_model(), "Qwen2.5-0.5B shape", "random", TextTokens(tokenizer_from_folder(mini_folder())))
    rows = [encode_row(backbone, torch.bfloat16, ">= 0.60", repeats)]
    ids, many = tuple(range(5, 517)), judges(backbone, 32)
    one = best(lambda: backbone.step([NewTokens(ids)], [Ask(0, READOUT, many[0])]), repeats)
    all_of_them = best(lambda: backbone.step([NewTokens(ids)], [Ask(0, READOUT, each) for each in many]), repeats)
    rows.append(row("2", "32 judges on one 512-token content / 1 judge", all_of_them / one, "<= 1.8", seconds=all_of_them, one_seconds=one))
    rows.append(streaming_row(backbone, many[0], repeats))
    peft = peft_seconds(ids, repeats)
    rows.append(row("3", "32 judges: PEFT switching adapters over full passes / snapjudge", 32 * peft / all_of_them, ">= 15", peft_one_seconds=peft))
    rows.append(row("3", "1 judge: PEFT / snapjudge", peft / one, ">= 1.0"))
    return rows


def peft_seconds(ids: tuple[int, ...], repeats: int) -> float:
    """Seconds of one full pass over content and readout under one of two adapters that PEFT switches between."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
    model = get_peft_model(qwen_model(), config, adapter_name="a")
    model.add_adapter("b", config)
    model.to(torch.bfloat16).eval()
    whole, names = torch.tensor([[*ids, *READOUT.token_ids]]), ["a", "b"]

    def ask() -> Any:
        names.reverse()
        model.set_adapter(names[0])
        with torch.inference_mode():
            return model(whole, logits_to_keep=1, use_cache=False)

    return best(ask, repeats)


def streaming_row(backbone: Backbone, judge: Adapter, repeats: int) -> dict[str, Any]:
    """Measure 10: a 1,024-token answer judged every 32 tokens, against one read of it."""
    ids, read = tuple(range(5, 1029)), Read("judge", READOUT)
    whole = best(lambda: backbone.step([NewTokens(ids)], [Ask(0, READOUT, judge)]), repeats)
    with Engine(backbone) as engine:
        engine.load("judge", judge)

        def stream(first: int) -> None:
            for end in range(32, len(ids) + 1, 32):
                engine.submit((first, *ids[1:end]), [read]).result()

        stream(3000)
        streamed = min(timed(lambda first=first: stream(first)) for first in (3001, 3002))  # type: ignore[misc]
    return row("10", "1,024 tokens judged every 32 through the engine / one read", streamed / whole, "<= 1.8", seconds=streamed, whole_seconds=whole)


if __name__ == "__main__":
    main()
