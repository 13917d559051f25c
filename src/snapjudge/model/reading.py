"""Asking questions of contents, many at once: the one path from token ids to raw label log-probabilities.

Training's validation, the proof, batch scoring and the library all call `read_contents`. Knows nothing of files or statistics.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from snapjudge.core.metric import Metric
from snapjudge.model.adapter import Adapter
from snapjudge.model.attention import ContentState
from snapjudge.model.backbone import Backbone
from snapjudge.model.packing import Ask, NewTokens
from snapjudge.model.prompt import Content
from snapjudge.model.readout import Readout, combine
from snapjudge.model.tokens import Ids

STEP_TOKENS = 4096  # content tokens packed into one forward pass


@dataclass(frozen=True, eq=False)
class Question:
    """What one judge asks: its metric, its readout under the backbone, its adapter (None for the bare backbone)."""

    metric: Metric
    readout: Readout
    adapter: Adapter | None = None

    @property
    def content_adapter(self) -> Adapter | None:
        """The adapter the content is encoded under: none, so that judges share it, but for scope `all`."""
        return self.adapter if self.adapter is not None and self.adapter.scope == "all" else None


@dataclass(frozen=True)
class Reading:
    """Raw label log-probabilities of one content under one question, and how many windows it took."""

    log_p: tuple[float, ...]
    windows: int


Work = tuple[Content, Sequence[Question]]


def read_contents(backbone: Backbone, work: Iterable[Work], *, step_tokens: int = STEP_TOKENS) -> Iterator[list[Reading]]:
    """For each (content, questions) yield one reading per question, in order. Each content is encoded once per step.

    Work is taken from the iterable as it is needed, in steps of about `step_tokens` content tokens; content states never exceed STEP_TOKENS tokens at once.
    """
    for step in _steps(work, step_tokens):
        yield from _read_step(backbone, step)


def read_and_embed(backbone: Backbone, work: Iterable[Work]) -> Iterator[tuple[list[Reading], torch.Tensor]]:
    """As `read_contents`, each with the content's frozen embedding [D] from the same pass. Every content is asked something without a content adapter."""
    for step in _steps(work, STEP_TOKENS):
        summarised: dict[Ids, torch.Tensor] = {}
        readings = _read_step(backbone, step, summarised)
        yield from zip(readings, [embedding_of([summarised[window] for window in content.windows]) for content, _ in step], strict=True)


def _steps(work: Iterable[Work], step_tokens: int) -> Iterator[list[Work]]:
    """Cut the work into steps of at most `step_tokens` content tokens, one item at the least."""
    step: list[Work] = []
    tokens = 0
    for item in work:
        if step and tokens + item[0].tokens > step_tokens:
            yield step
            step, tokens = [], 0
        step.append(item)
        tokens += item[0].tokens
    if step:
        yield step


@torch.inference_mode()
def _read_step(backbone: Backbone, step: Sequence[Work], summarised: dict[Ids, torch.Tensor] | None = None) -> list[list[Reading]]:
    """Read a step pack by pack: only the logits outlive a pack, however many windows a content has, and the windows' summaries where they are wanted."""
    wanted: dict[int, tuple[Adapter | None, dict[Ids, dict[int, Question]]]] = {}
    for content, questions in step:
        for question in questions:
            adapter = question.content_adapter
            windows = wanted.setdefault(id(adapter), (adapter, {}))[1]
            for window in content.windows:
                windows.setdefault(window, {})[id(question)] = question
    logits: dict[tuple[Ids, int], torch.Tensor] = {}
    for adapter, windows in wanted.values():
        for pack in _packs(list(windows)):
            contents = [NewTokens(window, adapter=adapter) for window in pack]
            pairs = [(at, question) for at, window in enumerate(pack) for question in windows[window].values()]
            states: Sequence[ContentState] = ()
            for some in _bounded(pairs):
                first = not states
                asks = [Ask(at if first else states[at], question.readout, question.adapter) for at, question in some]
                step_done = backbone.step(contents if first else (), asks, summaries=first and summarised is not None and adapter is None)
                states = states or step_done.states
                if summarised is not None and step_done.summaries:
                    summarised.update(zip(pack, step_done.summaries, strict=True))
                for (at, question), found in zip(some, step_done.logits, strict=True):
                    logits[pack[at], id(question)] = found
    return [
        [_reading(content, question, [logits[window, id(question)] for window in content.windows]) for question in questions] for content, questions in step
    ]


def _bounded(pairs: list[tuple[int, Question]]) -> Iterator[list[tuple[int, Question]]]:
    """Readouts in groups of at most STEP_TOKENS tokens."""
    some: list[tuple[int, Question]] = []
    tokens = 0
    for pair in pairs:
        size = len(pair[1].readout.token_ids)
        if some and tokens + size > STEP_TOKENS:
            yield some
            some, tokens = [], 0
        some.append(pair)
        tokens += size
    if some:
        yield some


def _packs(windows: list[Ids]) -> Iterator[list[Ids]]:
    """Packs of at most STEP_TOKENS tokens: one content with very many windows is not encoded in one pass."""
    pack: list[Ids] = []
    for window in windows:
        if pack and sum(map(len, pack)) + len(window) > STEP_TOKENS:
            yield pack
            pack = []
        pack.append(window)
    if pack:
        yield pack


def _reading(content: Content, question: Question, logits: Sequence[torch.Tensor]) -> Reading:
    log_p_L = combine(logits, content.orders, question.metric)
    return Reading(tuple(float(value) for value in log_p_L), len(content.windows) // content.orders)


def reading_of(rows: Sequence[Sequence[float]], orders: int, metric: Metric) -> tuple[float, ...]:
    """One content's label log-probabilities from the label logits of all its reads (orders x windows, order by order), as an engine tells them."""
    return tuple(map(float, combine([torch.tensor(row) for row in rows], orders, metric)))


def over_windows(log_p: Sequence[Sequence[float]], metric: Metric) -> tuple[float, ...]:
    """One content's label log-probabilities from those of its windows (any logits will do), as the metric combines them."""
    return tuple(map(float, combine([torch.tensor(row, dtype=torch.float64) for row in log_p], 1, metric)))


@torch.inference_mode()
def summaries(backbone: Backbone, contents: Iterable[Content]) -> Iterator[torch.Tensor]:
    """The frozen embedding [D] of each content, in order."""
    for step in _steps(((content, ()) for content in contents), STEP_TOKENS):
        windows = [window for content, _ in step for window in content.windows]
        found = iter([summary for pack in _packs(windows) for summary in backbone.step([NewTokens(ids) for ids in pack], [], summaries=True).summaries])
        for content, _ in step:
            yield embedding_of([next(found) for _ in content.windows])


@torch.inference_mode()
def traces(backbone: Backbone, contents: Iterable[Content], adapter: Adapter | None = None) -> Iterator[torch.Tensor]:
    """The mean of each content's values in the last layer [G x d], over its windows, in order; as an engine tells them.

    Args:
        adapter: under which contents are read, where a judge reads them by itself.
    """
    for step in _steps(((content, ()) for content in contents), STEP_TOKENS):
        windows = [window for content, _ in step for window in content.windows]
        states = (state for pack in _packs(windows) for state in backbone.step([NewTokens(ids, adapter=adapter) for ids in pack], []).states)
        means = (state.layers[-1][1].float().mean(1).flatten().cpu() for state in states)
        for content, _ in step:
            yield trace_of([next(means) for _ in content.windows])


def trace_of(windows: Sequence[torch.Tensor]) -> torch.Tensor:
    """A content's trace from those of its windows: their mean."""
    return torch.stack(list(windows)).mean(0)


def embedding_of(summaries: Sequence[torch.Tensor]) -> torch.Tensor:
    """The frozen embedding [D] of a content from the summaries [D] of its windows."""
    return embedding(torch.stack(list(summaries)))


def embedding(summaries_WD: torch.Tensor) -> torch.Tensor:
    """The frozen embedding [D] of a content from the summaries of its windows: their mean, scaled to length 1."""
    return functional.normalize(summaries_WD.mean(0), dim=0)
