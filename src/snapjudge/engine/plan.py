"""What runs next, and what is let in: pure functions over exact costs in tokens.

Prefill-only scheduling (arXiv 2505.07203): every cost is known before it runs, so the shortest remaining work goes first; waiting makes
work shorter (ageing), so that nothing starves. Touches no device and no clock; knows nothing of text, adapters or tensors.
"""

import heapq
from collections.abc import Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass

from pydantic import Field

from snapjudge.core.frozen import Frozen


class Limits(Frozen):
    """What a step may hold and how much may wait."""

    step_tokens: int = Field(default=2048, ge=16, description="tokens computed in one step; more only where one indivisible piece is larger")
    waiting_requests: int = Field(default=4096, ge=1, description="requests that may wait; the next is refused")
    waiting_tokens: int = Field(default=4_000_000, ge=1, description="tokens that may wait; a request that comes on top is refused")
    gather: float = Field(default=0.0, ge=0, le=1, description="seconds at the most that a step waits for those who come in step with others")
    ageing: float = Field(default=0.25, gt=0, description="how much of its cost a waiting request loses, as a share of what the engine computes meanwhile")


@dataclass(frozen=True)
class Work:
    """What is left of one request, in tokens.

    Args:
        number: the engine's name for it; smaller came earlier.
        content: names the content, so that two works of one step that share it pay for it once.
        tokens: content tokens still to be computed: those not in the cache.
        divisible: whether the content may be computed in parts (causal backbones).
        readouts: tokens of every readout still to be read; they need the whole content.
    """

    number: int
    arrived: float
    content: Hashable
    tokens: int
    divisible: bool
    readouts: tuple[int, ...]
    deadline: float | None = None

    @property
    def cost(self) -> int:
        """Tokens to compute before it is done."""
        return self.tokens + sum(self.readouts)


@dataclass(frozen=True)
class Share:
    """What a step does for one work: the next so many content tokens, then the next so many readouts."""

    number: int
    tokens: int
    readouts: int


@dataclass(frozen=True)
class Refusal:
    """Why a request is not let in, and after how many seconds the same request would be (None: never, on this machine)."""

    reason: str
    retry_after: float | None


def place(work: Work, now: float, rate: float, limits: Limits) -> tuple[float, int]:
    """Where a work stands: the smallest goes first. Each second of waiting takes `ageing * rate` tokens off its cost."""
    return work.cost - limits.ageing * rate * (now - work.arrived), work.number


def in_order(waiting: Iterable[Work], now: float, rate: float, limits: Limits) -> Iterator[Work]:
    """The works, shortest remaining first; only as many are sorted as are taken."""
    heap = [(place(work, now, rate, limits), work) for work in waiting]
    heapq.heapify(heap)
    while heap:
        yield heapq.heappop(heap)[1]


def next_step(waiting: Iterable[Work], now: float, rate: float, limits: Limits) -> list[Share]:
    """Fill one step, best place first, until the token budget is spent.

    Content that is divisible is taken in parts, readouts one by one; a piece that cannot be divided and does not fit waits for a step of
    its own, and whatever comes after it and fits is taken. An empty list only where nothing waits.
    """
    left = limits.step_tokens
    shares: list[Share] = []
    whole: dict[Hashable, bool] = {}  # contents of this step -> complete at its end
    for work in in_order(waiting, now, rate, limits):
        if left <= 0:
            break
        shared = whole.get(work.content)
        if shared is False:
            continue  # another work is computing this content and is not done with it in this step
        tokens = 0 if shared else _content_part(work, left, first=not shares)
        if tokens is None:
            continue
        left -= tokens
        readouts = 0
        if tokens == work.tokens or shared:
            for size in work.readouts:
                if size > left and (shares or tokens or readouts):
                    break
                left -= size
                readouts += 1
        if tokens or readouts:
            shares.append(Share(work.number, tokens, readouts))
            whole[work.content] = bool(shared) or tokens == work.tokens
    return shares


def _content_part(work: Work, left: int, *, first: bool) -> int | None:
    """How many content tokens of a work to compute in a step with `left` tokens to spend; None where it must wait."""
    if work.tokens <= left:
        return work.tokens
    if work.divisible:
        return left
    return work.tokens if first else None


def seconds_until_done(work: Work, waiting: Collection[Work], running: int, now: float, rate: float, limits: Limits) -> float:
    """Estimated seconds until a work that joins now is done: what runs, what goes before it, itself, and the rest of its last step.

    Args:
        running: tokens of the step that runs now.
        rate: tokens per second the engine computes, measured.
    """
    own = place(work, now, rate, limits)
    before = sum(other.cost for other in waiting if place(other, now, rate, limits) < own)
    last = -(-(before + work.cost) // limits.step_tokens) * limits.step_tokens
    return (running + min(last, work.cost + sum(other.cost for other in waiting))) / rate


def admit(work: Work, waiting: Collection[Work], requests: int, queued: int, running: int, now: float, rate: float, limits: Limits) -> Refusal | None:
    """Let a work in (None), or say why not and when to come again: at once, rather than an answer that comes too late.

    Args:
        requests: how many other requests wait; one may be several works.
        queued: the cost of all that waits.
    """
    if requests >= limits.waiting_requests:
        return Refusal(f"{requests} requests wait, the most the queue holds", min((other.cost for other in waiting), default=work.cost) / rate)
    if waiting and queued + work.cost > limits.waiting_tokens:
        return Refusal(f"{queued} tokens wait and the queue holds {limits.waiting_tokens}", (queued + work.cost - limits.waiting_tokens) / rate)
    if work.deadline is None:
        return None
    allowed, needed = work.deadline - now, seconds_until_done(work, waiting, running, now, rate, limits)
    if needed <= allowed:
        return None
    alone = work.cost / rate
    if alone > allowed:
        return Refusal(f"its {work.cost} tokens take {alone:.3f} s alone and the deadline is in {allowed:.3f} s", None)
    return Refusal(f"it would be done in {needed:.3f} s and the deadline is in {allowed:.3f} s", needed - allowed)
