"""The client for code that waits in tasks."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

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


class AsyncClient:
    """A server, as seen from an event loop; may be shared between its tasks.

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
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.terms = Terms.of(url, key, deadline, attempts)
        self._http = httpx.AsyncClient(base_url=self.terms.url, headers=self.terms.headers, transport=transport)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def score(self, judge: str, *, source: str = "", deadline: float | None = None, **inputs: Any) -> Answer:
        """One judge's answer about one set of inputs: `await client.score("toxicity", output="...")`.

        Raises:
            JudgeUnknown, EngineBusy, DeadlineMissed, ServerUnreachable, KeyInvalid and whatever else the server tells.
        """
        response = await self.judge([Item(inputs=inputs, source=source)], [judge], deadline=deadline)
        return response.results[0].answers[0]

    async def judge(self, items: Items, judges: Sequence[str] = (), questions: Sequence[Question] = (), *, deadline: float | None = None) -> JudgeResponse:
        """Answers of some judges, and to open questions, about some items.

        Raises:
            As `score`.
        """
        return await self._called(calls.judging(self.terms, items, judges, questions, deadline))

    async def judge_many(
        self, items: Items, judges: Sequence[str] = (), questions: Sequence[Question] = (), *, batch: int = 16, at_once: int = 4
    ) -> AsyncIterator[ItemAnswers]:
        """The same for any number of items, in their order, some calls at a time; items are taken as they are needed."""
        left = iter(items)
        running: list[asyncio.Task[JudgeResponse]] = []
        try:
            while True:
                while len(running) < at_once and (some := [calls.as_item(one) for one in islice(left, batch)]):
                    running.append(asyncio.create_task(self.judge(some, judges, questions)))
                if not running:
                    return
                for one in (await running.pop(0)).results:
                    yield one
        finally:
            for task in running:
                task.cancel()

    async def guard(
        self, policy: str | Mapping[str, Any], stage: Stage | None = None, *, source: str = "", deadline: float | None = None, **inputs: Any
    ) -> GuardResponse:
        """What a policy, named or given, says to do with one stage: `await client.guard("support", output="...")`.

        Raises:
            PolicyUnknown, PolicyInvalid; as `score`. Judges that fail are the policy's to deal with, and raise nothing.
        """
        return await self._called(calls.guarding(self.terms, policy, stage, inputs, source, deadline))

    async def guard_stream(
        self, policy: str | Mapping[str, Any], chunks: AsyncIterable[str], stage: Stage = "output", *, source: str = "", **inputs: Any
    ) -> AsyncGenerator[StreamPiece | StreamEnd]:
        """A text guarded while it is written: what may go on to the reader, as it is let through, and at last how it ended.

        `chunks` is read no further than to where the text is stopped.

        Raises:
            As `guard`.
        """
        stream = (await self._called(calls.opening_stream(self.terms, policy, stage, inputs, source))).stream
        try:
            async for chunk in chunks:
                state = await self._called(calls.appending_text(self.terms, stream, chunk, done=False))
                for event in calls.events_of(state):
                    yield event
                if state.end is not None:
                    return
            for event in calls.events_of(await self._called(calls.appending_text(self.terms, stream, "", done=True))):
                yield event
        finally:
            await self._called(calls.closing_stream(stream))

    async def observe(self, items: Items, judges: Sequence[str] = (), questions: Sequence[Question] = ()) -> tuple[str, ...]:
        """Have items judged later; their numbers, once they are on the server's disk. With ids of the caller's own the call may be repeated.

        Raises:
            As `score`.
        """
        return (await self._called(calls.observing(items, judges, questions))).observations

    async def observations(self, *, after: int = 0, source: str = "") -> AsyncGenerator[Observation]:
        """What was judged, from some `place` of the record on, as far as there is more."""
        while (found := await self._called(calls.observed(after, 1000, source))).observations:
            for one in found.observations:
                yield one
            after = found.next

    async def store_file(self, path: Path) -> StoredFile:
        """Send a file (.jsonl, .csv, .tsv, .parquet) for batches."""
        with path.open("rb") as file:
            content = _chunks(file)
            return StoredFile.model_validate_json(await self._sent(**calls.storing(path.name, content)))

    async def batch(self, judges: Sequence[str] = (), questions: Sequence[Question] = (), **terms: Any) -> Batch:
        """Judge the records of a file later: `batch(["toxicity"], file=client.store_file(path).file)`; the terms are those of `BatchRequest`.

        Raises:
            As `score`; NotFound.
        """
        return await self._called(calls.batching(BatchRequest(judges=tuple(judges), questions=calls.as_questions(questions), **terms)))

    async def batch_state(self, number: str) -> Batch:
        """How a batch stands."""
        return await self._called(calls.batch(number))

    async def cancel_batch(self, number: str) -> Batch:
        """Stop a batch; what was judged stays."""
        return await self._called(calls.batch(number, "cancel"))

    async def resume_batch(self, number: str) -> Batch:
        """Go on with a batch that was stopped or failed."""
        return await self._called(calls.batch(number, "resume"))

    async def batch_results(self, number: str) -> AsyncGenerator[BatchLine]:
        """What was judged so far, record by record."""
        async with self._http.stream(**calls.results_of(number)) as response:
            if not response.is_success:
                await response.aread()
                raise calls.failure(response)
            async for line in response.aiter_lines():
                yield BatchLine.model_validate_json(line)

    async def policies(self) -> PolicyList:
        """The policies that are loaded."""
        return await self._called(calls.policies())

    async def put_policy(self, policy: Mapping[str, Any]) -> PolicyState:
        """Load a policy, or a newer version of one."""
        return await self._called(calls.putting(policy))

    async def pause_policy(self, name: str) -> PolicyState:
        """Let a policy allow everything until it is resumed."""
        return await self._called(calls.pausing(name, "pause"))

    async def resume_policy(self, name: str) -> PolicyState:
        """Let a paused policy decide again."""
        return await self._called(calls.pausing(name, "resume"))

    async def judges(self) -> JudgeList:
        """The judges that answer."""
        return await self._called(calls.listing())

    async def load(self, judge: str, *, alias: str = "") -> LoadedJudge:
        """Load a judge, by name or by a folder on the server's disk."""
        return await self._called(calls.loading(judge, alias))

    async def unload(self, judge: str) -> None:
        """Unload a judge."""
        await self._called(calls.unloading(judge))

    async def alias(self, name: str, judge: str) -> None:
        """Point a name at a judge."""
        await self._called(calls.pointing(name, judge))

    async def conversation(self, judges: Sequence[str], *, source: str = "", **fields: Any) -> "AsyncConversation":
        """A conversation that is judged as it grows; `fields` stand before its messages, such as context."""
        state = await self._called(calls.opening(self.terms, judges, fields, source))
        return AsyncConversation(self, state.session)

    async def append(self, session: str, messages: Sequence[Mapping[str, Any]], *, judge: bool = True, deadline: float | None = None) -> AppendResponse:
        """Add turns to a session; see `conversation`."""
        return await self._called(calls.appending(self.terms, session, messages, deadline, judge=judge))

    async def close_session(self, session: str) -> None:
        """Forget a session."""
        await self._called(calls.closing(session))

    async def _sent(self, **request: Any) -> bytes:
        """What one request of its own is answered."""
        try:
            response = await self._http.request(**request)
        except httpx.TransportError as error:
            raise calls.unreachable(self.terms.url, error) from error
        if not response.is_success:
            raise calls.failure(response)
        return response.content

    async def _called(self, call: Call[T]) -> T:
        async for attempt in stamina.retry_context(on=call.worth_another_try, attempts=self.terms.attempts, **calls.WAITS):
            with attempt:
                try:
                    response = await self._http.send(call.sent(self._http))
                except httpx.TransportError as error:
                    raise calls.unreachable(self.terms.url, error) from error
                if not response.is_success:
                    raise calls.failure(response)
                return call.read(response)
        raise AssertionError("a retry context ends with an answer or an error")


class AsyncConversation:
    """A conversation on a server, judged as it grows. Made by `AsyncClient.conversation`."""

    def __init__(self, client: AsyncClient, session: str) -> None:
        self._client, self.session = client, session

    async def __aenter__(self) -> "AsyncConversation":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def append(self, *messages: Mapping[str, Any], judge: bool = True, deadline: float | None = None) -> AppendResponse:
        """Add turns and ask about all of it; without `judge` they are only read ahead."""
        return await self._client.append(self.session, messages, judge=judge, deadline=deadline)

    async def close(self) -> None:
        """Let it go."""
        await self._client.close_session(self.session)


async def _chunks(file: BinaryIO) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(file.read, 1 << 20):
        yield chunk
