"""A judge as a bundle: every file of it from its values. Knows nothing of how the judge came to be."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from snapjudge import __version__
from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example, plain_text
from snapjudge.core.manifest import BackboneId, Manifest
from snapjudge.core.metric import Metric
from snapjudge.core.metric_file import dump_metric
from snapjudge.curate.languages import SHARE, languages_of
from snapjudge.flows.card import model_card
from snapjudge.flows.record import machine, revision, versions
from snapjudge.model.adapter import Adapter, adapter_files
from snapjudge.prove.proof import Proof
from snapjudge.prove.report import render_report
from snapjudge.store.bundles import write_bundle

SEEN_DIGITS = 12  # of each training text's digest, kept in the bundle so that `prove` can refuse a leak


@dataclass(frozen=True)
class NewJudge:
    """All that a bundle is made of.

    Args:
        run: how it came to be, for run.json; versions and machine are added.
        seen: the examples it was trained, stopped or calibrated on.
        more: further files, path in the bundle -> content.
    """

    metric: Metric
    version: int
    backbone: BackboneId
    scope: str
    adapter: Adapter
    calibration: Calibration
    proof: Proof
    run: Mapping[str, Any]
    seen: Sequence[str]
    sources: Mapping[str, str]
    more: Mapping[str, bytes] = field(default_factory=dict)

    def write(self, out: Path) -> Path:
        """Write it to OUT/NAME/VERSION; the manifest comes last.

        Raises:
            RunConflict: that version exists already. StorageFailed: disk full and the like; nothing is left behind.
        """
        files = {f"adapter/{name}": raw for name, raw in adapter_files(self.adapter, backbone=self.backbone.name).items()}
        run = {**self.run, "versions": versions(), "machine": machine()}
        files |= self.more
        files |= {
            "metric.yaml": dump_metric(self.metric).encode(),
            "calibration.json": (self.calibration.model_dump_json(indent=2) + "\n").encode(),
            "proof.json": (self.proof.model_dump_json(indent=2) + "\n").encode(),
            "report.html": render_report(self.proof).encode(),
            "run.json": (json.dumps(run, indent=2) + "\n").encode(),
            "seen.json": json.dumps(sorted(set(self.seen))).encode(),
            "README.md": model_card(self.metric, self.proof, dict(self.sources)).encode(),
        }
        manifest = Manifest(
            name=self.metric.name,
            version=self.version,
            backbone=self.backbone,
            scope=self.scope,
            created=now(),
            snapjudge=__version__,
            revision=revision(),
            files={},
        )
        return write_bundle(out, manifest, files)


def seen_digests(*parts: Sequence[Example]) -> list[str]:
    """Short digests of the texts of some parts."""
    return [example.content_key[:SEEN_DIGITS] for part in parts for example in part]


def proved_languages(examples: Sequence[Example]) -> dict[str, float]:
    """The languages of the examples that a judge is proved on, those of single texts left out; a guard's routes ask for them."""
    return {name: round(share, 4) for name, share in languages_of([plain_text(one.inputs) for one in examples]).items() if share >= SHARE}


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
