"""What is asked of the engine and what it answers, what it refuses, and how it keeps a request while it works on it."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from torch import Tensor

from snapjudge.engine.adapters import AdapterStats, Version
from snapjudge.engine.cache import CacheStats, Lease
from snapjudge.engine.plan import Work
from snapjudge.errors import ContentTooLong, InputInvalid
from snapjudge.model.backbone import Backbone
from snapjudge.model.readout import Readout
from snapjudge.model.tokens import Ids


@dataclass(frozen=True)
class Read:
    """One question about a content: the name of a loaded adapter (None: the bare backbone) and the readout."""

    adapter: str | None
    readout: Readout


@dataclass(frozen=True)
class Answer:
    """Label logits of every read, in the order asked, and what they took.

    Args:
        cached: content tokens that did not have to be computed, and `tokens` of all.
        waited: seconds until the first step that worked on it; `seconds` from submission to the answer.
        summary: the content's mean hidden state [D] in float32, where it was wanted.
        traces: of every read the mean of its content's values in the last layer [G x d] in float32, where that was wanted; None otherwise.
    """

    logits: tuple[tuple[float, ...], ...]
    tokens: int
    cached: int
    waited: float
    seconds: float
    summary: Tensor | None = None
    traces: tuple[Tensor | None, ...] = ()


@dataclass(frozen=True)
class EngineStats:
    """A look at a running engine: what waits, what was done, the measured rate in tokens per second, cache and adapters.

    Args:
        rows: rows computed; some of them only fill a step up.
    """

    waiting: int
    waiting_tokens: int
    answered: int
    refused: int
    failed: int
    steps: int
    tokens: int
    rows: int
    rate: float
    cache: CacheStats
    adapters: AdapterStats

    @property
    def waste(self) -> float:
        """Share of the computed rows that are no token of any request."""
        return 1 - self.tokens / max(1, self.rows)


@dataclass(eq=False)
class Request:
    """One submission: its future and what is still to come."""

    future: "Future[Answer]"
    arrived: float
    logits: list[tuple[float, ...] | None]
    jobs: int
    tokens: int = 0
    answered: Callable[[], None] | None = None  # called under the engine's lock when it has its answer, before the future has
    cached: int = 0
    began: float | None = None
    summary: Tensor | None = None
    traces: list[Tensor | None] | None = None  # None where they are not wanted
    settled: bool = False  # its outcome is known, though the future may not have it yet

    @property
    def over(self) -> bool:
        """Whether nobody needs its other parts any more: it was cancelled, or one of them failed."""
        return self.settled or self.future.cancelled()


@dataclass(eq=False)
class Job:
    """The part of a request that reads one content state: all reads of readout scope together, each read of scope `all` by itself."""

    number: int
    request: Request
    ids: Ids
    version: Version | None  # whose content it is
    reads: list[tuple[int, Version | None, Readout]]
    work: Work
    node: int = 0  # where in the cache its match ended
    lease: Lease | None = None
    places: tuple[int, ...] = ()  # of its reads among the request's
    summarise: bool = False  # the content's mean hidden state is wanted still: all of it is computed, in one step, whatever is at hand

    @property
    def space(self) -> int | None:
        """Whose contents it reads."""
        return self.version.space if self.version is not None else None


@dataclass
class Part:
    """What a step does for one job."""

    job: Job
    tokens: int
    reads: list[tuple[int, Version | None, Readout]] = field(default_factory=list)


def check(content: Ids, reads: Sequence[Read], backbone: Backbone) -> None:
    """Refuse what a backbone cannot read.

    Raises:
        ContentTooLong, InputInvalid.
    """
    if not content:
        raise InputInvalid("the content has no tokens", hint="send at least one token")
    if len(content) > backbone.content_tokens:
        raise ContentTooLong(f"the content has {len(content)} tokens and {backbone.name} reads {backbone.content_tokens}", hint="send it in windows")
    _check_ids(content, backbone)
    for read in reads:
        size, labels = len(read.readout.token_ids), read.readout.label_tokens
        if not size or not labels or not all(labels):
            raise InputInvalid("a readout without tokens or labels, or a label without answer tokens", hint="render the metric's readout for this backbone")
        for ids in (read.readout.token_ids, *labels):
            _check_ids(ids, backbone)
        if size > backbone.readout_tokens:
            raise InputInvalid(f"a readout of {size} tokens; {backbone.name} has room for {backbone.readout_tokens}", hint="shorten the question")


def _check_ids(ids: Ids, backbone: Backbone) -> None:
    if min(ids) < 0 or max(ids) >= backbone.vocabulary:
        wrong = next(token for token in ids if not 0 <= token < backbone.vocabulary)
        raise InputInvalid(f"token id {wrong}; {backbone.name} has ids from 0 to {backbone.vocabulary - 1}", hint="use its own tokenizer")
