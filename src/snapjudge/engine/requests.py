"""What is asked of the engine and what it answers, and how it keeps a request while it works on it."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from snapjudge.engine.adapters import AdapterStats, Version
from snapjudge.engine.cache import CacheStats, Lease
from snapjudge.engine.plan import Work
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
    """

    logits: tuple[tuple[float, ...], ...]
    tokens: int
    cached: int
    waited: float
    seconds: float


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
