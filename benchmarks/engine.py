"""What one pass for many is worth: the engine's target table, every line a ratio within one run, peers and the machine's ceiling measured side by side.

A decoder of Qwen2.5-0.5B's shape with random weights in bfloat16, and mini in float32. The lines against llama.cpp are in `benchmarks.llama_cpp`, what
int8 does to judgements in `benchmarks.precision`.

    python -m benchmarks.engine [--only 4 8]
"""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.common import arguments, ceiling, record, timed
from benchmarks.shapes import RANK, READOUT, beside, judges, linear_work, qwen_backbone, qwen_model, random_adapter, row, shown
from snapjudge.engine.engine import Engine
from snapjudge.engine.requests import Read
from snapjudge.model import attention, grouped, passes
from snapjudge.model.attention import Shape
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import load_backbone, mini_folder
from snapjudge.model.packing import Ask, NewTokens
from snapjudge.model.passes import StepPass

Rows = list[dict[str, Any]]
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    options = arguments(__doc__ or "", repeats=3, only=[""])
    mini, qwen = load_backbone("mini", device="cpu"), qwen_backbone()
    measures: dict[str, Callable[[int], Rows]] = {
        "1": lambda repeats: [*encode_rows(mini, torch.float32, ">= 0.40", repeats), *encode_rows(qwen, torch.bfloat16, ">= 0.60", repeats)],
        "2": lambda repeats: many_judges_rows(qwen, repeats),
        "4": lambda repeats: every_token_rows(qwen, repeats),
        "5": lambda repeats: mini_rows(mini, repeats),
        "6": lambda repeats: int8_rows(qwen, repeats),
        "8": lambda repeats: repeatability_rows(qwen, mini, repeats),
        "9": lambda repeats: growth_rows(qwen, repeats),
        "10": lambda repeats: streaming_rows(qwen, repeats),
        "waste": lambda _: waste_rows(mini),
        "adapters": lambda _: adapters_rows(mini),
    }
    chosen = [name for name in measures if name in options.only] or list(measures)
    rows: Rows = []
    for name in chosen:
        rows += measures[name](options.repeats)
        print(f"measured {name}: {[round(each['found'], 3) for each in rows if each['measure'].strip('.') == name]}", flush=True)
    print(shown(rows))
    if len(chosen) == len(measures):
        record("engine", {"rows": rows}, "python -m benchmarks.engine")


def encode_rows(backbone: Backbone, dtype: torch.dtype, target: str, repeats: int) -> Rows:
    """Measure 1: 16 contents of 512 tokens (as long as mini reads), encoded in steps, against the rate of a large product."""
    ids = tuple(range(5, 5 + min(512, backbone.content_tokens)))
    rate = ceiling(dtype)
    (seconds,) = beside([lambda: [backbone.encode([ids] * 2) for _ in range(8)]], repeats)
    rate = max(rate, ceiling(dtype))
    share = linear_work(backbone) * 16 * len(ids) / seconds / rate
    return [row("1", f"encode 16 x {len(ids)} / matrix ceiling, {backbone.name}", share, target, ceiling_gflops=rate / 1e9, seconds=seconds)]


def many_judges_rows(backbone: Backbone, repeats: int) -> Rows:
    """Measures 2 and 3: 32 judges on one content against one judge, and both against PEFT switching adapters over full passes."""
    ids, many = tuple(range(5, 517)), judges(backbone, 32)
    ask = peft_switching(ids)
    one, all_of_them, peft = beside(
        [
            lambda: backbone.step([NewTokens(ids)], [Ask(0, READOUT, many[0])]),
            lambda: backbone.step([NewTokens(ids)], [Ask(0, READOUT, each) for each in many]),
            ask,
        ],
        repeats,
    )
    return [
        row("2", "32 judges on one 512-token content / 1 judge", all_of_them / one, "<= 1.8", seconds=all_of_them, one_seconds=one),
        row("3", "32 judges: PEFT switching adapters over full passes / snapjudge", 32 * peft / all_of_them, ">= 15", peft_one_seconds=peft),
        row("3", "1 judge: PEFT / snapjudge", peft / one, ">= 1.0"),
    ]


def peft_model(names: list[str]) -> Any:
    """The same decoder under PEFT with some adapters of the judges' rank."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=RANK, lora_alpha=32, target_modules=LINEARS)
    model = get_peft_model(qwen_model(), config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    return model.to(torch.bfloat16).eval()


def peft_switching(ids: tuple[int, ...]) -> Callable[[], Any]:
    """One full pass over content and readout under one of two adapters that PEFT switches between."""
    model, names = peft_model(["a", "b"]), ["a", "b"]
    whole = torch.tensor([[*ids, *READOUT.token_ids]])

    def ask() -> Any:
        names.reverse()
        model.set_adapter(names[0])
        with torch.inference_mode():
            return model(whole, logits_to_keep=1, use_cache=False)

    return ask


def every_token_rows(backbone: Backbone, repeats: int) -> Rows:
    """Measure 4: 64 requests of 128 tokens under 64 different adapters on every token, against PEFT's mixed batch."""
    names = [f"a{number}" for number in range(64)]
    model, many = peft_model(names), judges(backbone, 64, "all")
    contents = [tuple(range(5 + number, 133 + number)) for number in range(64)]
    batch = torch.tensor([[*ids, *READOUT.token_ids] for ids in contents])

    def mixed() -> Any:
        with torch.inference_mode():
            return model(batch, adapter_names=names, logits_to_keep=1, use_cache=False)

    def ours() -> None:
        for start in range(0, 64, 16):
            some = range(start, start + 16)
            backbone.step([NewTokens(contents[at], adapter=many[at]) for at in some], [Ask(at - start, READOUT, many[at]) for at in some])

    def bare() -> Any:
        with torch.inference_mode(), model.disable_adapter():
            return model(batch, logits_to_keep=1, use_cache=False)

    seconds, peft, base = beside([ours, mixed, bare], max(1, repeats - 1))
    return [
        row(
            "4", "64 requests x 64 scope-all adapters x 128 tokens: PEFT mixed batch / snapjudge", peft / seconds, ">= 2",
            seconds=seconds, peft_seconds=peft, without_adapters_seconds=base,
        )
    ]  # fmt: skip


def mini_rows(backbone: Backbone, repeats: int) -> Rows:
    """Measure 5: a content of 128 tokens and 6 judges in the engine, against the plain forward of the content alone."""
    from transformers import BertModel

    plain = BertModel.from_pretrained(mini_folder(), attn_implementation="sdpa", add_pooling_layer=False, dtype=torch.float32).eval()
    ids, six = tuple(range(1000, 1128)), judges(backbone, 6)

    def forward() -> None:
        with torch.inference_mode():
            plain(torch.tensor([ids]))

    asked, alone = beside([lambda: backbone.step([NewTokens(ids)], [Ask(0, READOUT, one) for one in six]), forward], 20 * repeats)
    return [row("5", "128 tokens, 6 judges on mini / plain forward of the content", asked / alone, "<= 2.5", seconds=asked, plain_seconds=alone)]


def int8_rows(backbone: Backbone, repeats: int) -> Rows:
    """Measure 6: the same contents encoded in int8 and in bfloat16."""
    ids, whole = tuple(range(5, 517)), qwen_backbone(int8=True)
    slow, fast = beside([lambda: backbone.encode([ids] * 2), lambda: whole.encode([ids] * 2)], repeats)
    return [row("6", "encode 512-token contents: int8 / bfloat16 rate", slow / fast, ">= 1.5", seconds=fast, bfloat16_seconds=slow)]


@contextmanager
def unsteady() -> Iterator[None]:
    """The engine without what makes its bits repeatable: any number of rows, items and elements, a causal content in one product."""

    def at_once(_: StepPass, one: Any, query_QNd: torch.Tensor, state: Any, shape: Shape, out_NQd: torch.Tensor) -> None:
        keys, values = state[0][None, :, : one.length], state[1][None, :, : one.length]
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out_NQd.copy_(kernel(query_QNd[None], keys, values, 0.0, True, scale=shape.scale)[0][0].transpose(0, 1))

    with ExitStack() as stack:
        stack.enter_context(patch.object(attention, "TILE", 1))
        stack.enter_context(patch.object(grouped, "LEAST_ITEMS", 1))
        stack.enter_context(patch.object(passes, "CAUSAL_TILE", 1))
        stack.enter_context(patch.object(attention, "steady", lambda function, x: function(x)))
        stack.enter_context(patch.object(StepPass, "_causal", at_once))
        yield


def repeatability_rows(qwen: Backbone, mini: Backbone, repeats: int) -> Rows:
    """Measure 8: packs with 1 and with 8 judges, with and without what repeatability needs."""
    rows = []
    for backbone, length in ((qwen, 512), (mini, 128)):
        ids, eight = tuple(range(5, 5 + length)), judges(backbone, 8)
        for count in (1, 8):
            asks = [Ask(0, READOUT, one) for one in eight[:count]]

            def steady(backbone: Backbone = backbone, ids: tuple[int, ...] = ids, asks: list[Ask] = asks) -> Any:
                return backbone.step([NewTokens(ids)], asks)

            def free(steady: Callable[[], Any] = steady) -> Any:
                with unsteady():
                    return steady()

            with_bits, without = beside([steady, free], repeats * (2 if backbone is qwen else 20))
            what = f"extra cost of repeatable bits, {length} tokens, {count} judge{'s' * (count > 1)}, {backbone.name}"
            rows.append(row("8", what, with_bits / without - 1, "<= 0.10", seconds=with_bits, without_seconds=without))
    return rows


def growth_rows(backbone: Backbone, repeats: int) -> Rows:
    """Measure 9: how much the time of a token grows from 128 to 4,096 tokens of content, beside what attention's own time grows."""
    (judge,) = judges(backbone, 1)
    spent = [0.0]
    plain = StepPass.attend

    def watched(self: StepPass, *given: Any) -> Any:
        began = time.perf_counter()
        out = plain(self, *given)
        spent[0] += time.perf_counter() - began
        return out

    per_token: dict[int, tuple[float, float]] = {}
    with patch.object(StepPass, "attend", watched):
        for length in (128, 512, 1024, 2048, 4096):
            ids = tuple(5 + at % 4000 for at in range(length))
            found = []
            for _ in range(1 + repeats):
                spent[0] = 0.0
                seconds = timed(lambda ids=ids: backbone.step([NewTokens(ids)], [Ask(0, READOUT, judge)]))  # type: ignore[misc]
                found.append((seconds / length, spent[0] / length))
            per_token[length] = min(found[1:])
    (short, short_attention), (long, long_attention) = per_token[128], per_token[4096]
    growth, attention_growth = long - short, long_attention - short_attention
    more = {f"{length}": {"ms_per_token": 1e3 * total, "attention_ms_per_token": 1e3 * own} for length, (total, own) in per_token.items()}
    what = "time per token, 128 -> 4,096: growth / growth of the attention's own time"
    return [{**row("9", what, growth / attention_growth, "<= 1.0", growth=long / short), "lengths": more}]


def streaming_rows(backbone: Backbone, repeats: int) -> Rows:
    """Measure 10: a 1,024-token answer judged every 32 tokens through the engine, against one read of it there."""
    ids, read, firsts = tuple(range(5, 1029)), Read("judge", READOUT), iter(range(2000, 4000))
    (judge,) = judges(backbone, 1)
    with Engine(backbone) as engine:
        engine.load("judge", judge)

        def once() -> None:
            engine.submit((next(firsts), *ids[1:]), [read]).result()

        def stream() -> None:
            first = next(firsts)
            for end in range(32, len(ids) + 1, 32):
                engine.submit((first, *ids[1:end]), [read]).result()

        whole, streamed = beside([once, stream], repeats)
    return [row("10", "1,024 tokens judged every 32 through the engine / one read", streamed / whole, "<= 1.8", seconds=streamed, whole_seconds=whole)]


def waste_rows(mini: Backbone) -> Rows:
    """How many of the rows a busy engine computes are no token of any request: 200 contents of 8 to 600 tokens, 1 to 8 judges each."""
    generator = torch.Generator().manual_seed(0)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    with Engine(mini) as engine:
        for number, judge in enumerate(judges(mini, 8)):
            engine.load(f"j{number}", judge)
        futures = []
        for _ in range(200):
            first, length = draw(1000, 2000), draw(8, mini.content_tokens)
            futures.append(engine.submit(tuple(range(first, first + length)), [Read(f"j{number}", READOUT) for number in range(draw(1, 9))]))
        for future in futures:
            future.result()
        stats = engine.stats
    return [row("3", "rows computed that are no token of any request", stats.waste, "<= 0.10", tokens=stats.tokens, rows=stats.rows)]


def adapters_rows(mini: Backbone) -> Rows:
    """What 500 adapters of rank 16 take on mini, all of them on the device and asked: growth of the process, the budget kept."""
    before = resident_bytes()
    with Engine(mini, adapter_bytes=3 << 29, cache_bytes=1 << 24) as engine:
        for number in range(500):
            engine.load(f"j{number}", lambda number=number: random_adapter(mini, number))  # type: ignore[misc]
        engine.submit(tuple(range(1000, 1064)), [Read(f"j{number}", READOUT) for number in range(500)]).result()
        grown, stats = (resident_bytes() - before) / 2**30, engine.stats.adapters
    return [
        row(
            "500",
            "500 adapters of rank 16 resident on mini: growth of the process, GiB",
            grown,
            "<= 1.5",
            slots_gib=stats.bytes_used / 2**30,
            resident=stats.resident,
        )
    ]


def resident_bytes() -> int:
    """Memory the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
