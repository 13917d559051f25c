"""Asking endpoints many questions at once: bounded, retried, paid for, remembered. Every question gets an answer or the kind of its failure.

A failure is counted, never guessed around. What cannot get better (a wrong key, an unknown model) ends the run at once, and so does an endpoint that is
down; what was answered is remembered, so that the same run goes on. Knows nothing of what the questions are about.
"""

import asyncio
import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import openai
import stamina

from snapjudge.core.progress import Progress
from snapjudge.errors import BudgetSpent, EndpointFailed, Interrupted, SnapjudgeError
from snapjudge.llm.endpoints import CHARACTERS_PER_TOKEN, Endpoint, Price
from snapjudge.llm.memory import Memory

Failure = Literal["rate_limited", "timeout", "unreachable", "server_error", "refused", "malformed", "cut", "rejected", "over_budget"]
Message = dict[str, str]
_DOWN_AFTER = 5  # questions in a row that did not reach the endpoint
_LONGEST_WAIT = 60.0
_HOPELESS = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)
logging.getLogger("httpx").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Ask:
    """One question to one endpoint; `repeat` tells the same question asked again from the first."""

    endpoint: Endpoint
    messages: tuple[Message, ...]
    repeat: int = 0

    @property
    def key(self) -> str:
        """What the answer depends on, as a digest."""
        own = self.endpoint
        parts = [own.base_url, own.model, own.heat, own.max_tokens, own.extra, self.repeat, list(self.messages)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode(errors="replace")).hexdigest()

    @property
    def expected_cost(self) -> float:
        """Dollars, guessed from the number of characters and half of the longest answer."""
        asked = sum(len(message["content"]) + 12 for message in self.messages) / CHARACTERS_PER_TOKEN
        return self.endpoint.price.of(round(asked), self.endpoint.max_tokens // 2)


@dataclass(frozen=True)
class Answer:
    """What came back: a text, or why there is none; what it cost in dollars, and whether it was remembered."""

    text: str | None
    failure: Failure | None = None
    cost: float = 0.0
    remembered: bool = False


@dataclass
class Bill:
    """What a run has cost and how its questions ended, by endpoint."""

    spent: float = 0.0
    ended: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def note(self, ask: Ask, answer: Answer) -> None:
        """Count one question."""
        self.spent += answer.cost
        self.ended[ask.endpoint.name][answer.failure or ("remembered" if answer.remembered else "answered")] += 1


def check_budget(endpoints: Sequence[Endpoint], max_cost: float | None, expected: float) -> None:
    """Refuse endpoints with a price where no budget is set.

    Raises:
        BudgetSpent.
    """
    if max_cost is None and any(endpoint.price != Price() for endpoint in endpoints):
        raise BudgetSpent(f"this may cost about ${expected:.2f}, and no budget is set", hint="pass --max-cost DOLLARS, or --dry-run to see the plan")


def ask_all(
    asks: Sequence[Ask], memory: Memory, bill: Bill, progress: Progress, *, stage: str, max_cost: float | None = None, stop: Callable[[], bool] = lambda: False
) -> list[Answer]:
    """Answers in the order of the questions.

    Args:
        max_cost: dollars; when the next question could go past it, it and all further ones fail as `over_budget`. Remembered answers cost nothing.

    Raises:
        EndpointFailed: wrong key, unknown model, or an endpoint that is down.
        Interrupted.
    """
    progress.start(stage, len(asks))
    return asyncio.run(_Run(memory, bill, progress, max_cost, stop).all(asks))


class _Run:
    def __init__(self, memory: Memory, bill: Bill, progress: Progress, max_cost: float | None, stop: Callable[[], bool]) -> None:
        self.memory, self.bill, self.progress, self.max_cost, self.stop = memory, bill, progress, max_cost, stop
        self.pending = 0.0  # dollars that questions on their way may cost
        self.unreached: Counter[str] = Counter()
        self.told: dict[str, str] = defaultdict(str)  # what an endpoint said when it rejected a request

    async def all(self, asks: Sequence[Ask]) -> list[Answer]:
        endpoints = {ask.endpoint.name: ask.endpoint for ask in asks}
        clients = {name: client_of(endpoint) for name, endpoint in endpoints.items()}
        queues: dict[str, list[int]] = defaultdict(list)
        for place, ask in enumerate(asks):
            queues[ask.endpoint.name].append(place)
        answers: list[Answer | None] = [None] * len(asks)

        async def work(name: str, places: list[int]) -> None:
            while places:
                place = places.pop(0)
                answer = await self._answer(asks[place], clients[name])
                answers[place] = answer
                self.bill.note(asks[place], answer)
                self.progress.advance(1, f"${self.bill.spent:.4f}" if self.bill.spent else "")

        try:
            async with asyncio.TaskGroup() as group:
                for name, places in queues.items():
                    for _ in range(min(endpoints[name].concurrency, len(places))):
                        group.create_task(work(name, places))
        except* SnapjudgeError as errors:
            raise errors.exceptions[0] from None
        finally:
            for client in clients.values():
                await client.close()
        assert all(answer is not None for answer in answers)
        return [answer for answer in answers if answer is not None]

    async def _answer(self, ask: Ask, client: openai.AsyncOpenAI) -> Answer:
        known = self.memory.get(ask.key)
        if known is not None:
            return Answer(known["text"], known["failure"], remembered=True)
        if self.stop():
            raise Interrupted("stopped", hint="the same command goes on; what was answered is remembered")
        if self.max_cost is not None and self.bill.spent + self.pending + ask.expected_cost > self.max_cost:
            return Answer(None, "over_budget")
        self.pending += ask.expected_cost
        try:
            answer = await self._asked(ask, client)
        finally:
            self.pending -= ask.expected_cost
        self._check_reached(ask.endpoint, answer)
        if answer.failure in (None, "refused", "malformed", "cut"):  # asking again would give the same
            self.memory.put(ask.key, {"text": answer.text, "failure": answer.failure, "cost": answer.cost})
        return answer

    def _check_reached(self, endpoint: Endpoint, answer: Answer) -> None:
        self.unreached[endpoint.name] = self.unreached[endpoint.name] + 1 if answer.failure in ("unreachable", "timeout", "rejected") else 0
        if self.unreached[endpoint.name] >= _DOWN_AFTER:
            raise EndpointFailed(
                f"endpoint {endpoint.name} ({endpoint.base_url}) does not answer: {_DOWN_AFTER} questions in a row ended as {answer.failure}"
                + (f" ({self.told[endpoint.name]})" if self.told[endpoint.name] else ""),
                hint="see that it runs and takes such requests; the same command then goes on, what was answered is remembered",
            )

    async def _asked(self, ask: Ask, client: openai.AsyncOpenAI) -> Answer:
        answer, self.told[ask.endpoint.name] = await ask_once(ask, client)
        return answer


async def ask_once(ask: Ask, client: openai.AsyncOpenAI) -> tuple[Answer, str]:
    """The answer to one question, tried as often as its endpoint allows, and what the endpoint said where it refused.

    Raises:
        EndpointFailed: every question would fail like this.
    """
    own = ask.endpoint
    try:
        async for attempt in stamina.retry_context(on=_worth_another_try, attempts=own.attempts, timeout=None, wait_initial=0.5, wait_max=_LONGEST_WAIT):
            with attempt:
                body: dict[str, Any] = {"temperature": own.heat, "max_tokens": own.max_tokens, **own.extra}
                reply = await client.post("/chat/completions", body={"model": own.model, "messages": list(ask.messages), **body}, cast_to=object)
                return _read(reply, ask), ""
    except openai.OpenAIError as error:
        told = _said(error) if isinstance(error, openai.APIStatusError) else ""
        return Answer(None, _failure(error, own)), told
    except ValueError:  # a body that is no JSON
        return Answer(None, "malformed"), ""
    raise AssertionError("a retry context ends with an answer or an error")


def client_of(endpoint: Endpoint) -> openai.AsyncOpenAI:
    """A client of an endpoint; its retries are ours.

    Raises:
        EndpointInvalid: its key is not set.
    """
    return openai.AsyncOpenAI(api_key=endpoint.key(), base_url=endpoint.base_url, timeout=endpoint.timeout, max_retries=0)


_FAILURES: tuple[tuple[type[Exception], Failure], ...] = (  # the first that fits
    (openai.RateLimitError, "rate_limited"),
    (openai.APITimeoutError, "timeout"),
    (openai.APIConnectionError, "unreachable"),
    (openai.InternalServerError, "server_error"),
)


def _failure(error: openai.OpenAIError, endpoint: Endpoint) -> Failure:
    """The kind of a failure that one question may have.

    Raises:
        EndpointFailed: every question would fail like this.
    """
    for kind, name in _FAILURES:
        if isinstance(error, kind):
            return name
    if not isinstance(error, openai.APIStatusError):
        return "malformed"
    told = _said(error)
    if isinstance(error, _HOPELESS):
        raise EndpointFailed(f"endpoint {endpoint.name} does not take the request: {told}", hint="check base_url, model and key_env") from error
    filtered = isinstance(error, openai.BadRequestError) and "content" in told.lower() and ("filter" in told.lower() or "policy" in told.lower())
    return "refused" if filtered else "rejected"  # such as a text longer than the model reads


def _worth_another_try(error: Exception) -> bool | float:
    """Whether asking again may help, and how long to wait where the endpoint says so."""
    if isinstance(error, openai.RateLimitError | openai.InternalServerError):
        try:
            return min(float(error.response.headers.get("retry-after", "")), _LONGEST_WAIT)
        except ValueError:
            return True
    return isinstance(error, openai.APIConnectionError)  # time-outs are among them


def _said(error: openai.APIStatusError) -> str:
    return f"{error.status_code} {error.message}"[:200]


def _read(reply: object, ask: Ask) -> Answer:
    """A chat completion, read strictly: a server may send anything."""
    if not isinstance(reply, dict):
        return Answer(None, "malformed", ask.expected_cost)
    usage = reply.get("usage")
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else [None, None]
    told = all(isinstance(count, int) and count >= 0 for count in counts)
    cost = ask.endpoint.price.of(*counts) if told else ask.expected_cost
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(message, dict):
        return Answer(None, "malformed", cost)
    if message.get("refusal") or first.get("finish_reason") == "content_filter":
        return Answer(None, "refused", cost)
    if first.get("finish_reason") == "length":
        return Answer(None, "cut", cost)
    text = message.get("content")
    return Answer(text, None, cost) if isinstance(text, str) and text.strip() else Answer(None, "malformed", cost)
