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
from snapjudge.judge import Judge
from snapjudge.model.adapter import Adapter
from snapjudge.model.backbone import Backbone
from snapjudge.model.readout import Readout


@dataclass(frozen=True)
class KeptAdapter:
    """An adapter, the record of its fit (`rate`, `history`, `seconds`), digests of the texts it has seen, and what is to be said of it."""

    adapter: Adapter
    record: dict[str, Any]
    seen: list[str]
    notes: list[str]


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
    fits = json.loads((judge.bundle.folder / "run.json").read_bytes()).get("fits", {})  # a merged judge has none
    record: dict[str, Any] = fits.get(adapter.scope, {"rate": 0.0, "history": [], "seconds": 0.0})
    path = judge.bundle.folder / "seen.json"
    seen: list[str] = json.loads(path.read_bytes()) if path.exists() else []
    leaks = check_unseen(judge, test, allow=allow_leak)
    return KeptAdapter(adapter, record, seen, [f"adapter of {judge.name} ({judge.bundle.digest[:16]}), not trained again", *leaks])
