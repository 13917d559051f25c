"""The open question: asked at request time in plain words, of any content, by nobody's training; and what its answer rests on. Knows nothing of backbones."""

import math
from typing import Literal

from pydantic import Field, model_validator

from snapjudge.core.frozen import Frozen
from snapjudge.core.metric import Metric, Text

OpenType = Literal["boolean", "choice", "score"]
YES, NO = "yes", "no"
_SPREAD = 0.02  # of nearness, over which the odds begin to count


class OpenQuestion(Frozen):
    """One question in plain words.

    `options` are the answers of a choice, or the levels of a score, lowest first; a boolean question has none. What an option means may be told after its
    name in `meanings`. Asked in several wordings (`rewordings`), the mean of their log odds answers.
    """

    instructions: Text
    type: OpenType = "boolean"
    options: tuple[Text, ...] = ()
    meanings: dict[str, str] = Field(default_factory=dict)
    rewordings: tuple[Text, ...] = ()
    name: str = ""

    @model_validator(mode="after")
    def _fitting(self) -> "OpenQuestion":
        if self.type == "boolean" and self.options:
            raise ValueError("a boolean question has no options; make it a choice or a score")
        if twice := [name for name in self.options if self.options.count(name) > 1]:
            raise ValueError(f"the option {twice[0]!r} stands there twice")
        if self.type != "boolean" and not 2 <= len(self.options) <= 255:
            raise ValueError(f"a {self.type} question needs 2 to 255 options; found {len(self.options)}")
        if unknown := [name for name in self.meanings if name not in self.options]:
            raise ValueError(f"a meaning of {unknown[0]!r}, which is no option")
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """The answers in order."""
        return self.options or (YES, NO)

    @property
    def wordings(self) -> tuple[tuple[str, ...], ...]:
        """What is asked, each wording to be answered with yes or no: of a boolean question its wordings, of others those of each option."""
        asked = tuple(dict.fromkeys(one.strip() for one in (self.instructions, *self.rewordings)))
        if not self.options:
            return (asked,)
        return tuple(tuple(f"{one} {self.meanings.get(option) or option}?" for one in asked) for option in self.options)

    @property
    def metric(self) -> Metric:
        """The metric whose judgement the answer is: how labels become a score and windows combine."""
        labels = {label: (f"answer{index}",) for index, label in enumerate(self.labels)}
        positive = YES if self.type == "boolean" else None
        return Metric(name="open_question", version=1, type=self.type, inputs=("output",), question=self.instructions, labels=labels, positive=positive)


class Evidence(Frozen):
    """What an open answer rests on: the odds that a backbone answers with, and how like question and content are.

    `odds` and `likeness` are weights. The odds of a question count in full where it is near to one that the backbone has learned, by half at a nearness of
    `near`, and hardly below: asked about what it has never learned, a backbone answers what it has.
    """

    odds: float = 1.0
    likeness: float = 0.0
    near: float | None = Field(default=None, description="None: the odds always count in full")

    def logit(self, odds: float, likeness: float, nearness: float) -> float:
        """The logit of a yes."""
        share = 1.0 if self.near is None else 1 / (1 + math.exp((self.near - nearness) / _SPREAD))
        return self.odds * share * odds + self.likeness * likeness


def same_question(text: str) -> str:
    """A key that is the same for two wordings of a question that differ in case, spacing and the question mark only."""
    return " ".join(text.casefold().rstrip("? ").split())
