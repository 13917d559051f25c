"""Asking in plain words: for every window of a content and every wording, the odds of a yes and how like the two are, from one reading.

Likeness is the cosine of the frozen embeddings of wording and window, each less the mean embedding of many contents (Mu & Viswanath, 2018). Knows nothing of
judgements.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional

from snapjudge.core.metric import Metric
from snapjudge.core.question import NO, YES
from snapjudge.model.backbone import Backbone
from snapjudge.model.prompt import Content, content_windows, render_readout
from snapjudge.model.reading import Question, read_and_embed, read_contents, summaries
from snapjudge.model.tokens import Ids

_ASKED = Metric(name="asked", version=1, type="boolean", inputs=("output",), question="?", labels={YES: ("yes",), NO: ("no",)})


@dataclass(frozen=True)
class Answer:
    """The log odds of a yes, and the likeness: between -1 and 1, 0 where it does not count."""

    odds: float
    likeness: float


@dataclass(frozen=True, eq=False)
class _Wording:
    question: Question
    direction_D: torch.Tensor | None


class Asking:
    """Wordings asked of a backbone; those asked before are kept.

    Args:
        mean: the mean frozen embedding [D] of many contents; without it no likeness is told.
    """

    def __init__(self, backbone: Backbone, mean: Sequence[float] = ()) -> None:
        self.backbone = backbone
        self._mean_D = torch.tensor(mean, dtype=torch.float64) if mean else None
        self._wording = lru_cache(maxsize=4096)(self._made)

    def ask(self, windows: Sequence[Ids], wordings: Sequence[str]) -> Iterator[list[Answer]]:
        """The answers to all wordings, window by window.

        Raises:
            MetricInvalid: a wording is longer than the backbone keeps room for.
        """
        asked = [self._wording(wording) for wording in wordings]
        work = [(Content((window,)), [one.question for one in asked]) for window in windows]
        if self._mean_D is None:
            yield from ([Answer(_odds(one.log_p), 0.0) for one in readings] for readings in read_contents(self.backbone, work))
            return
        for readings, embedding_D in read_and_embed(self.backbone, work):
            centred_D = self._centred(embedding_D, self._mean_D)
            likeness = [float(one.direction_D.dot(centred_D)) for one in asked if one.direction_D is not None]
            yield [Answer(_odds(one.log_p), like) for one, like in zip(readings, likeness, strict=True)]

    def _made(self, wording: str) -> _Wording:
        metric = _ASKED.model_copy(update={"question": wording})
        question = Question(metric, render_readout(metric, self.backbone))
        if self._mean_D is None:
            return _Wording(question, None)
        text = Content(content_windows({"input": wording}, self.backbone))
        return _Wording(question, self._centred(next(summaries(self.backbone, [text])), self._mean_D))

    @staticmethod
    def _centred(embedding_D: torch.Tensor, mean_D: torch.Tensor) -> torch.Tensor:
        return functional.normalize(embedding_D.double().cpu() - mean_D, dim=0)


def _odds(log_p: Sequence[float]) -> float:
    return log_p[0] - log_p[1]
