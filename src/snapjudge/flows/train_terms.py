"""What a training is asked and answers: configuration, request, result. Holds no computation of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from snapjudge.core.calibration import SliceBy
from snapjudge.core.frozen import Frozen
from snapjudge.core.rules import Gate
from snapjudge.model.hub import EMBEDDED
from snapjudge.prove.probes import ROWS
from snapjudge.prove.proof import Proof
from snapjudge.train.terms import FitConfig

Trained = Literal["auto", "readout", "all", "backbone"]  # what learns: an adapter on the question's tokens or on every token, or all weights


class TrainConfig(Frozen):
    """Everything that decides a training beside metric and data; saved resolved in run.json."""

    scope: Trained = "auto"
    backbone: str = EMBEDDED
    threshold: str | None = Field(default=None, description="overrides the metric's threshold rule")
    escalation: str | None = Field(default=None, description="overrides the metric's escalation rule")
    prevalence: float | None = Field(default=None, gt=0, lt=1, description="share of the flagged label where the judge will run")
    validation_share: float = Field(default=0.10, gt=0, lt=0.5)
    calibration_share: float = Field(default=0.18, gt=0, lt=0.5)
    test_share: float = Field(default=0.18, gt=0, lt=0.5, description="used where no test files are given")
    calibrate_by: SliceBy = Field(default="", description="give parts of the traffic a calibration map of their own: length or source")
    probes: int = Field(default=ROWS, ge=0, description="test examples that are probed; 0 for none")
    allow_leak: bool = False
    texts: bool = Field(default=True, description="show the worst errors with their texts; without, a bundle holds no text of the data")
    drop_optional: float = Field(default=0.0, ge=0, le=1, description="share of training examples also shown without their optional inputs")
    noise: float = Field(default=0.0, ge=0, le=1, description="share of training examples also shown with noise that must not change a verdict")
    teacher: str = Field(default="", description="a judge, verdict:NAME or open:BACKBONE whose probabilities are learned, too")
    adapter: str = Field(default="", description="a judge whose adapter is kept: only calibrated and proved again")
    fit: FitConfig = FitConfig()


@dataclass(frozen=True)
class TrainResult:
    """A new judge: where its bundle lies, and its proof."""

    folder: Path
    judge: str
    proof: Proof
    seconds: float


@dataclass(frozen=True)
class TrainRequest:
    """What is to be trained, from which files, to where."""

    metric_path: Path
    data: Sequence[Path]
    out: Path
    test: Sequence[Path] = ()
    mapping: Mapping[str, str] | None = None
    gates: Sequence[Gate] = ()
    suite: Path | None = None
    resume: bool = False
    restart: bool = False
    validation: Sequence[Path] = ()
    calibration: Sequence[Path] = ()
    unlabelled: Sequence[Path] = ()
