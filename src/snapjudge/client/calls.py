"""What both clients share: where the server is, what calls there are, how each is sent, tried again and read.

Knows nothing of whether anybody waits for an answer in a thread or in a task.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, RootModel, ValidationError

from snapjudge.core.api import (
    AliasRequest,
    AppendRequest,
    AppendResponse,
    GuardRequest,
    GuardResponse,
    Item,
    JudgeList,
    JudgeRequest,
    JudgeResponse,
    LoadedJudge,
    LoadRequest,
    PolicyList,
    PolicyState,
    SessionRequest,
    SessionState,
    StreamAppend,
    StreamEnd,
    StreamPiece,
    StreamRequest,
    StreamState,
)
from snapjudge.core.later import Batch, BatchRequest, ObservationList, ObservationRequest, ObservationsTaken
from snapjudge.core.policy import Stage
from snapjudge.core.question import OpenQuestion
from snapjudge.errors import EngineBusy, OptionInvalid, ServerUnreachable, SnapjudgeError

T = TypeVar("T")
URL, KEY = "SNAPJUDGE_URL", "SNAPJUDGE_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8321"
WAITS: dict[str, Any] = {"timeout": None, "wait_initial": 0.05, "wait_max": 2.0}  # between tries, where the server does not say how long
_LONGEST_WAIT = 30.0
_SLACK = 2.0  # seconds past a deadline that an answer may be on its way
Question = OpenQuestion | str


@dataclass(frozen=True)
class Terms:
    """How a client calls.

    Args:
        deadline: seconds within which an answer is of use, tries and waits between them included; the server's own where None.
        attempts: tries of one call, the first among them.
    """

    url: str
    key: str
    deadline: float | None
    attempts: int

    @classmethod
    def of(cls, url: str | None, key: str | None, deadline: float | None, attempts: int) -> "Terms":
        """Those given, else those of the environment.

        Raises:
            OptionInvalid.
        """
        where = url or os.environ.get(URL, "") or DEFAULT_URL
        if not where.startswith(("http://", "https://")):
            raise OptionInvalid(f"{where!r} is no server's address", hint=f"such as {DEFAULT_URL}; {URL} in the environment gives it, too", received=where)
        if attempts < 1 or (deadline is not None and deadline <= 0):
            raise OptionInvalid("a client needs at least one attempt, and a deadline above 0 s", hint="leave them out for the defaults")
        return cls(where.rstrip("/"), key if key is not None else os.environ.get(KEY, ""), deadline, attempts)

    @property
    def headers(self) -> dict[str, str]:
        """Sent with every call."""
        return {"authorization": f"Bearer {self.key}"} if self.key else {}


@dataclass(frozen=True)
class Call(Generic[T]):
    """One call.

    Args:
        answer: reads what it is answered by.
        again: whether it may be sent again where it is not known whether it was done.
        until: when its answer is of no more use, on the monotonic clock.
    """

    method: str
    path: str
    answer: Callable[[bytes], T]
    body: BaseModel | None = None
    again: bool = True
    until: float | None = None

    def sent(self, client: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """It as a request, with the time that is left."""
        headers, timeout = {}, httpx.Timeout(60.0, connect=10.0)
        if self.until is not None:
            left = max(0.001, self.until - time.monotonic())
            headers["x-deadline-ms"] = f"{left * 1000:.3f}"
            timeout = httpx.Timeout(left + _SLACK)
        content = None
        if self.body is not None:
            headers["content-type"] = "application/json"
            content = self.body.model_dump_json(exclude_defaults=True).encode()
        return client.build_request(self.method, self.path, content=content, headers=headers, timeout=timeout)

    def worth_another_try(self, error: Exception) -> bool | float:
        """Whether trying again may help, and in how many seconds where the server says so."""
        if isinstance(error, EngineBusy):
            wait = error.retry_after
            if wait is None or wait > _LONGEST_WAIT or (self.until is not None and time.monotonic() + wait >= self.until):
                return False
            return wait
        if isinstance(error, ServerUnreachable):
            return (self.again or not error.begun) and (self.until is None or time.monotonic() < self.until)
        return False

    def read(self, response: httpx.Response) -> T:
        """Its answer.

        Raises:
            The error that the server tells.
        """
        try:
            return self.answer(response.content)
        except ValidationError as error:
            told = f"{response.url} answers in another form: {error.errors()[0]['msg']}"
            raise SnapjudgeError(told, hint="use a client and a server of the same version") from error


def failure(response: httpx.Response) -> SnapjudgeError:
    """The error that a refusal tells; one of the bare status where something else than a snapjudge server has answered."""
    try:
        body = response.json()["error"]
        return SnapjudgeError.from_dict(body)
    except (ValueError, KeyError, TypeError, AttributeError):
        return ServerUnreachable(f"{response.url} answers {response.status_code} {response.reason_phrase}", hint="see that a snapjudge server is there")


def unreachable(url: str, error: httpx.TransportError) -> ServerUnreachable:
    """What a call that got no answer becomes."""
    found = ServerUnreachable(f"{url}: {str(error) or type(error).__name__}", hint=f"see that the server runs and that {URL} is its address")
    found.begun = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    return found


def judging(
    terms: Terms, items: Iterable[Item | Mapping[str, Any]], judges: Sequence[str], questions: Sequence[Question], deadline: float | None
) -> Call[JudgeResponse]:
    """Ask judges, and put questions, about some items."""
    body = JudgeRequest(items=tuple(as_item(one) for one in items), judges=tuple(judges), questions=as_questions(questions))
    return Call("POST", "/v1/judge", JudgeResponse.model_validate_json, body, until=_until(terms, deadline))


def listing() -> Call[JudgeList]:
    """The judges that answer."""
    return Call("GET", "/v1/judges", JudgeList.model_validate_json)


def loading(judge: str, alias: str) -> Call[LoadedJudge]:
    """Load a judge."""
    return Call("POST", "/v1/judges", LoadedJudge.model_validate_json, LoadRequest(judge=judge, alias=alias))


def unloading(judge: str) -> Call[None]:
    """Unload a judge."""
    return Call("DELETE", f"/v1/judges/{quote(judge, safe='')}", _nothing, again=False)


def pointing(alias: str, judge: str) -> Call[None]:
    """Point a name at a judge."""
    return Call("PUT", f"/v1/aliases/{quote(alias, safe='')}", _nothing, AliasRequest(judge=judge))


def opening(terms: Terms, judges: Sequence[str], fields: Mapping[str, Any], source: str) -> Call[SessionState]:
    """Open a session."""
    body = SessionRequest(judges=tuple(judges), inputs=dict(fields), source=source)
    return Call("POST", "/v1/sessions", SessionState.model_validate_json, body, until=_until(terms, None))


def appending(terms: Terms, session: str, messages: Sequence[Mapping[str, Any]], deadline: float | None, *, judge: bool) -> Call[AppendResponse]:
    """Add turns to a session; never sent twice, since the first may have arrived."""
    body = AppendRequest(messages=tuple(dict(one) for one in messages), judge=judge)
    return Call("POST", f"/v1/sessions/{quote(session, safe='')}/append", AppendResponse.model_validate_json, body, again=False, until=_until(terms, deadline))


def closing(session: str) -> Call[None]:
    """Forget a session."""
    return Call("DELETE", f"/v1/sessions/{quote(session, safe='')}", _nothing, again=False)


def guarding(
    terms: Terms, policy: str | Mapping[str, Any], stage: Stage | None, inputs: Mapping[str, Any], source: str, deadline: float | None
) -> Call[GuardResponse]:
    """Let a policy look at one stage; the output's unless said where there is an output, else the input's."""
    named = policy if isinstance(policy, str) else dict(policy)
    body = GuardRequest(policy=named, stage=stage or ("output" if "output" in inputs else "input"), inputs=dict(inputs), source=source)
    return Call("POST", "/v1/guard", GuardResponse.model_validate_json, body, until=_until(terms, deadline))


def opening_stream(terms: Terms, policy: str | Mapping[str, Any], stage: Stage, inputs: Mapping[str, Any], source: str) -> Call[StreamState]:
    """Open a text that is guarded while it is written."""
    named = policy if isinstance(policy, str) else dict(policy)
    body = StreamRequest(policy=named, stage=stage, inputs=dict(inputs), source=source)
    return Call("POST", "/v1/streams", StreamState.model_validate_json, body, until=_until(terms, None))


def appending_text(terms: Terms, stream: str, text: str, *, done: bool) -> Call[StreamState]:
    """Add to a text; never sent twice, since the first may have arrived."""
    body = StreamAppend(text=text, done=done)
    return Call("POST", f"/v1/streams/{quote(stream, safe='')}/append", StreamState.model_validate_json, body, again=False, until=_until(terms, None))


def closing_stream(stream: str) -> Call[None]:
    """Leave a text."""
    return Call("DELETE", f"/v1/streams/{quote(stream, safe='')}", _nothing, again=False)


def events_of(state: StreamState) -> Iterator[StreamPiece | StreamEnd]:
    """What came of an append."""
    if state.text:
        yield StreamPiece(text=state.text)
    if state.end is not None:
        yield state.end


def observing(items: Iterable[Item | Mapping[str, Any]], judges: Sequence[str], questions: Sequence[Question]) -> Call[ObservationsTaken]:
    """Have items judged later; sent twice only where every item has an id that tells the second time."""
    some = tuple(as_item(one) for one in items)
    body = ObservationRequest(items=some, judges=tuple(judges), questions=as_questions(questions))
    return Call("POST", "/v1/observations", ObservationsTaken.model_validate_json, body, again=all(one.id for one in some))


def observed(after: int, limit: int, source: str) -> Call[ObservationList]:
    """What was judged after some place in the record."""
    asked = f"after={after}&limit={limit}&source={quote(source, safe='')}"
    return Call("GET", f"/v1/observations?{asked}", ObservationList.model_validate_json)


def batching(request: BatchRequest) -> Call[Batch]:
    """Make a batch; never sent twice."""
    return Call("POST", "/v1/batches", Batch.model_validate_json, request, again=False)


def batch(number: str, deed: str = "") -> Call[Batch]:
    """How a batch stands, or stop it (`cancel`), or go on with it (`resume`)."""
    path = f"/v1/batches/{quote(number, safe='')}"
    return Call("POST", f"{path}/{deed}", Batch.model_validate_json, again=False) if deed else Call("GET", path, Batch.model_validate_json)


def storing(name: str, content: Any) -> dict[str, Any]:
    """A file as a request of its own, for it may be large."""
    return {"method": "POST", "url": "/v1/files", "params": {"name": name}, "content": content, "timeout": httpx.Timeout(600.0, connect=10.0)}


def results_of(number: str) -> dict[str, Any]:
    """A batch's results as a request of its own."""
    return {"method": "GET", "url": f"/v1/batches/{quote(number, safe='')}/results", "timeout": httpx.Timeout(600.0, connect=10.0)}


def policies() -> Call[PolicyList]:
    """The policies that are loaded."""
    return Call("GET", "/v1/policies", PolicyList.model_validate_json)


def putting(policy: Mapping[str, Any]) -> Call[PolicyState]:
    """Load a policy, or a newer version of one."""
    return Call("PUT", f"/v1/policies/{quote(str(policy.get('name', '')), safe='')}", PolicyState.model_validate_json, Plain(dict(policy)))


def pausing(name: str, deed: str) -> Call[PolicyState]:
    """Pause or resume a policy."""
    return Call("POST", f"/v1/policies/{quote(name, safe='')}/{deed}", PolicyState.model_validate_json)


class Plain(RootModel[dict[str, Any]]):
    """A body that is what it is."""


def as_item(given: Item | Mapping[str, Any]) -> Item:
    """An item; a plain mapping gives its fields."""
    return given if isinstance(given, Item) else Item(inputs=dict(given))


def as_questions(questions: Sequence[Question]) -> tuple[OpenQuestion, ...]:
    """Open questions; a plain text gives its words."""
    return tuple(OpenQuestion(instructions=one) if isinstance(one, str) else one for one in questions)


def _until(terms: Terms, deadline: float | None) -> float | None:
    seconds = terms.deadline if deadline is None else deadline
    return None if seconds is None else time.monotonic() + seconds


def _nothing(_: bytes) -> None:
    """What an answer without a body says."""
