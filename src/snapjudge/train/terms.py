"""What a fit is given and gives: configuration, data, one epoch's validation, the result. Holds no computation of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from snapjudge.core.frozen import Frozen
from snapjudge.model.adapter import Adapter
from snapjudge.model.prompt import Content

LogP = Sequence[tuple[float, ...]]


class FitConfig(Frozen):
    """How an adapter is fitted. `epochs` None: as many as give about 400 steps, 4 to 10."""

    rank: int = Field(default=16, ge=1, le=256)
    alpha: float = Field(default=32.0, gt=0)
    rate: float = Field(default=1e-3, gt=0, le=1, description="peak learning rate of AdamW; lowered by itself where it diverges or collapses")
    batch: int = Field(default=32, ge=1, le=4096)
    epochs: int | None = Field(default=None, ge=1, le=1000)
    patience: int = Field(default=3, ge=1, description="epochs without a better validation figure before stopping")
    warmup: float = Field(default=0.06, ge=0, lt=1, description="share of all steps over which the rate rises")
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    balanced: bool = Field(default=True, description="equal shares of the classes in every epoch")
    restarts: int = Field(default=3, ge=0, description="how often the rate may be lowered and the fit begun again")
    teacher_share: float = Field(default=0.5, ge=0, le=1, description="how much a teacher counts beside the labels")
    temperature: float = Field(default=2.0, gt=0, description="at which a teacher's probabilities are learned")
    cache_gb: float = Field(default=2.0, ge=0, description="content states kept in the device's memory, GiB; the rest goes to a file")
    seed: int = 0

    def epochs_for(self, examples: int) -> int:
        """The planned number of epochs."""
        return self.epochs or max(4, min(10, round(400 * self.batch / max(1, examples))))


@dataclass(frozen=True)
class Validation:
    """What the caller says of one epoch's validation: a figure where more is better and 0.5 or so is chance, its name, and the log loss."""

    figure: float
    name: str
    loss: float
    chance: float
    error: float  # standard error of the figure


@dataclass(frozen=True)
class FitData:
    """Contents with their targets (label distributions), for training; contents alone, for validation.

    `asked` and `validation_asked` tell which of several questions each content belongs to; empty where there is one. `teacher` holds a teacher's probabilities
    for each training content (None where it gave none); empty where nobody teaches. A target of None is an example without a label: the teacher's
    probabilities stand for it.
    """

    contents: Sequence[Content]
    labels: Sequence[tuple[float, ...] | None]
    validation: Sequence[Content]
    teacher: Sequence[tuple[float, ...] | None] = ()
    asked: Sequence[int] = ()
    validation_asked: Sequence[int] = ()

    def question_of(self, index: int, *, validation: bool = False) -> int:
        """The place of the question that a content is asked."""
        asked = self.validation_asked if validation else self.asked
        return asked[index] if asked else 0

    @property
    def targets(self) -> list[tuple[float, ...]]:
        """What each training content is fitted to: its label, else what the teacher says."""
        found = [label if label is not None else self.teacher[place] for place, label in enumerate(self.labels)]
        assert all(target is not None for target in found), "an example with neither label nor teacher"
        return [target for target in found if target is not None]

    def shares(self, share: float) -> list[float]:
        """How much the teacher counts for each training content: wholly where there is no label, not at all where it said nothing."""
        told = self.teacher or [None] * len(self.labels)
        return [0.0 if said is None else 1.0 if label is None else share for label, said in zip(self.labels, told, strict=True)]

    @property
    def classes(self) -> list[int]:
        """The most likely label of each target; labels of different questions are different classes."""
        most = max(map(len, self.targets), default=0)
        return [self.question_of(index) * most + max(range(len(target)), key=target.__getitem__) for index, target in enumerate(self.targets)]


@dataclass
class FitResult:
    """The adapter of the best epoch and how it came to be."""

    adapter: Adapter
    best: Validation
    log_p: list[tuple[float, ...]]
    rate: float
    history: list[dict[str, Any]]
    notes: list[str]
    encode_seconds: float
    seconds: float
    embeddings_ED: NDArray[np.float64] | None = None  # of the training contents, where this fit encoded them under the backbone alone
