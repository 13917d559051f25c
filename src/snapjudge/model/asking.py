"""Asking in plain words: for every window of a content and every wording, the odds of a yes and how like the two are, from one reading.

Likeness is the cosine of the frozen embeddings of wording and window, each less the mean embedding of many contents (Mu & Viswanath, 2018). Nearness is the
largest cosine of the wording's embedding and those of the questions that the backbone has learned, each less their mean. Knows nothing of judgements.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import torch
from torch.nn import functional

from snapjudge.core.metric import Metric
from snapjudge.core.question import NO, YES
from snapjudge.model.backbone import Backbone
from snapjudge.model.prompt import Content, content_windows, render_readout
from snapjudge.model.reading import Question, read_and_embed, read_contents, summaries
from snapjudge.model.tokens import Ids

_ASKED = Metric(name="asked", version=1, type="boolean", inputs=("output",), question="?", labels={YES: ("yes",), NO: ("no",)})


class Answer(NamedTuple):
    """The log odds of a yes; the likeness of wording and window, from -1 to 1, and the wording's nearness to what was learned; 0 where neither is known."""

    odds: float
    likeness: float = 0.0
    nearness: float = 0.0


@dataclass(frozen=True, eq=False)
class Wording:
    """A wording as it is asked: its question; where it points, and the learned question it is nearest to, where that is known."""

    question: Question
    direction_D: torch.Tensor | None = None
    nearest: str = ""
    nearness: float = 0.0


class Asking:
    """Wordings asked of a backbone; those asked before are kept.

    Args:
        mean: the mean frozen embedding [D] of many contents; without it neither likeness nor nearness is told.
        learned: the questions that the backbone was trained on.
    """

    def __init__(self, backbone: Backbone, mean: Sequence[float] = (), learned: Sequence[str] = ()) -> None:
        self.backbone, self._learned = backbone, tuple(learned)
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
            yield from (self.answers(asked, [one.log_p for one in readings], None) for readings in read_contents(self.backbone, work))
            return
        for readings, embedding_D in read_and_embed(self.backbone, work):
            yield self.answers(asked, [one.log_p for one in readings], embedding_D)

    def nearest(self, wording: str) -> tuple[str, float]:
        """The learned question that a wording is nearest to, and how near; nothing and 0 where none is known."""
        return self._nearest(self._embedded([wording])[0])

    @property
    def embeds(self) -> bool:
        """Whether embeddings of wordings and contents count: `wording` and `answers` then need them."""
        return self._mean_D is not None

    def content_of(self, wording: str) -> Content:
        """A wording as the content whose embedding is its own."""
        return Content(content_windows({"input": wording}, self.backbone))

    def wording(self, wording: str, embedding_D: torch.Tensor | None = None) -> Wording:
        """A wording ready to be asked.

        Raises:
            MetricInvalid: it is longer than the backbone keeps room for.
        """
        metric = _ASKED.model_copy(update={"question": wording})
        question = Question(metric, render_readout(metric, self.backbone))
        if self._mean_D is None or embedding_D is None:
            return Wording(question)
        return Wording(question, _direction(embedding_D, self._mean_D), *self._nearest(embedding_D))

    def answers(self, asked: Sequence[Wording], log_p: Sequence[Sequence[float]], embedding_D: torch.Tensor | None) -> list[Answer]:
        """What one window says to some wordings, from the readings of their questions and the window's embedding."""
        if self._mean_D is None or embedding_D is None:
            return [Answer(_odds(one)) for one in log_p]
        centred_D = _direction(embedding_D, self._mean_D)
        likeness = [float(one.direction_D.dot(centred_D)) for one in asked if one.direction_D is not None]
        return [Answer(_odds(one), like, own.nearness) for one, like, own in zip(log_p, likeness, asked, strict=True)]

    def prepare(self) -> None:
        """Read the learned questions now."""
        if self._learned:
            _ = self._known

    def _nearest(self, embedding_D: torch.Tensor) -> tuple[str, float]:
        if not self._learned:
            return "", 0.0
        directions_QD, mean_D = self._known
        near_Q = directions_QD @ _direction(embedding_D, mean_D)
        best = int(near_Q.argmax())
        return self._learned[best], float(near_Q[best])

    def _made(self, wording: str) -> Wording:
        return self.wording(wording, self._embedded([wording])[0] if self.embeds else None)

    @cached_property
    def _known(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the learned questions point [Q, D], and their mean embedding [D]."""
        embedded_QD = torch.stack(self._embedded(self._learned)).double().cpu()
        mean_D = embedded_QD.mean(0)
        return functional.normalize(embedded_QD - mean_D, dim=1), mean_D

    def _embedded(self, texts: Sequence[str]) -> list[torch.Tensor]:
        return list(summaries(self.backbone, [self.content_of(text) for text in texts]))


def _direction(embedding_D: torch.Tensor, mean_D: torch.Tensor) -> torch.Tensor:
    return functional.normalize(embedding_D.double().cpu() - mean_D, dim=0)


def _odds(log_p: Sequence[float]) -> float:
    return log_p[0] - log_p[1]
