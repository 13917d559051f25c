"""Guards around what people have already: a function, an OpenAI client, an ASGI application. Each asks a server what its policy says, and does it.

    @guard(input="support", output="support")
    def answer(question: str) -> str: ...

Blocked and escalated texts raise `Blocked`, which carries the policy's answer; redacted and overridden ones are replaced.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast, overload

from snapjudge.client.asynchronous import AsyncClient
from snapjudge.client.synchronous import Client
from snapjudge.core.api import GuardResponse
from snapjudge.core.policy_terms import STOPPING
from snapjudge.errors import Blocked, OptionInvalid

P = ParamSpec("P")
T = TypeVar("T")
PolicyLike = str | Mapping[str, Any]


@dataclass(frozen=True)
class Passed:
    """A text that may go on: as it was, or changed; `instead` where the policy answers in the place of what was asked."""

    text: str
    instead: bool = False
    steer: tuple[str, ...] = ()


def passed(found: GuardResponse) -> Passed:
    """What a policy's answer lets through.

    Raises:
        Blocked: nothing.
    """
    if found.action in STOPPING or found.text is None:
        names = ", ".join(one.name for one in found.rulesets if one.taken)
        told = f"escalated to {found.escalate_to}" if found.action == "escalate" else found.message or f"{found.policy} blocks it: {names or found.failed}"
        raise Blocked(told, hint=f"policy {found.policy}, stage {found.stage}, rulesets {names or 'none'}", response=found)
    return Passed(found.text, found.action == "override", found.steer)


class guard:  # noqa: N801 - a decorator
    """Guard a function that takes and gives a text, plain or asynchronous.

    Args:
        input: the policy (a name, or all of it) that looks at the argument; an override of it is returned instead of a call.
        output: the policy that looks at what is returned, with the argument beside it.
        argument: the argument's name; the first that is given as a text unless said.
        client: a `Client`, or for coroutines an `AsyncClient`; one of SNAPJUDGE_URL and SNAPJUDGE_API_KEY unless said.
        steer: the argument that gets the policy's messages for the model, as a tuple of texts, where the function has one.
        on_block: called with the `Blocked` error instead of raising it; what it gives is returned.
    """

    def __init__(
        self,
        *,
        input: PolicyLike | None = None,  # noqa: A002 - the stage's name
        output: PolicyLike | None = None,
        argument: str | None = None,
        client: Client | AsyncClient | None = None,
        steer: str = "steer",
        on_block: Callable[[Blocked], Any] | None = None,
    ) -> None:
        if input is None and output is None:
            raise OptionInvalid("a guard without a policy", hint='@guard(input="policy") or @guard(output="policy")')
        self._input, self._output, self._argument, self._client = input, output, argument, client
        self._steer, self._on_block = steer, on_block

    @overload
    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]: ...
    @overload
    def __call__(self, function: Callable[P, T]) -> Callable[P, T]: ...
    def __call__(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """The function, guarded."""
        signature = inspect.signature(function)
        if self._argument is not None and self._argument not in signature.parameters:
            raise OptionInvalid(f"{function.__name__} has no argument {self._argument!r}", hint=f"one of {', '.join(signature.parameters)}")
        is_async = inspect.iscoroutinefunction(function)
        if self._client is not None and isinstance(self._client, AsyncClient) != is_async:
            kinds = ("AsyncClient", "Client") if is_async else ("Client", "AsyncClient")
            raise OptionInvalid(f"{function.__name__} needs a {kinds[0]}; found a {kinds[1]}", hint="coroutines wait in tasks, functions in threads")
        return self._asynchronous(function, signature) if is_async else self._synchronous(function, signature)

    def _synchronous(self, function: Callable[P, Any], signature: inspect.Signature) -> Callable[P, Any]:
        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
            client = cast(Client, self._client or _shared(Client))
            call = _Call(self, signature, signature.bind(*args, **kwargs))
            try:
                if self._input is not None and call.take(passed(client.guard(self._input, "input", **call.asked))):
                    return call.text
                result = function(*call.bound.args, **call.bound.kwargs)
                if self._output is None or not isinstance(result, str):
                    return result
                return passed(client.guard(self._output, "output", output=result, **call.asked)).text
            except Blocked as error:
                return self._blocked(error)

        return guarded

    def _asynchronous(self, function: Callable[P, Any], signature: inspect.Signature) -> Callable[P, Any]:
        @functools.wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
            client = cast(AsyncClient, self._client or _shared(AsyncClient))
            call = _Call(self, signature, signature.bind(*args, **kwargs))
            try:
                if self._input is not None and call.take(passed(await client.guard(self._input, "input", **call.asked))):
                    return call.text
                result = await function(*call.bound.args, **call.bound.kwargs)
                if self._output is None or not isinstance(result, str):
                    return result
                return passed(await client.guard(self._output, "output", output=result, **call.asked)).text
            except Blocked as error:
                return self._blocked(error)

        return guarded

    def _blocked(self, error: Blocked) -> Any:
        if self._on_block is None:
            raise error
        return self._on_block(error)

    @property
    def argument(self) -> str | None:
        """The argument that is looked at, where it was said."""
        return self._argument

    @property
    def steer(self) -> str:
        """The argument that gets the messages for the model."""
        return self._steer


class _Call:
    """One call of a guarded function: its arguments, and the text among them."""

    def __init__(self, terms: guard, signature: inspect.Signature, bound: inspect.BoundArguments) -> None:
        self.bound, self._terms, self._signature = bound, terms, signature
        self._name = terms.argument or next((name for name, value in bound.arguments.items() if isinstance(value, str)), None)
        self.text = str(bound.arguments[self._name]) if self._name in bound.arguments else ""

    @property
    def asked(self) -> dict[str, Any]:
        """The field that the text is, where there is one."""
        return {"input": self.text} if self.text else {}

    def take(self, found: Passed) -> bool:
        """Put what came through in the text's place; whether it is an answer already."""
        self.text = found.text
        if self._name is not None:
            self.bound.arguments[self._name] = found.text
        if found.steer and self._terms.steer in self._signature.parameters:
            self.bound.arguments[self._terms.steer] = found.steer
        return found.instead


@functools.cache
def _shared(kind: type[T]) -> T:
    """The client of the environment, one for the process."""
    return kind()
