"""Merging against joint training against one adapter for each policy, on four policies and the embedded backbone.

    python -m benchmarks.merging                                       about an hour on two cores
    python -m benchmarks.merging --backbone build/mini-seed --rows 1000 --trials 12
                                                                       on the untuned mini, where adapters have more to learn

Per policy, with intervals, on the halves of the `.dev` rows that nothing has seen: the backbone as it is; separate adapters; one adapter trained on all; the
separate adapters merged at equal weights, by TPE and by the bandit, above floors; and a policy added later: the merge of three extended by a fourth, against
all four trained again. Beside each stand the seconds of all fits and searches it needs. Validation rows decide; test rows are looked at once.
"""

import random
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks.common import DATA, METRICS, arguments, fit_judge, record
from benchmarks.judge_data import JudgeData, as_examples
from benchmarks.scoring import joint_fit, told
from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Silent
from snapjudge.flows.metric_files import read_metric
from snapjudge.flows.scoring import contents_of, raw_scores
from snapjudge.model.adapter import Adapter
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import load_backbone
from snapjudge.model.prompt import Content, render_readout
from snapjudge.model.reading import Question
from snapjudge.prove.figures import figures
from snapjudge.prove.proof import scored
from snapjudge.train.contents import ContentStore
from snapjudge.train.kept import KeptContents
from snapjudge.train.merge import MergeConfig, merge_adapters
from snapjudge.train.merge_search import PARTS, SearchConfig, search
from snapjudge.train.terms import FitConfig

POLICIES = ("toxicity", "sexism", "unsafe_prompt", "politeness")
CONFIG = FitConfig(rank=8, alpha=16.0, epochs=3, patience=2)
_HELD, _TEST = 400, 1500
_FLOOR = 0.03  # how far under its own adapter a policy may fall in a search


@dataclass
class Policy:
    """One policy's metric, rows and contents."""

    metric: Metric
    parts: Mapping[str, Sequence[Example]]
    contents: Mapping[str, list[Content]]
    kept: KeptContents

    def auroc(self, adapter: Adapter, piece: int | None = None) -> float:
        """On all validation rows, or on one of PARTS pieces of them."""
        chosen = [index for index in range(len(self.parts["validation"])) if piece is None or index % PARTS == piece]
        log_p = self.kept.log_p(chosen, render_readout(self.metric, self.kept.backbone), adapter, self.metric)
        rows = [self.parts["validation"][index] for index in chosen]
        return figures(scored(log_p, Calibration(), self.metric, rows)[0], self.metric, draws=2)["auroc"].value

    def told(self, backbone: Backbone, adapter: Adapter | None) -> list[float]:
        """AUROC on the test rows with its interval."""
        log_p = self.log_p(backbone, adapter, self.contents["test"])
        return told(scored(log_p, Calibration(), self.metric, self.parts["test"])[0], self.metric, "auroc")["auroc"]

    def log_p(self, backbone: Backbone, adapter: Adapter | None, contents: Sequence[Content]) -> Sequence[tuple[float, ...]]:
        """Raw scores under an adapter, whatever it was trained to answer; under none those of the backbone."""
        readout = render_readout(self.metric, backbone)
        question = Question(self.metric, readout, None if adapter is None else replace(adapter, invocation=readout.token_ids))
        return raw_scores(backbone, question, contents, Silent(), "")


def main() -> None:
    options = arguments(__doc__ or "", backbone="mini", rows=2000, trials=24)
    with ExitStack() as closing:
        found = compared(options, closing)
    command = f"python -m benchmarks.merging --backbone {options.backbone} --rows {options.rows} --trials {options.trials}"
    record("merging" if options.backbone == "mini" else "merging_untuned", found, command)


def compared(options: Namespace, closing: ExitStack) -> dict[str, Any]:
    """All ways on the same rows."""
    backbone = load_backbone(options.backbone)
    data = JudgeData(DATA)
    policies = [policy(name, data, backbone, options.rows, closing) for name in POLICIES]
    found: dict[str, Any] = {"rows": {one.metric.name: {part: len(rows) for part, rows in one.parts.items()} for one in policies}}

    def report(name: str, adapters: Sequence[Adapter | None], seconds: float, **more: Any) -> None:
        own = {one.metric.name: one.told(backbone, adapter) for one, adapter in zip(policies, adapters, strict=True)}
        found[name] = {**own, "mean": round(sum(value[0] for value in own.values()) / len(own), 4), "seconds": round(seconds, 1), **more}
        print(name, found[name], flush=True)

    report("no adapter", [None] * 4, 0.0)
    fits = [fit_judge(backbone, one.parts["train"], one.parts["validation"], "readout", CONFIG, one.metric) for one in policies]
    separate, fitting = [one.adapter for one in fits], sum(one.seconds for one in fits)
    report("separate adapters", separate, fitting)
    began = time.monotonic()
    joint = joint_fit(backbone, [(one.metric, one.parts) for one in policies], CONFIG)
    report("one adapter, trained on all", [joint] * 4, time.monotonic() - began)
    equal = merged(separate, MergeConfig(weights=(1.0,) * 4))
    report("merged at equal weights", [equal] * 4, fitting)
    best = {one.metric.name: one.auroc(adapter) for one, adapter in zip(policies, separate, strict=True)}
    for strategy in ("tpe", "bandit"):
        by = searched(policies, separate, strategy, options.trials, best)
        report(f"merged by {strategy}", [merged(separate, by.config)] * 4, fitting + by.seconds, **by.told)
    added_later(
        backbone, policies, separate, options.trials, best, lambda name, one, seconds, **more: report(name, [one] * 4, fits[3].seconds + seconds, **more)
    )
    return found


def policy(name: str, data: JudgeData, backbone: Backbone, rows: int, closing: ExitStack) -> Policy:
    """Some rows of a built-in judge's parts, at random."""
    metric, rng = read_metric(METRICS / f"{name}.yaml"), random.Random(0)  # noqa: S311 - reproducible data
    most = {"train": rows, "validation": _HELD, "test": _TEST}
    parts = {part: as_examples(rng.sample(own, min(most[part], len(own))), metric) for part, own in data.parts(name).items() if part in most}
    contents = {part: contents_of(own, metric, backbone) for part, own in parts.items()}
    folder = closing.enter_context(TemporaryDirectory())
    store = closing.enter_context(ContentStore(budget=2 << 30, spill=Path(folder) / "contents.bin", device=backbone.device))
    return Policy(metric, parts, contents, KeptContents(backbone, contents["validation"], store, Silent(), lambda: False))


def merged(adapters: Sequence[Adapter], config: MergeConfig) -> Adapter:
    """One adapter of the rank that holds every one of them."""
    return merge_adapters(adapters, config, rank=sum(adapter.rank for adapter in adapters)).adapter


class Searched(NamedTuple):
    """The best configuration on validation rows, and what the search took; `feasible` says whether it keeps every floor there."""

    config: MergeConfig
    seconds: float
    trials: int
    feasible: bool

    @property
    def told(self) -> dict[str, Any]:
        """What a report keeps of it."""
        return {"config": self.config.model_dump(mode="json"), "trials": self.trials, "floors kept": self.feasible}


def searched(policies: Sequence[Policy], adapters: Sequence[Adapter], strategy: Any, trials: int, best: Mapping[str, float]) -> Searched:
    """Search for the best merge of some adapters above a floor for each policy: its own adapter's AUROC on the validation rows, less `_FLOOR`."""
    floors = {one.metric.name: best[one.metric.name] - _FLOOR for one in policies}
    began = time.monotonic()

    def measure(config: MergeConfig, piece: int | None) -> dict[str, float]:
        adapter = merged(adapters, config)
        return {one.metric.name: one.auroc(adapter, piece) for one in policies}

    with TemporaryDirectory() as folder:
        terms = SearchConfig(strategy=strategy, trials=trials, floors=floors)
        found = search(measure, len(adapters), terms, path=Path(folder) / "trials.jsonl", progress=Silent())
    return Searched(found.best.config, time.monotonic() - began, len(found.trials), found.feasible)


def added_later(backbone: Backbone, policies: Sequence[Policy], separate: Sequence[Adapter], trials: int, best: Mapping[str, float], report: Any) -> None:
    """A fourth policy comes when three are merged, or trained together: its adapter is trained and merged in, nothing else is trained again."""
    three = merged(separate[:3], searched(policies[:3], separate[:3], "tpe", trials, best).config)
    by = searched(policies, [three, separate[3]], "tpe", trials, best)
    report("a fourth merged into a merge of three", merged([three, separate[3]], by.config), by.seconds, **by.told)
    together = joint_fit(backbone, [(one.metric, one.parts) for one in policies[:3]], CONFIG)
    by = searched(policies, [together, separate[3]], "tpe", trials, best)
    report("a fourth merged into one trained on three", merged([together, separate[3]], by.config), by.seconds, **by.told)


if __name__ == "__main__":
    main()
