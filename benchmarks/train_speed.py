"""How fast a judge is trained, and how good it is: readout scope against ordinary LoRA on every token, same data and steps.

Davidson's tweets, balanced, split by group, 1,000 held out for the test, for several splits (ordinary LoRA on the first of them only).
Speed is told as seconds and as the share of the machine's measured ceiling (a large float32 matrix product in the same run); quality as F1 at
one half and AUROC with intervals, beside the baselines.

    python -m benchmarks.train_speed --sizes 1000 4000 --seeds 0 1 2
"""

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.common import TOXICITY, arguments, balanced, ceiling, fit_judge, record, score_baselines, score_judge, table, toxicity, triple
from snapjudge.core.example import Example
from snapjudge.flows.scoring import contents_of
from snapjudge.model.adapter import Scope
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import load_backbone
from snapjudge.model.prompt import render_readout
from snapjudge.train.terms import FitConfig


def main() -> None:
    options = arguments(__doc__ or "", sizes=[1000, 4000], seeds=[0, 1, 2], all_up_to=1000)
    backbone, flops = load_backbone(device="cpu"), ceiling()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        pool = balanced(toxicity("davidson"), 10**6, seed)
        groups = {example.group for example in balanced(pool, 1000, seed + 1)}
        test = balanced([example for example in pool if example.group in groups], 1000, seed)
        rest = [example for example in pool if example.group not in groups]
        for size in options.sizes:
            train = balanced(rest, size, seed)
            used = {example.group for example in train}
            validation = balanced([example for example in rest if example.group not in used], 400, seed)
            scopes: list[Scope] = ["readout", "all"] if size <= options.all_up_to and seed == options.seeds[0] else ["readout"]
            rows += [{"seed": seed, "size": size, "scope": scope, **measure(backbone, scope, train, validation, test, flops, seed)} for scope in scopes]
            for name, found in score_baselines(backbone, train, validation, test).items():
                rows.append({"seed": seed, "size": size, "scope": name, "f1": triple(found, "f1"), "auroc": triple(found, "auroc")})
            print(shown(rows), flush=True)
    record("train_speed", {"ceiling_gflops": flops / 1e9, "test": 1000, "rows": rows}, "python -m benchmarks.train_speed")
    print(shown(rows))


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table."""
    head = ("seed", "size", "scope", "seconds", "encode s", "s/epoch", "epochs", "of ceiling", "F1", "AUROC")
    names = ("seed", "size", "scope", "seconds", "encode_seconds", "epoch_seconds", "epochs", "share_of_ceiling", "f1", "auroc")
    return table([head, *([row.get(name, "") if not isinstance(row.get(name), list) else row[name][0] for name in names] for row in rows)])


def measure(
    backbone: Backbone, scope: Scope, train: Sequence[Example], validation: Sequence[Example], test: Sequence[Example], flops: float, seed: int
) -> dict[str, Any]:
    """Fit one adapter, timed, and score the test."""
    began = time.monotonic()
    result = fit_judge(backbone, train, validation, scope, FitConfig(seed=seed))
    seconds = time.monotonic() - began
    found = score_judge(backbone, result, test)
    epochs = len(result.history)
    tokens, held = (sum(content.tokens for content in contents_of(part, TOXICITY, backbone)) for part in (train, validation))
    asked = len(render_readout(TOXICITY, backbone).token_ids)
    linear = 2 * sum(inputs * outputs for inputs, outputs in backbone.linears.values())
    # The floor: contents once forward (readout) or forward and back every epoch (all); readouts forward and back; validation forward.
    once = tokens if scope == "readout" else 2 * epochs * tokens
    work = linear * (once + epochs * (2 * asked * len(train) + held + asked * len(validation)))
    return {
        "seconds": seconds,
        "encode_seconds": result.encode_seconds,
        "epoch_seconds": (seconds - result.encode_seconds) / epochs,
        "epochs": epochs,
        "share_of_ceiling": work / seconds / flops,
        "f1": triple(found, "f1"),
        "auroc": triple(found, "auroc"),
        "history": result.history,
    }


if __name__ == "__main__":
    main()
