"""The metric: one question about LLM traffic, its inputs, its labels and their answer words.

Knows nothing of files or tokenizers; `core.metric_file` reads the YAML, `model.readout` maps words to tokens.
"""

import math
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from snapjudge.core.frozen import Frozen

MetricType = Literal["boolean", "choice", "score", "pairwise"]
Level = Literal["span", "trace", "session"]
InputName = Literal["context", "tools", "input", "output", "messages", "a", "b"]
WindowRule = Literal["any", "all", "mean"]
Windows = Literal[WindowRule, "passages"]

INPUT_NAMES: tuple[InputName, ...] = ("context", "tools", "input", "output", "messages", "a", "b")  # the canonical order
LABEL_COUNTS: dict[str, tuple[int, int]] = {"boolean": (2, 2), "choice": (2, 255), "score": (2, 11), "pairwise": (2, 3)}
PAIR_LABELS = ("a", "b", "tie")

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
Word = Annotated[str, StringConstraints(min_length=1, pattern=r"^\S+$")]


class Metric(Frozen):
    """One question about LLM traffic. Field docs are the editor's tooltips (docs/metric.schema.json)."""

    name: Name = Field(description="Lower-case identifier; also the judge's name.")
    version: int = Field(ge=1, description="The criteria version, recorded with every label. Raise it when the policy changes.")
    type: MetricType = Field(description="boolean: two labels; choice: 2-255 labels; score: ordered levels; pairwise: a against b.")
    level: Level = Field(default="span", description="What one example is: one call, a request with its steps, or many turns.")
    inputs: tuple[InputName, ...] = Field(min_length=1, description="The fields the judge reads, by their standard names.")
    optional: tuple[InputName, ...] = Field(default=(), description="Inputs that may be missing; one input must be there at least.")
    question: Text = Field(description="What the judge is asked, in one sentence. It is read after the content.")
    policy: str = Field(default="", description="The criteria for the people who label; not read by the judge.")
    labels: dict[str, tuple[Word, ...]] = Field(
        description="Label -> answer words, each one token under the backbone. For boolean, the question's yes comes first."
    )
    positive: tuple[str, ...] | str | None = Field(default=None, description="The label (or labels) that is flagged. Boolean: the first label unless said.")
    windows: Windows | None = Field(
        default=None,
        description="How windows of long text combine: any (default where a label is flagged), all, or mean (default where none is); passages: any, "
        "in windows of a few sentences, for what one sentence decides.",
    )
    threshold: str | None = Field(default=None, description="How the flagging threshold is chosen, for example fpr<=0.02@95%.")
    escalation: str | None = Field(default=None, description="What the judge may answer itself, for example agreement>=0.95@95%; the rest is escalated.")

    def model_post_init(self, _: Any) -> None:
        """Resolve what was left out."""
        # Defaults that depend on other fields are resolved once, so that a saved metric says what it means.
        positive = self.positive
        if positive is None:
            positive = tuple(self.labels)[:1] if self.type == "boolean" else ()
        elif isinstance(positive, str):
            positive = (positive,)
        object.__setattr__(self, "positive", tuple(positive))
        if self.windows is None:
            object.__setattr__(self, "windows", "any" if positive else "mean")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels in the order of the file, which is the order of every probability vector."""
        return tuple(self.labels)

    @property
    def window_rule(self) -> WindowRule:
        """How windows of a long text combine."""
        assert self.windows is not None
        return "any" if self.windows == "passages" else self.windows

    @property
    def by_passages(self) -> bool:
        """Whether a text of more than a few sentences is read in windows shorter than the backbone's."""
        return self.windows == "passages"

    @property
    def positive_labels(self) -> tuple[str, ...]:
        """The flagged labels; empty for a metric that flags nothing."""
        assert isinstance(self.positive, tuple)
        return self.positive

    @property
    def ordered_inputs(self) -> tuple[InputName, ...]:
        """The inputs in canonical order, which is the order they are rendered in."""
        return tuple(name for name in INPUT_NAMES if name in self.inputs)

    @property
    def needed_inputs(self) -> tuple[InputName, ...]:
        """The inputs that every example has; where all are optional, the last stands for them."""
        return tuple(name for name in self.ordered_inputs if name not in self.optional) or self.ordered_inputs[-1:]

    def place_of_text(self, given: Collection[str] = ()) -> str:
        """The field that a text without a name goes to: the output, or the last that is not given; none where all are."""
        left = [name for name in self.ordered_inputs if name not in given]
        return "output" if "output" in left else left[-1] if left else ""

    @property
    def inputs_in_words(self) -> str:
        """The inputs for people, those that may be missing marked."""
        return ", ".join(f"{name} (if given)" if name in self.optional else name for name in self.ordered_inputs)

    @property
    def leaning(self) -> tuple[float, ...]:
        """A weight per label for "leans toward": 1 for positive labels, or the level 0..1 of a score, or 0."""
        if self.positive_labels:
            return tuple(float(name in self.positive_labels) for name in self.labels)
        if self.type == "score":
            return tuple(level / (len(self.labels) - 1) for level in range(len(self.labels)))
        return (0.0,) * len(self.labels)

    @property
    def mirror(self) -> tuple[int, ...]:
        """For pairwise: the index of each label after a and b change places."""
        names = self.label_names
        swap = {"a": "b", "b": "a"}
        return tuple(names.index(swap.get(name, name)) for name in names)

    @property
    def as_choice(self) -> "Metric":
        """The question as a choice of the same labels, to be held against what its type adds: levels without an order, a pair asked in one order only."""
        return self.model_copy(update={"type": "choice", "windows": "mean"})

    def score_of(self, probabilities: Mapping[str, float]) -> float:
        """The one number 0..1 of a judgement: P(positive labels); a score's mean level; a pair's P(a) + P(tie)/2; else P of the best label."""
        values = [probabilities[name] for name in self.labels]
        if self.positive_labels or self.type == "score":
            return min(1.0, math.fsum(w * p for w, p in zip(self.leaning, values, strict=True)))
        if self.type == "pairwise":
            return min(1.0, probabilities["a"] + probabilities.get("tie", 0.0) / 2)
        return max(values)

    def target(self, label: object) -> tuple[float, ...]:
        """A label as a distribution over the labels, in their order.

        Accepts a label's name; for boolean `true`/`false`, where true is the first label; for score the level's name or number;
        a mapping of label to share for soft labels.

        Raises:
            ValueError: saying what was found and what would be right.
        """
        names = self.label_names
        if isinstance(label, Mapping):
            return self._soft_target(label)
        found: int | None = None
        if isinstance(label, bool):
            found = (0 if label else 1) if self.type == "boolean" else None
        elif isinstance(label, str | int | float):
            text = str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
            found = names.index(text) if text in names else None
            if found is None and self.type == "boolean" and isinstance(label, str) and label.strip().lower() in ("true", "false"):
                found = 0 if label.strip().lower() == "true" else 1
            if found is None and isinstance(label, int | float) and self.type == "score" and f"level_{text}" in names:
                found = names.index(f"level_{text}")
        if found is None:
            also = " or true/false" if self.type == "boolean" else ""
            raise ValueError(f"found {label!r}; expected one of {', '.join(names)}{also}")
        return tuple(float(index == found) for index in range(len(names)))

    def _soft_target(self, shares: Mapping[object, object]) -> tuple[float, ...]:
        names = self.label_names
        unknown = [str(name) for name in shares if name not in names]
        numbers = [shares.get(name, 0.0) for name in names]
        if unknown or not shares:
            raise ValueError(f"found labels {unknown or 'none'}; expected shares of {', '.join(names)}")
        values = [float(n) if isinstance(n, int | float) and not isinstance(n, bool) else math.nan for n in numbers]
        total = math.fsum(values)
        if not all(math.isfinite(v) and v >= 0 for v in values) or total <= 0:
            raise ValueError(f"found shares {dict(shares)}; expected numbers of at least 0, not all 0")
        return tuple(v / total for v in values)
