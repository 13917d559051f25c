"""A running server's parts, as its routes see them."""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from starlette.requests import HTTPConnection

from snapjudge.core.api import Answer, Health, Timings
from snapjudge.errors import EngineBusy, EngineDown, Problem, RequestInvalid, RunConflict, ServeFailed, SnapjudgeError
from snapjudge.guard.guarding import Guarded
from snapjudge.guard.policies import Policies
from snapjudge.guard.routing import Elsewhere
from snapjudge.live.escalation import Escalation
from snapjudge.live.host import SMALL
from snapjudge.live.judges import LiveJudges
from snapjudge.live.judging import Spent
from snapjudge.serve.deferred.deferred import Deferred, left_behind
from snapjudge.serve.keys import Caller, Keys
from snapjudge.serve.metrics import Metrics
from snapjudge.serve.proxy.upstream import UpstreamClient
from snapjudge.serve.sessions import Sessions
from snapjudge.serve.settings import ServeSettings, Upstream
from snapjudge.serve.streams import Streams
from snapjudge.serve.tracing import note_results
from snapjudge.serve.webhooks import Webhooks

_log = logging.getLogger(__name__)
SURE = 0.65  # of a deadline that a request is let in for: estimates are estimates
TIMED = frozenset({"/v1/judge", "/v1/guard", "/v1/decisions", "/v1/systemone", "/v1/moderations", "/classify"})  # paths whose refusal is found out by headers
BYTES_PER_TOKEN = 5  # of English prose; for what is refused before it is read


class Service:
    """Made before the engines run; `start` starts them.

    Attributes:
        started: when, in seconds of the epoch.
        stopping: whether it was told to stop; /readyz says so.
        draining: whether it takes nothing new any more.
        failure: why it could not start.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self.settings, self.keys, self.metrics = settings, Keys.read(settings.keys), Metrics()
        self.started = int(time.time())
        self.stopping = self.draining = False
        self.failure: SnapjudgeError | None = None
        self._starting: asyncio.Task[None] | None = None
        self._judges: LiveJudges | None = None
        self._sessions: Sessions | None = None
        self._webhooks: Webhooks | None = None
        self._upstream: UpstreamClient | None = None
        self._escalation: Escalation | None = None
        self._deferred: Deferred | None = None
        self._reviewing: set[asyncio.Task[tuple[str, ...]]] = set()
        self._opening = asyncio.Lock()
        self.streams = Streams(settings.bounds)
        self.policies = Policies(settings.policies)
        if settings.upstream is not None:
            self.policies.put(settings.upstream.policy)

    @property
    def started_on(self) -> str:
        """The day it was started, as YYYY-MM-DD."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.started))

    def begin(self) -> None:
        """Start in the background: health is told meanwhile, and `failure` where it cannot start."""
        self._starting = asyncio.create_task(self.start())
        self._starting.add_done_callback(self._begun)

    def _begun(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, SnapjudgeError):
            self.failure = error
        else:
            _log.error("the server could not start", exc_info=error)
            self.failure = ServeFailed(f"{type(error).__name__}: {error}", hint="the log has the details")

    async def start(self) -> None:
        """Start the engines and load the judges.

        Raises:
            BackboneNotFound, BackboneUnsupported, BundleNotFound, BundleInvalid, BackboneMismatch, JudgeUnknown, OptionInvalid.
        """
        judges = await LiveJudges.start(self.settings.engine, self.settings.judges)
        try:
            for alias, judge in self.settings.aliases.items():
                await judges.point(alias, judge)
        except BaseException:
            await judges.close()
            raise
        if self.settings.upstream is not None:
            self._upstream = UpstreamClient(self.settings.upstream)
        if self.settings.escalation is not None:
            self._escalation = Escalation(self.settings.escalation, self.settings.data / "escalation.json", self._counted)
        self._judges, self._sessions, self._webhooks = judges, Sessions(judges, self.settings.bounds), Webhooks(self.metrics)
        self.metrics.watch(judges)
        if left_behind(self.settings.data):
            try:
                await self.deferred()
            except RunConflict as error:  # whoever has it goes on with what lies there
                _log.warning("%s; what is to be judged later is refused here", error.message)

    async def close(self) -> None:
        """End the engines."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        self.streams.close_all()
        await asyncio.gather(*self._reviewing, return_exceptions=True)
        if self._escalation is not None:
            await self._escalation.close()
        if self._deferred is not None:
            await self._deferred.close()
        if self._upstream is not None:
            await self._upstream.close()
        if self._webhooks is not None:
            await self._webhooks.close(min(5.0, self.settings.drain_seconds))
        judges, self._judges = self._judges, None
        if judges is not None:
            await judges.close()

    @property
    def judges(self) -> LiveJudges:
        """The judges that answer.

        Raises:
            EngineDown: they are being loaded.
        """
        if self._judges is None:
            raise _loading()
        return self._judges

    @property
    def sessions(self) -> Sessions:
        """The sessions that are open."""
        if self._sessions is None:
            raise _loading()
        return self._sessions

    async def deferred(self) -> Deferred:
        """What is judged later; its folder is made when it is first asked for.

        Raises:
            RunConflict: another server uses the folder. StorageFailed.
        """
        async with self._opening:
            if self._deferred is None:
                made = Deferred(self.settings, self.judges, self.metrics, self.webhooks)
                await made.start()
                self._deferred = made
            return self._deferred

    @property
    def escalation(self) -> Escalation:
        """Language models that answer where judges should not.

        Raises:
            RequestInvalid: this server knows none.
        """
        if self._escalation is None:
            raise RequestInvalid("the request", [Problem("escalate", "a server without language models", "one that was started with --escalation FILE")])
        return self._escalation

    @property
    def elsewhere(self) -> Elsewhere:
        """Whom a guard's routes may lead to."""
        return Elsewhere(self._escalation, lambda condition, to, outcome: self.metrics.routed.labels(condition, to, outcome).inc())

    async def review(self, found: Guarded, inputs: Mapping[str, Any], source: str, owner: str) -> tuple[str, ...]:
        """Put before people what a policy wants them to see; the numbers under which it lies there, once it does."""
        if not found.people and found.response.action != "escalate":
            return ()
        return await (await self.deferred()).review(found, inputs, source, owner)

    def review_soon(self, found: Guarded, inputs: Mapping[str, Any], source: str, owner: str) -> None:
        """The same, while its caller goes on."""
        task = asyncio.create_task(self.review(found, inputs, source, owner))
        self._reviewing.add(task)
        task.add_done_callback(self._reviewing.discard)

    @property
    def upstream_terms(self) -> Upstream:
        """What a proxy was told of its endpoint."""
        assert self.settings.upstream is not None, "only a proxy has an endpoint"
        return self.settings.upstream

    @property
    def upstream(self) -> UpstreamClient:
        """The endpoint that a proxy stands in front of."""
        if self._upstream is None:
            raise _loading()
        return self._upstream

    @property
    def webhooks(self) -> Webhooks:
        """What is told to others."""
        if self._webhooks is None:
            raise _loading()
        return self._webhooks

    @property
    def health(self) -> Health:
        """How it is: ready where every backbone has an engine; degraded where some engines are down."""
        if self.stopping:
            return Health(status="draining")
        if self._judges is None:
            return Health(status="starting")
        hosts = [(one.name, one.host) for one in self._judges.backings.values()]
        engines = {name: f"{host.alive} of {host.terms.count}" for name, host in hosts}
        whole = all(host.alive == host.terms.count for _, host in hosts)
        return Health(status="ok" if whole else "degraded" if self._judges.ready else "down", engines=engines, judges=len(self._judges.roster.judges))

    def deadline(self, request: Request, stated_ms: float | None = None) -> float:
        """When an answer is of no more use, on the monotonic clock: what the body says, else the header, else the server's own.

        Raises:
            EngineBusy: with all that is on its way, it would not be answered by then; found out before anything is read.
        """
        given = stated_ms if stated_ms is not None else _milliseconds(request.headers.get("x-deadline-ms"))
        return time.monotonic() + self._in_time(given, int(request.headers.get("content-length") or 0))

    def check_time(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """See that a request could be answered in time, by what waits already: where all hands are full, refusing has to be cheap.

        Raises:
            EngineBusy.
        """
        if path in TIMED and self._judges is not None:
            length = min(int(headers.get(b"content-length") or 0), SMALL * BYTES_PER_TOKEN)  # what a large body holds is not known before it is read
            self._in_time(_milliseconds(headers.get(b"x-deadline-ms", b"").decode("latin-1")), length)

    def _in_time(self, given: float | None, length: int) -> float:
        """The seconds that a request has.

        Raises:
            EngineBusy: with all that is on its way, it would not be answered by then.
        """
        seconds = (given if given is not None else self.settings.deadline_ms) / 1000
        needed = self.judges.generalist.host.seconds_until_done(length // BYTES_PER_TOKEN)
        if needed > seconds * SURE:
            wait = needed - seconds * SURE
            reason = f"with all that waits it would be done in {needed:.3f} s, and the deadline is in {seconds:.3f} s"
            raise EngineBusy(reason, hint=f"try again in {wait:.3f} s", retry_after=wait)
        return seconds

    def timings(self, request: Request, spent: Spent) -> Timings:
        """How long a request took so far, and what of it in the engines; what it took is counted."""
        self.metrics.waited.observe(spent.waited)
        self.metrics.engine.observe(spent.seconds)
        self.metrics.tokens.observe(spent.tokens)
        total = time.perf_counter() - request.state.began
        return Timings(waited_ms=round(spent.waited * 1000, 3), engine_ms=round(spent.seconds * 1000, 3), total_ms=round(total * 1000, 3))

    def check_judges(self, caller: Caller, names: Sequence[str]) -> None:
        """See that a caller may ask these judges, whatever it calls them.

        Raises:
            KeyForbidden, JudgeUnknown.
        """
        roster = self.judges.roster
        caller.check_judges([roster.find(name).judge for name in names])

    def _counted(self, endpoint: str, outcome: str, dollars: float) -> None:
        self.metrics.models.labels(endpoint, outcome).inc()
        self.metrics.dollars.labels(endpoint).inc(dollars)

    def count(self, answers: Sequence[Answer]) -> None:
        """Count answers, and put them down where requests are traced."""
        self.metrics.count(answers)
        note_results(answers)


def service_of(request: HTTPConnection) -> Service:
    """The service a request came to."""
    found = request.app.state.service
    assert isinstance(found, Service)
    return found


def caller_of(request: HTTPConnection) -> Caller:
    """Who sent a request."""
    found = request.state.caller
    assert isinstance(found, Caller)
    return found


async def deferred_of(request: Request) -> tuple[Deferred, Caller]:
    """What is judged later, for a caller that may observe.

    Raises:
        KeyForbidden. As `Service.deferred`.
    """
    caller = caller_of(request)
    caller.check("observe")
    return await service_of(request).deferred(), caller


def _loading() -> EngineDown:
    return EngineDown("the judges are being loaded", hint="GET /readyz tells when they answer", retry_after=1.0)


def _milliseconds(text: str | None) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value <= 3_600_000 else None
