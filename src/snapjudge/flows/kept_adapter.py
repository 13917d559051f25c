"""The adapter of a judge that is there, to be calibrated and proved again without training: on new rows, with another rule, in other windows."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from snapjudge.core.example import Example
from snapjudge.core.manifest import WHOLE
from snapjudge.core.metric import Metric
from snapjudge.errors import OptionInvalid
from snapjudge.flows.prove_judge import check_unseen
from snapjudge.flows.train_terms import TrainConfig, TrainRequest
from snapjudge.judge import Judge
from snapjudge.model.adapter import Adapter
from snapjudge.model.backbone import Backbone
from snapjudge.model.readout import Readout
from snapjudge.train.terms import FitConfig

_TRAINING = ("scope", "teacher", "drop_optional", "noise")  # options that say how an adapter learns, and nothing else
_FIT = ("rate", "rank", "epochs", "batch", "teacher_share", "temperature")


@dataclass(frozen=True)
class KeptAdapter:
    """An adapter, the record of its fit (`rate`, `history`, `seconds`), which judge it was trained as, how and on what, digests of the texts it has seen, and
    what is to be said of it.
    """

    adapter: Adapter
    record: dict[str, Any]
    trained: dict[str, Any]
    seen: list[str]
    notes: list[str]


def check_untrained(config: TrainConfig, request: TrainRequest) -> None:
    """Where an adapter is kept, nothing may be asked of a training that does not take place.

    Raises:
        OptionInvalid: naming every such option.
    """
    changed = [name for name in _TRAINING if getattr(config, name) != TrainConfig.model_fields[name].default]
    changed += [name for name in _FIT if getattr(config.fit, name) != FitConfig.model_fields[name].default]
    options = [f"--{name.replace('_', '-')}" for name in (*changed, *(["unlabelled"] if request.unlabelled else []))]
    if config.adapter and options:
        raise OptionInvalid(
            f"--adapter keeps {config.adapter} as it is, and {', '.join(options)} {'says' if len(options) == 1 else 'say'} how to train",
            hint="leave --adapter out to train, or leave these out to calibrate and prove again",
            received=config.adapter,
        )


def kept_adapter(name: str, metric: Metric, readout: Readout, backbone: Backbone, test: Sequence[Example], *, allow_leak: bool) -> KeptAdapter:
    """A judge's adapter, which has not seen the test examples.

    Raises:
        DataLeak: a test text is among those that the judge was trained or calibrated on.
        OptionInvalid: the judge was trained whole, or on another question or other labels.
        BundleNotFound, BundleInvalid, BackboneMismatch.
    """
    judge = Judge.load(name, backbone=backbone)
    if judge.question.adapter is None or judge.bundle.manifest.scope == WHOLE:
        raise OptionInvalid(f"{judge.name} has all weights of its own and no adapter to keep", hint="use a judge of scope readout or all", received=name)
    if judge.question.readout.token_ids != readout.token_ids or judge.metric.labels != metric.labels:
        raise OptionInvalid(
            f"the adapter of {judge.name} learned another question or other labels than {metric.name}'s",
            hint="keep the judge's question and labels in the metric, or train without --adapter",
            received=name,
        )
    adapter = judge.question.adapter
    run = json.loads((judge.bundle.folder / "run.json").read_bytes())
    record: dict[str, Any] = run.get("fits", {}).get(adapter.scope, {"rate": 0.0, "history": [], "seconds": 0.0})  # a merged judge has none
    trained = run.get("trained") or {"judge": judge.name} | {name: run[name] for name in ("config", "data", "splits", "train_labels") if name in run}
    path = judge.bundle.folder / "seen.json"
    seen: list[str] = json.loads(path.read_bytes()) if path.exists() else []
    leaks = check_unseen(judge, test, allow=allow_leak)
    return KeptAdapter(adapter, record, trained, seen, [f"adapter of {judge.name} ({judge.bundle.digest[:16]}), not trained again", *leaks])
