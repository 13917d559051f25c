"""An OpenAI client whose chat completions are guarded: what is asked before it is sent, what is answered before it is given back.

    client = guarded(OpenAI(), input="support", output="support", judge=Client())
    client.chat.completions.create(model="...", messages=[...])

Everything else of the client is its own. An override of the input is answered without asking the model; messages for the model come in as a system message.
Streams are refused: what a policy has not seen yet would be read already.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from snapjudge.client.asynchronous import AsyncClient
from snapjudge.client.guards import Passed, PolicyLike, passed
from snapjudge.client.synchronous import Client
from snapjudge.core.tool_call import arguments_of, call_text
from snapjudge.errors import OptionInvalid


def guarded(client: Any, *, input: PolicyLike | None = None, output: PolicyLike | None = None, judge: Client | AsyncClient | None = None) -> Any:  # noqa: A002
    """An `OpenAI` or `AsyncOpenAI` client with guarded `chat.completions.create`.

    Args:
        input, output: the policies that look at the messages, and at each choice and its tool calls.
        judge: of the same kind as the client; one of SNAPJUDGE_URL and SNAPJUDGE_API_KEY unless said.

    Raises:
        OptionInvalid: no policy, or a judge of the other kind.
    """
    if input is None and output is None:
        raise OptionInvalid("a guard without a policy", hint='guarded(client, input="policy")')
    is_async = type(client).__name__.startswith("Async")
    own = judge or (AsyncClient() if is_async else Client())
    if isinstance(own, AsyncClient) != is_async:
        raise OptionInvalid("an asynchronous client needs an AsyncClient to judge, a plain one a Client", hint="judge=AsyncClient(), or judge=Client()")
    inner = client.chat.completions.create
    if is_async:
        create: Callable[..., Any] = _asynchronous(inner, cast(AsyncClient, own), input, output)
    else:
        create = _synchronous(inner, cast(Client, own), input, output)
    return _Over(client, chat=_Over(client.chat, completions=_Over(client.chat.completions, create=create)))


class _Over:
    """Something of which a few attributes are others; the rest is its own."""

    def __init__(self, inner: Any, **others: Any) -> None:
        self._inner = inner
        vars(self).update(others)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _synchronous(create: Callable[..., Any], judge: Client, before: PolicyLike | None, after: PolicyLike | None) -> Callable[..., Any]:
    def created(*, messages: Sequence[Mapping[str, Any]], **more: Any) -> Any:
        _no_stream(more)
        asked = [dict(one) for one in messages]
        if before is not None:
            found = passed(judge.guard(before, "input", messages=asked))
            if found.instead:
                return _answer(found.text, str(more.get("model", "")))
            asked = _with(asked, found)
        response = create(messages=asked, **more)
        for stage, text, put in _outputs(response) if after is not None else ():
            put(passed(judge.guard(after or "", stage, output=text, **_asked(asked))).text)
        return response

    return created


def _asynchronous(create: Callable[..., Awaitable[Any]], judge: AsyncClient, before: PolicyLike | None, after: PolicyLike | None) -> Callable[..., Any]:
    async def created(*, messages: Sequence[Mapping[str, Any]], **more: Any) -> Any:
        _no_stream(more)
        asked = [dict(one) for one in messages]
        if before is not None:
            found = passed(await judge.guard(before, "input", messages=asked))
            if found.instead:
                return _answer(found.text, str(more.get("model", "")))
            asked = _with(asked, found)
        response = await create(messages=asked, **more)
        for stage, text, put in _outputs(response) if after is not None else ():
            put(passed(await judge.guard(after or "", stage, output=text, **_asked(asked))).text)
        return response

    return created


def _no_stream(more: Mapping[str, Any]) -> None:
    if more.get("stream"):
        raise OptionInvalid(
            "a guarded client gives whole answers", hint="point the OpenAI client at `snapjudge proxy`, which guards streams as they are written"
        )


def _with(messages: list[dict[str, Any]], found: Passed) -> list[dict[str, Any]]:
    """The messages with the last one's text as it came through, and what the policy has to say to the model."""
    last = {**messages[-1], "content": found.text} if isinstance(messages[-1].get("content"), str) else messages[-1]
    return [*messages[:-1], last, *({"role": "system", "content": text} for text in found.steer)]


def _asked(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was asked last, for judges of answers that read it."""
    text = next((one["content"] for one in reversed(messages) if one.get("role") == "user" and isinstance(one.get("content"), str)), None)
    return {"input": text} if text else {}


def _outputs(response: Any) -> list[tuple[Any, str, Callable[[str], None]]]:
    """Each text of a response with its stage, and how another is put in its place; a tool call that is changed keeps its name."""
    found: list[tuple[Any, str, Callable[[str], None]]] = []
    for choice in response.choices:
        message = choice.message
        if isinstance(message.content, str) and message.content:
            found.append(("output", message.content, lambda text, message=message: setattr(message, "content", text)))  # type: ignore[misc]
        for call in message.tool_calls or ():
            function = getattr(call, "function", None)
            if function is not None:
                whole = call_text(function.name, function.arguments)
                found.append(("tool_call", whole, lambda text, function=function, whole=whole: _changed(function, whole, text)))  # type: ignore[misc]
    return found


def _changed(function: Any, before: str, after: str) -> None:
    if after != before:
        function.arguments = arguments_of(function.name, after)


def _answer(text: str, model: str) -> Any:
    """A completion that nobody was asked for."""
    from openai.types.chat import ChatCompletion  # noqa: PLC0415 - whoever wraps a client has it

    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return ChatCompletion.model_validate({"id": "guarded", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]})
