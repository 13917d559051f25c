"""The client for code that waits in threads."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
import stamina

from snapjudge.client import calls
from snapjudge.client.calls import Call, Question, Terms
from snapjudge.core.api import (
    Answer,
    AppendResponse,
    GuardResponse,
    Item,
    ItemAnswers,
    JudgeList,
    JudgeResponse,
    LoadedJudge,
    PolicyList,
    PolicyState,
    StreamEnd,
    StreamPiece,
)
from snapjudge.core.later import Batch, BatchLine, BatchRequest, Observation, StoredFile
from snapjudge.core.policy import Stage

T = TypeVar("T")
Items = Iterable[Item | Mapping[str, Any]]


class Client:
    """A server, as seen from a thread; may be shared between threads.

    Args:
        url: where it is; the environment variable SNAPJUDGE_URL, else http://127.0.0.1:8321, unless said.
        key: the API key; SNAPJUDGE_API_KEY unless said.
        deadline: seconds within which answers are of use, tries and waits between them included; the server's own where None.
        attempts: tries of one call. Calls that the server was too busy for, and those it did not get, are sent again.
        transport: httpx's, where it is another than the network.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        deadline: float | None = None,
        attempts: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.terms = Terms.of(url, key, deadline, attempts)
        self._http = httpx.Client(base_url=self.terms.url, headers=self.terms.headers, transport=transport)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def score(self, judge: str, *, source: str = "", deadline: float | None = None, **inputs: Any) -> Answer:
        """One judge's answer about one set of inputs: `client.score("toxicity", output="...")`.

        Raises:
            JudgeUnknown, EngineBusy, DeadlineMissed, ServerUnreachable, KeyInvalid and whatever else the server tells.
        """
        response = self.judge([Item(inputs=inputs, source=source)], [judge], deadline=deadline)
        return response.results[0].answers[0]

    def judge(self, items: Items, judges: Sequence[str] = (), questions: Sequence[Question] = (), *, deadline: float | None = None) -> JudgeResponse:
        """Answers of some judges, and to open questions, about some items.

        Raises:
            As `score`.
        """
        return self._called(calls.judging(self.terms, items, judges, questions, deadline))

    def judge_many(
        self, items: Items, judges: Sequence[str] = (), questions: Sequence[Question] = (), *, batch: int = 16, at_once: int = 4
    ) -> Iterator[ItemAnswers]:
        """The same for any number of items, in their order, some calls at a time; items are taken as they are needed."""
        left = iter(items)
        with ThreadPoolExecutor(at_once, "snapjudge-client") as pool:
            running: list[Future[JudgeResponse]] = []
            try:
                while True:
                    while len(running) < 2 * at_once and (some := [calls.as_item(one) for one in islice(left, batch)]):
                        running.append(pool.submit(self.judge, some, judges, questions))
                    if not running:
                        return
                    yield from running.pop(0).result().results
            finally:
                for one in running:
                    one.cancel()

    def guard(
        self, policy: str | Mapping[str, Any], stage: Stage | None = None, *, source: str = "", deadline: float | None = None, **inputs: Any
    ) -> GuardResponse:
        """What a policy, named or given, says to do with one stage: `client.guard("support", output="...")`.

        Raises:
            PolicyUnknown, PolicyInvalid; as `score`. Judges that fail are the policy's to deal with, and raise nothing.
        """
        return self._called(calls.guarding(self.terms, policy, stage, inputs, source, deadline))

    def guard_stream(
        self, policy: str | Mapping[str, Any], chunks: Iterable[str], stage: Stage = "output", *, source: str = "", **inputs: Any
    ) -> Iterator[StreamPiece | StreamEnd]:
        """A text guarded while it is written: what may go on to the reader, as it is let through, and at last how it ended.

        `chunks` is read no further than to where the text is stopped.

        Raises:
            As `guard`.
        """
        stream = self._called(calls.opening_stream(self.terms, policy, stage, inputs, source)).stream
        try:
            for chunk in chunks:
                state = self._called(calls.appending_text(self.terms, stream, chunk, done=False))
                yield from calls.events_of(state)
                if state.end is not None:
                    return
            yield from calls.events_of(self._called(calls.appending_text(self.terms, stream, "", done=True)))
        finally:
            self._called(calls.closing_stream(stream))

    def observe(self, items: Items, judges: Sequence[str] = (), questions: Sequence[Question] = ()) -> tuple[str, ...]:
        """Have items judged later; their numbers, once they are on the server's disk. With ids of the caller's own the call may be repeated.

        Raises:
            As `score`.
        """
        return (self._called(calls.observing(items, judges, questions))).observations

    def observations(self, *, after: int = 0, source: str = "") -> Iterator[Observation]:
        """What was judged, from some `place` of the record on, as far as there is more."""
        while (found := self._called(calls.observed(after, 1000, source))).observations:
            yield from found.observations
            after = found.next

    def store_file(self, path: Path) -> StoredFile:
        """Send a file (.jsonl, .csv, .tsv, .parquet) for batches."""
        with path.open("rb") as file:
            content = file
            return StoredFile.model_validate_json(self._sent(**calls.storing(path.name, content)))

    def batch(self, judges: Sequence[str] = (), questions: Sequence[Question] = (), **terms: Any) -> Batch:
        """Judge the records of a file later: `batch(["toxicity"], file=client.store_file(path).file)`; the terms are those of `BatchRequest`.

        Raises:
            As `score`; NotFound.
        """
        return self._called(calls.batching(BatchRequest(judges=tuple(judges), questions=calls.as_questions(questions), **terms)))

    def batch_state(self, number: str) -> Batch:
        """How a batch stands."""
        return self._called(calls.batch(number))

    def cancel_batch(self, number: str) -> Batch:
        """Stop a batch; what was judged stays."""
        return self._called(calls.batch(number, "cancel"))

    def resume_batch(self, number: str) -> Batch:
        """Go on with a batch that was stopped or failed."""
        return self._called(calls.batch(number, "resume"))

    def batch_results(self, number: str) -> Iterator[BatchLine]:
        """What was judged so far, record by record."""
        with self._http.stream(**calls.results_of(number)) as response:
            if not response.is_success:
                response.read()
                raise calls.failure(response)
            for line in response.iter_lines():
                yield BatchLine.model_validate_json(line)

    def policies(self) -> PolicyList:
        """The policies that are loaded."""
        return self._called(calls.policies())

    def put_policy(self, policy: Mapping[str, Any]) -> PolicyState:
        """Load a policy, or a newer version of one."""
        return self._called(calls.putting(policy))

    def pause_policy(self, name: str) -> PolicyState:
        """Let a policy allow everything until it is resumed."""
        return self._called(calls.pausing(name, "pause"))

    def resume_policy(self, name: str) -> PolicyState:
        """Let a paused policy decide again."""
        return self._called(calls.pausing(name, "resume"))

    def judges(self) -> JudgeList:
        """The judges that answer."""
        return self._called(calls.listing())

    def load(self, judge: str, *, alias: str = "") -> LoadedJudge:
        """Load a judge, by name or by a folder on the server's disk."""
        return self._called(calls.loading(judge, alias))

    def unload(self, judge: str) -> None:
        """Unload a judge."""
        self._called(calls.unloading(judge))

    def alias(self, name: str, judge: str) -> None:
        """Point a name at a judge."""
        self._called(calls.pointing(name, judge))

    def conversation(self, judges: Sequence[str], *, source: str = "", **fields: Any) -> "Conversation":
        """A conversation that is judged as it grows; `fields` stand before its messages, such as context."""
        state = self._called(calls.opening(self.terms, judges, fields, source))
        return Conversation(self, state.session)

    def append(self, session: str, messages: Sequence[Mapping[str, Any]], *, judge: bool = True, deadline: float | None = None) -> AppendResponse:
        """Add turns to a session; see `conversation`."""
        return self._called(calls.appending(self.terms, session, messages, deadline, judge=judge))

    def close_session(self, session: str) -> None:
        """Forget a session."""
        self._called(calls.closing(session))

    def _sent(self, **request: Any) -> bytes:
        """What one request of its own is answered."""
        try:
            response = self._http.request(**request)
        except httpx.TransportError as error:
            raise calls.unreachable(self.terms.url, error) from error
        if not response.is_success:
            raise calls.failure(response)
        return response.content

    def _called(self, call: Call[T]) -> T:
        for attempt in stamina.retry_context(on=call.worth_another_try, attempts=self.terms.attempts, **calls.WAITS):
            with attempt:
                try:
                    response = self._http.send(call.sent(self._http))
                except httpx.TransportError as error:
                    raise calls.unreachable(self.terms.url, error) from error
                if not response.is_success:
                    raise calls.failure(response)
                return call.read(response)
        raise AssertionError("a retry context ends with an answer or an error")


class Conversation:
    """A conversation on a server, judged as it grows. Made by `Client.conversation`."""

    def __init__(self, client: Client, session: str) -> None:
        self._client, self.session = client, session

    def __enter__(self) -> "Conversation":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def append(self, *messages: Mapping[str, Any], judge: bool = True, deadline: float | None = None) -> AppendResponse:
        """Add turns and ask about all of it; without `judge` they are only read ahead."""
        return self._client.append(self.session, messages, judge=judge, deadline=deadline)

    def close(self) -> None:
        """Let it go."""
        self._client.close_session(self.session)
