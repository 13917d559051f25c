"""A chat completion's parts and the stages that look at them: what is asked, what tools gave, what is answered, what is called. Knows nothing of HTTP."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snapjudge.core.api import GuardResponse
from snapjudge.core.policy import Policy, Stage
from snapjudge.core.policy_terms import STOPPING, STRENGTH
from snapjudge.core.tool_call import arguments_of, call_text
from snapjudge.guard.guarding import Guarded, guard
from snapjudge.guard.routing import Elsewhere
from snapjudge.guard.streaming import StreamGuard
from snapjudge.live.judges import LiveJudges
from snapjudge.serve.wires.material import of_messages, text_of_parts

SPOKEN = ("content", "refusal", "reasoning_content", "reasoning")  # of a message: what the reader sees, and is judged; what is not known is not given on
BLOCKED = "This was blocked by a policy."


@dataclass
class Exchange:
    """One request to a chat endpoint and its answer, looked at by one policy.

    Args:
        elsewhere: whom the policy's routes may lead to.
        note: is told of every stage that was looked at, and what was judged there.
        messages: what the model is sent.
        asked: what judges of answers read beside them.
        done: what the stages came to.
    """

    judges: LiveJudges
    policy: Policy
    request_id: str
    elsewhere: Elsewhere
    note: Callable[[Guarded, Mapping[str, Any]], None]
    messages: list[dict[str, Any]]
    asked: dict[str, Any] = field(default_factory=dict)
    done: list[GuardResponse] = field(default_factory=list)

    async def before(self) -> GuardResponse | None:
        """Look at what is asked and at what tools gave, and change `messages` as the policy says; the stage that answers instead of the model, if one does."""
        self.asked = _fields(self.messages)
        steer: list[str] = []
        for place in _retrieved(self.messages):
            text = text_of_parts(self.messages[place].get("content"))
            found = await self._look("retrieval", {**self.asked, "context": text})
            steer += found.steer
            if found.action == "escalate":
                return found
            if found.text != text:
                self.messages[place] = {**self.messages[place], "content": found.message or BLOCKED if found.text is None else found.text}
        users = [place for place, one in enumerate(self.messages) if one.get("role") == "user"]
        if users:
            place = users[-1]
            text = text_of_parts(self.messages[place].get("content"))
            found = await self._look("input", {**self.asked, "input": text})
            steer += found.steer
            if found.action in (*STOPPING, "override") or found.text is None:
                return found
            if found.text != text:
                self.messages[place] = {**self.messages[place], "content": found.text}
        self.messages += [{"role": "system", "content": one} for one in steer]
        self.asked = _fields(self.messages)
        return None

    async def after(self, choice: dict[str, Any]) -> None:
        """Look at a whole choice and change it as the policy says."""
        message = {name: value for name, value in (choice.get("message") or {}).items() if name in (*SPOKEN, "role", "tool_calls", "function_call")}
        choice["message"] = message
        for name in SPOKEN:
            text = message.get(name)
            if not isinstance(text, str) or not text:
                continue
            found = await self._look("output", {**self.asked, "output": text})
            if found.action in STOPPING or found.text is None:
                _cut_off(choice, found)
                return
            if found.text != text:
                message[name], choice["logprobs"] = found.text, None
        for function in functions_of(message):
            changed = await self.call(function)
            if changed is not None:
                _cut_off(choice, changed)
                return

    async def call(self, function: dict[str, Any]) -> GuardResponse | None:
        """Look at a tool call and change its arguments as the policy says; the stage that stops it, if one does."""
        name, arguments = str(function.get("name") or ""), str(function.get("arguments") or "")
        text = call_text(name, arguments)
        found = await self._look("tool_call", {**self.asked, "output": text})
        if found.action in STOPPING or found.text is None:
            return found
        if found.text != text:
            function["arguments"] = arguments_of(name, found.text)
        return None

    def stream(self) -> StreamGuard:
        """A guard of one text of the answer while it is written."""
        return StreamGuard(self.judges, self.policy, "output", self.asked, request_id=self.request_id, elsewhere=self.elsewhere)

    @property
    def told(self) -> dict[str, Any]:
        """What callers are told of the guard, under `snapjudge`."""
        return {
            "request_id": self.request_id,
            "policy": self.policy.signature,
            "action": max((one.action for one in self.done), key=STRENGTH.index, default="allow"),
            "stages": [{"stage": one.stage, "action": one.action, "reasons": [reason.model_dump(mode="json") for reason in one.reasons]} for one in self.done],
        }

    def noted(self, found: Guarded, inputs: Mapping[str, Any]) -> None:
        """Keep what a stage came to."""
        if found.response.stage in self.policy.stages:
            self.done.append(found.response)
            self.note(found, inputs)

    async def _look(self, stage: Stage, inputs: Mapping[str, Any]) -> GuardResponse:
        found = await guard(self.judges, self.policy, stage, inputs, request_id=self.request_id, elsewhere=self.elsewhere)
        self.noted(found, inputs)
        return found.response


def functions_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The functions that a message calls; the older form, too."""
    found = [one.get("function") or one.get("custom") for one in message.get("tool_calls") or () if isinstance(one, dict)]
    return [one for one in [*found, message.get("function_call")] if isinstance(one, dict)]


def instead_of(found: GuardResponse) -> tuple[str, str]:
    """What a stopped answer says, and why it ended, in the words of the protocol."""
    if found.action == "override":
        return found.text or "", "stop"
    return found.message or BLOCKED, "content_filter"


def _cut_off(choice: dict[str, Any], found: GuardResponse) -> None:
    text, reason = instead_of(found)
    choice.update(message={"role": "assistant", "content": text, "refusal": None}, finish_reason=reason, logprobs=None)


def _fields(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What judges read of a conversation."""
    found = of_messages(messages)
    return {"input": found.text, "messages": [dict(one) for one in messages]} if found.text is not None else dict(found.fields)


def _retrieved(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """The places of what tools gave since the model was last asked."""
    places: list[int] = []
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].get("role") not in ("tool", "function"):
            break
        places.insert(0, place)
    return places
