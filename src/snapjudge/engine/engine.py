"""The engine: a queue, a thread, and steps of the backbone. Token ids, adapter names and a deadline in; label logits out.

What runs next is decided in `plan`, what is kept in `cache`, where adapters lie in `adapters`; here they are put together, and every request gets
its answer or its named error. Knows nothing of text, metrics or HTTP. One file, since all of it changes the same jobs under the same lock.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from types import TracebackType

import torch

from snapjudge.engine.adapters import AdapterPool, Version, digest_of
from snapjudge.engine.cache import ContentCache, Lease, Node
from snapjudge.engine.gathering import Gathering
from snapjudge.engine.plan import Limits, Share, Work, admit, next_step
from snapjudge.engine.requests import Answer, EngineStats, Job, Part, Read, Request, check
from snapjudge.engine.session import Session
from snapjudge.engine.workers import give_back_workers
from snapjudge.errors import DeadlineMissed, EngineBusy, EngineClosed, EngineFailed, OutOfMemory, SnapjudgeError
from snapjudge.model.adapter import Adapter
from snapjudge.model.attention import TILE, ContentState
from snapjudge.model.backbone import Backbone
from snapjudge.model.packing import Ask, NewTokens, Step
from snapjudge.model.readout import Readout
from snapjudge.model.tokens import Ids

_log = logging.getLogger(__name__)

MATCHES = 64  # waiting jobs whose cost is looked up again before a step


class Engine:
    """Runs requests in steps on one thread; everything else may be called from any thread.

    Args:
        cache_bytes: budget of the content cache; at least one content of full length always fits.
        adapter_bytes: budget of the adapters on the device.
        rate: tokens per second to expect before anything was measured.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        limits: Limits | None = None,
        cache_bytes: int = 1 << 30,
        adapter_bytes: int = 3 << 29,
        rate: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backbone, self.limits, self._clock = backbone, limits or Limits(), clock
        self._rate = rate or _first_rate(backbone)
        (probe,) = backbone.encode([(0,)])
        layers = [(keys.shape[0], keys.shape[2], values.shape[2]) for keys, values in probe.layers]
        causal = backbone.content_mask == "causal"
        self._cache = ContentCache(layers, prefix=causal, budget=cache_bytes, longest=backbone.content_tokens, dtype=backbone.dtype, device=backbone.device)
        self._adapters = AdapterPool(backbone.linears, budget=adapter_bytes, dtype=backbone.dtype, device=backbone.device)
        self._jobs: dict[int, Job] = {}
        self._at_node: dict[int, set[int]] = {}
        self._kept: dict[int, Node] = {}  # what sessions keep, oldest first
        self._stale: dict[int, None] = {}  # jobs whose cost may have changed, in the order they were noticed
        self._outcomes: list[Callable[[], None]] = []  # futures to resolve once the lock is let go
        self._leases: dict[tuple[int | None, Ids], tuple[Lease, int]] = {}
        self._numbers = itertools.count()
        self._running = 0
        self._answered = self._refused = self._failed = self._steps = self._tokens = self._rows = 0
        self._closed = False
        self._gathering = Gathering(self.limits.gather)
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="snapjudge-engine", daemon=True)
        give_back_workers()
        self._thread.start()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def load(self, name: str, adapter: Adapter | Callable[[], Adapter], *, pinned: bool = False) -> None:
        """Load an adapter, or replace the one of that name: running requests finish on the old weights, new ones get the new.

        Raises:
            AdapterInvalid: it does not fit the backbone; what was loaded before stays.
            OutOfMemory: it is to be pinned and there is no room; what was loaded before stays.
        """
        read = adapter if callable(adapter) else (lambda: adapter)
        given = read()  # a folder is read, and hashed, before anybody has to wait for it
        digest = digest_of(given)
        with self._wake:
            self._forget(self._adapters.load(name, given, digest, read, pinned=pinned))
        if threading.current_thread() is not self._thread:
            give_back_workers()  # those that reading it may have started

    def unload(self, name: str) -> None:
        """Forget an adapter; requests that hold it finish.

        Raises:
            AdapterUnknown.
        """
        with self._wake:
            self._forget(self._adapters.unload(name))

    def submit(self, content: Ids, reads: Sequence[Read], *, deadline: float | None = None, summary: bool = False, traces: bool = False) -> "Future[Answer]":
        """Ask for the label logits of some reads of one content. The future can be cancelled until its last step runs.

        Args:
            reads: none: the content is only read ahead, so that what is asked of it later finds it in the cache.
            deadline: seconds from now within which the answer is of use.
            summary: whether the content's mean hidden state under the bare backbone is wanted, too; it is computed anew, the last layer with it.
            traces: whether every read's mean of its content's values in the last layer is wanted, too; it is at hand.

        Raises:
            EngineBusy: the queue is full or the deadline would be missed; with the seconds after which it would not.
            AdapterUnknown, ContentTooLong, InputInvalid, EngineClosed.
        """
        return self._submit(content, reads, deadline=deadline, summary=summary, traces=traces)

    def _submit(
        self,
        content: Ids,
        reads: Sequence[Read],
        *,
        deadline: float | None,
        summary: bool = False,
        traces: bool = False,
        answered: Callable[[], None] | None = None,
    ) -> "Future[Answer]":
        check(content, reads, self.backbone)
        with self._wake:
            if self._closed:
                raise EngineClosed("the engine is closed", hint="open a new one")
            now = self._clock()
            request = Request(Future(), now, [None] * len(reads), 0, len(content), answered, traces=[None] * len(reads) if traces else None)
            jobs = self._jobs_of(request, tuple(content), reads, now, None if deadline is None else now + deadline, summary=summary)
            waiting = [job.work for job in self._jobs.values()]
            queued, requests = sum(work.cost for work in waiting), len({job.request for job in self._jobs.values()})
            for job in jobs:
                if refusal := admit(job.work, waiting, requests, queued, self._running, now, self._rate, self.limits):
                    self._refused += 1
                    hint = "ask for a later deadline, or fewer judges" if refusal.retry_after is None else f"try again in {refusal.retry_after:.3f} s"
                    raise EngineBusy(refusal.reason, hint=hint, retry_after=refusal.retry_after)
                waiting.append(job.work)
                queued += job.work.cost
            for job in jobs:
                self._take_in(job)
            self._wake.notify()
        return request.future

    def session(self, content: Ids = ()) -> Session:
        """A content that grows and stays at hand: each turn, or each piece of a stream, costs its new tokens only (causal backbones)."""
        return Session(content, self._submit, self._keep)

    @property
    def alive(self) -> bool:
        """Whether it takes requests: False once it was closed, or has stopped by itself."""
        return not self._closed

    @property
    def stats(self) -> EngineStats:
        """What waits and what was done so far."""
        with self._wake:
            tokens = sum(job.work.cost for job in self._jobs.values())
            done = self._answered, self._refused, self._failed, self._steps, self._tokens, self._rows
            return EngineStats(len(self._jobs), tokens, *done, self._rate, self._cache.stats, self._adapters.stats)

    def close(self) -> None:
        """Finish the running step; requests that wait get EngineClosed."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:  # a future's callback may close it
            self._thread.join()

    def _keep(self, content: Ids) -> Callable[[], None]:
        """Pin what is at hand of a content; the result lets it go again. Where nothing else makes room for a request, the oldest are let go before."""
        with self._wake:
            number = next(self._numbers)
            self._kept[number] = self._cache.pin(None, content)

        def let_go() -> None:
            with self._wake:
                node = self._kept.pop(number, None)
                if node is not None:
                    self._cache.unpin(node)
                    self._wake.notify()

        return let_go

    def _jobs_of(self, request: Request, content: Ids, reads: Sequence[Read], now: float, deadline: float | None, *, summary: bool) -> list[Job]:
        """One job for all reads that share the content, one for each that reads it under its own adapter."""
        by_space: dict[int | None, list[tuple[int, Version | None, Readout]]] = {}
        for index, read in enumerate(reads):
            version = self._adapters.find(read.adapter) if read.adapter is not None else None
            by_space.setdefault(version.space if version is not None else None, []).append((index, version, read.readout))
        if summary or not reads:
            by_space.setdefault(None, [])
        jobs = []
        for space, some in by_space.items():
            number = next(self._numbers)
            tokens, node = self._cache.match(space, content)
            sizes = tuple(len(readout.token_ids) for _, _, readout in some)
            whole = summary and space is None
            left = len(content) if whole else len(content) - tokens
            work = Work(number, now, (space, content, whole), left, self._cache.prefix and not whole, sizes, deadline)
            jobs.append(
                Job(
                    number,
                    request,
                    content,
                    some[0][1] if space is not None else None,
                    some,
                    work,
                    node,
                    places=tuple(index for index, _, _ in some),
                    summarise=whole,
                )
            )
        request.jobs = len(jobs)
        return jobs

    def _take_in(self, job: Job) -> None:
        self._jobs[job.number] = job
        self._at_node.setdefault(job.node, set()).add(job.number)
        for _, version, _ in job.reads:
            if version is not None:
                self._adapters.hold(version)

    def _loop(self) -> None:
        try:
            while self._turn():
                self._resolve()
        except Exception as error:
            _log.exception("the engine stopped")
            with self._wake:
                self._closed = True
                for job in list(self._jobs.values()):
                    self._end(job, EngineFailed(f"the engine stopped: {error}", hint="open a new one; the log has the details"))
        self._resolve()

    def _turn(self) -> bool:
        """One step, or the wait for something to do; False when the engine is closed."""
        with self._wake:
            while not self._jobs and not self._closed:
                self._wake.wait()
            if self._closed:
                for job in list(self._jobs.values()):
                    self._end(job, EngineClosed("the engine was closed before this request's turn", hint="open a new one"))
                return False
            self._gather()
            parts = self._plan()
            self._running = sum(part.tokens + sum(len(readout.token_ids) for _, _, readout in part.reads) for part in parts)
        if parts:
            self._run(parts)
        with self._wake:
            self._running = 0
            self._adapters.work_done()
            self._gathering.stepped(self._answered, len({job.request for job in self._jobs.values()}))
        return True

    def _gather(self) -> None:
        """Wait a moment for requests that are likely to come, where a step has room for them."""
        began = self._clock()
        while self._gathering.hopes and not self._closed:
            waiting, tokens = len({job.request for job in self._jobs.values()}), sum(job.work.cost for job in self._jobs.values())
            left = self._gathering.left(waiting, self._clock() - began)
            if left <= 0 or tokens >= self.limits.step_tokens:
                return
            self._wake.wait(left)

    def _resolve(self) -> None:
        """Hand out results: without the lock, since whoever waits for one may come back at once."""
        with self._wake:
            outcomes, self._outcomes = self._outcomes, []
        for outcome in outcomes:
            outcome()

    def _plan(self) -> list[Part]:
        """The next step's parts, their contents leased; requests that were cancelled or are too late are ended."""
        now = self._clock()
        for job in list(self._jobs.values()):
            if job.request.over:  # cancelled, or failed in another part
                self._end(job, None)
            elif job.work.deadline is not None and job.work.deadline < now:
                late = now - job.work.deadline
                self._end(job, DeadlineMissed(f"its turn came {late:.3f} s after its deadline", hint="ask for a later deadline"))
        self._match_again()
        for job in [job for job in self._jobs.values() if not job.work.cost]:  # read ahead, and at hand by now
            job.request.cached = len(job.ids)
            self._end(job, None)
        blocked: set[int] = set()
        parts: list[Part] = []
        while not parts and len(blocked) < len(self._jobs):
            computing: dict[Lease, bool] = {}
            for share in next_step((job.work for number, job in self._jobs.items() if number not in blocked), now, self._rate, self.limits):
                part = self._part(share, computing)
                if part is not None:
                    parts.append(part)
                elif share.number in self._jobs and self._jobs[share.number].lease is None:
                    blocked.add(share.number)  # no room for its content: the others must not wait for it
            if not parts and len(blocked) == len(self._jobs) and self._kept:
                self._cache.unpin(self._kept.pop(next(iter(self._kept))))
                blocked.clear()
        return parts

    def _match_again(self) -> None:
        """Where something came into the cache or left it, the works that stand there have a new cost; as many are looked up as a step can bear."""
        for node in self._cache.changed:
            self._stale.update(dict.fromkeys(self._at_node.get(node, ())))
        self._cache.changed.clear()
        for number in list(itertools.islice(self._stale, MATCHES)):
            del self._stale[number]
            job = self._jobs.get(number)
            if job is not None and job.lease is None:
                self._leave(job)
                tokens, job.node = self._cache.match(job.space, job.ids)
                if not job.summarise:
                    job.work = replace(job.work, tokens=len(job.ids) - tokens)
                self._at_node.setdefault(job.node, set()).add(number)

    def _leave(self, job: Job) -> None:
        """Forget where in the cache a job's match ended."""
        standing = self._at_node.get(job.node, set())
        standing.discard(job.number)
        if not standing:
            self._at_node.pop(job.node, None)

    def _part(self, share: Share, computing: dict[Lease, bool]) -> Part | None:
        """What a share means for its job, its content leased; None while there is no room in the cache or another part computes the content.

        Args:
            computing: contents that this step computes, and whether they are complete after it.

        The cache may have changed since the share was planned, by the leases of this very step: what is left is looked up again.
        """
        job = self._jobs[share.number]
        if job.lease is None and not self._lease(job):
            return None
        lease = job.lease
        assert lease is not None
        left = len(job.ids) if job.summarise else len(job.ids) - lease.done
        job.work = replace(job.work, tokens=left)
        if not job.work.cost:  # read ahead, and another request has computed it
            self._end(job, None)
            return None
        if job.summarise:
            if lease in computing:
                return None  # its turn comes with the next step
            tokens = left
        else:
            tokens = 0 if lease in computing else min(share.tokens, left) if self._cache.prefix else left
        whole = computing.setdefault(lease, tokens == left)
        if not tokens and not (whole and share.readouts):
            return None
        job.request.began = job.request.began or self._clock()
        return Part(job, tokens, job.reads[: share.readouts] if whole else [])

    def _lease(self, job: Job) -> bool:
        """Give a job the lease of its content, its own or that of a job that computes the same."""
        key = job.space, job.ids
        lease, users = self._leases.get(key, (None, 0))
        if lease is None:
            lease = self._cache.hold(job.space, job.ids)
            if lease is None:
                return False
        if not job.summarise:
            job.request.cached += lease.cached if not users else len(job.ids)
        job.lease, self._leases[key] = lease, (lease, users + 1)
        return True

    def _run(self, parts: list[Part]) -> None:
        """Run a step; if it fails, its parts one by one, so that only the one at fault gets the error."""
        began = self._clock()
        try:
            pieces, step, summaries = self._compute(parts)
            flat = torch.cat(step.logits).tolist() if step.logits else []
            for (lease, known, _), state in zip(pieces, step.states, strict=True):
                if known < state.length:  # what was at hand was computed again for its summary
                    lease.write([(keys[:, known:], values[:, known:]) for keys, values in state.layers] if known else state.layers)
        except Exception as error:  # whatever a model's code, an adapter's source or a kernel raises: the requests get it, the engine goes on
            self._run_apart(parts, error)
            return
        with self._wake:
            self._rows += step.rows
            for part, summary in zip((part for part in parts if part.job.summarise), summaries, strict=True):
                part.job.request.summary, part.job.summarise = summary, False
            self._settle(parts, flat, sum(tokens for _, _, tokens in pieces), began)

    def _run_apart(self, parts: list[Part], error: Exception) -> None:
        """Run the parts of a step that failed by themselves; halves, where memory was short."""
        memory = isinstance(error, MemoryError | torch.OutOfMemoryError | OutOfMemory) or "not enough memory" in str(error)
        if len(parts) > 1:
            middle = len(parts) // 2
            for some in (parts[:middle], parts[middle:]) if memory else [[part] for part in parts]:
                self._run(some)
            return
        (part,) = parts
        if memory and (halves := self._halves(part)):
            for half in halves:
                if part.job.number in self._jobs:
                    self._run([half])
            return
        _log.exception("a step of one request failed", exc_info=error)
        if isinstance(error, SnapjudgeError):
            told = error
        elif memory:
            told = OutOfMemory(f"the request does not fit in memory even alone: {error}", hint="send a shorter content or ask fewer judges at once")
        else:
            told = EngineFailed(f"the device failed on this request: {error}", hint="try again; if it stays, restart the process")
        with self._wake:
            self._end(part.job, told)

    def _halves(self, part: Part) -> tuple[Part, Part] | None:
        """One part as two smaller ones, if it can be divided."""
        if len(part.reads) > 1:
            middle = len(part.reads) // 2
            return Part(part.job, part.tokens, part.reads[:middle]), Part(part.job, 0, part.reads[middle:])
        if self._cache.prefix and part.tokens > TILE and not part.job.summarise:
            middle = part.tokens // 2
            return Part(part.job, middle), Part(part.job, part.tokens - middle, part.reads)
        return None

    def _compute(self, parts: list[Part]) -> tuple[list[tuple[Lease, int, int]], Step, list[torch.Tensor]]:
        """Put the parts in one pass of the backbone; also tells which leases it gave how many tokens, and how many of them were known, and the summaries of
        the parts that want one.
        """
        versions = [version for part in parts for version in _versions(part)]
        with self._wake:
            absent = self._adapters.work_with(versions)
        for version in absent:
            adapter = self._adapters.read(version)  # nobody waits for a disk
            with self._wake:
                self._adapters.place(version, adapter)
        pieces: dict[Lease, tuple[int, int, int]] = {}  # index in the step, how many of its tokens are at hand already, tokens
        contents: list[NewTokens] = []
        asks: list[Ask] = []
        for part in parts:
            lease = part.job.lease
            assert lease is not None
            left = len(part.job.ids) - lease.done
            tokens = part.tokens or (left if part.reads else 0)
            if part.job.summarise:
                pieces[lease] = len(contents), lease.done, len(part.job.ids)
                contents.append(NewTokens(part.job.ids))
            elif tokens and lease not in pieces:
                past = ContentState(lease.layers(lease.done), lease.done) if lease.done else None
                pieces[lease] = len(contents), 0, tokens
                contents.append(NewTokens(part.job.ids[lease.done : lease.done + tokens], past, _placed(part.job.version)))
        for part in parts:
            lease = part.job.lease
            assert lease is not None
            content = pieces[lease][0] if lease in pieces else ContentState(lease.layers(lease.done), lease.done)
            asks += [Ask(content, readout, _placed(version)) for _, version, readout in part.reads]
        wanted = [pieces[part.job.lease][0] for part in parts if part.job.summarise and part.job.lease is not None]
        step = self.backbone.step(contents, asks, summaries=bool(wanted))
        return [(lease, known, tokens) for lease, (_, known, tokens) in pieces.items()], step, [step.summaries[index] for index in wanted]

    def _settle(self, parts: list[Part], flat: list[float], tokens: int, began: float) -> None:
        """Hand out a step's logits and note what is left of its jobs."""
        now, at = self._clock(), 0
        done: list[Version] = []
        for part in parts:
            job = part.job
            for index, version, readout in part.reads:
                done += [version] if version is not None else []
                count = len(readout.label_tokens)
                job.request.logits[index] = tuple(flat[at : at + count])
                at, tokens = at + count, tokens + len(readout.token_ids)
            job.reads = job.reads[len(part.reads) :]
        for job in {part.job for part in parts}:
            assert job.lease is not None
            sizes = tuple(len(readout.token_ids) for _, _, readout in job.reads)
            job.work = replace(job.work, tokens=len(job.ids) - job.lease.done, readouts=sizes)
            if not job.work.cost:
                self._end(job, None)
        self._release(done)
        self._steps += 1
        self._tokens += tokens
        seconds = max(now - began, 1e-6)
        share = min(1.0, tokens / self.limits.step_tokens) / 4
        self._rate += share * (tokens / seconds - self._rate)

    def _end(self, job: Job, error: SnapjudgeError | None) -> None:
        """Take a job out; the last job of a request answers it, an error answers it at once."""
        self._jobs.pop(job.number, None)
        if error is None and job.request.traces is not None:
            trace = _trace(job)
            for place in job.places:
                job.request.traces[place] = trace
        self._leave(job)
        self._give_back(job)
        self._release(version for _, version, _ in job.reads if version is not None)
        request, now = job.request, self._clock()
        request.jobs -= 1
        future = request.future
        if request.over:
            if not request.settled and not request.jobs:  # cancelled: whoever waits for several futures is told now
                request.settled = True
                self._outcomes.append(lambda: _resolved(future, None))
        elif error is not None:
            self._failed += 1
            request.settled = True
            self._outcomes.append(lambda: _resolved(future, error))
        elif not job.reads and not request.jobs:
            self._answered += 1
            request.settled = True
            if request.answered is not None:
                request.answered()
            logits = tuple(one for one in request.logits if one is not None)
            began = request.began or now
            took = began - request.arrived, now - request.arrived
            answer = Answer(logits, request.tokens, min(request.cached, request.tokens), *took, request.summary, tuple(request.traces or ()))
            self._outcomes.append(lambda: _resolved(future, answer))

    def _give_back(self, job: Job) -> None:
        """Release a job's lease once nobody else computes with it."""
        if job.lease is None:
            return
        key = job.space, job.ids
        lease, users = self._leases[key]
        if users > 1:
            self._leases[key] = lease, users - 1
        else:
            del self._leases[key]
            lease.release()
        job.lease = None

    def _release(self, versions: Iterable[Version]) -> None:
        """Let go of adapter versions, after the contents computed under them were given back: what is gone leaves nothing in the cache."""
        for version in versions:
            self._forget(self._adapters.release(version))

    def _forget(self, version: Version | None) -> None:
        """Drop the contents that only a version which is gone could read."""
        if version is not None and version.space is not None:
            self._cache.drop(version.space)


def _trace(job: Job) -> torch.Tensor | None:
    """The mean of a content's values in the last layer [G x d]; None where the job ended before it was read."""
    if job.lease is None or job.lease.done < len(job.ids):
        return None
    _, values = job.lease.layers(len(job.ids))[-1]
    with torch.inference_mode():
        return values.float().mean(1).flatten().cpu()


def _first_rate(backbone: Backbone) -> float:
    """Tokens per second of a small encode, to have something to go by before the first step."""
    ids = tuple([0] * min(128, backbone.content_tokens))
    backbone.encode([ids])
    began = time.perf_counter()
    backbone.encode([ids])
    return len(ids) / (time.perf_counter() - began)


def _resolved(future: "Future[Answer]", outcome: Answer | SnapjudgeError | None) -> None:
    """Give a future its outcome, unless it was cancelled in the meantime."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, Answer):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)


def _versions(part: Part) -> list[Version]:
    """The adapters a part needs on the device."""
    return [version for version in (part.job.version, *(version for _, version, _ in part.reads)) if version is not None]


def _placed(version: Version | None) -> Adapter | None:
    """A version's weights on the device."""
    return version.placed if version is not None else None
