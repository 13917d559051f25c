"""What foreign requests are about: a text, a conversation or fields, and the fields that each judge is given of it. Knows no wire."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from snapjudge.core.metric import INPUT_NAMES, Metric
from snapjudge.errors import InputInvalid

_BEFORE = ("system", "developer")


@dataclass(frozen=True)
class Material:
    """One thing to judge.

    Args:
        text: a text without a name: each judge gets it in its output field, or in the last that it reads.
        fields: what has a name.
    """

    text: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)

    def inputs_of(self, metric: Metric | None) -> Mapping[str, Any]:
        """The fields that a metric's judge, or open questions, are given."""
        if self.text is not None:
            return {"input" if metric is None else metric.place_of_text(): self.text}
        if metric is None and "messages" in self.fields:
            return {"messages": self.fields["messages"]}
        return self.fields


def of_json(value: Any) -> Material:
    """Anything: a text, a list of messages, an object of standard fields; other JSON is read as the text it is."""
    if isinstance(value, str):
        return Material(value)
    if isinstance(value, Mapping) and value and set(value) <= set(INPUT_NAMES):
        return Material(fields=dict(value))
    if isinstance(value, list) and value and all(isinstance(one, Mapping) and "role" in one for one in value):
        return of_messages(value)
    return Material(json.dumps(value, ensure_ascii=False, separators=(", ", ": ")))


def of_messages(messages: Sequence[Mapping[str, Any]]) -> Material:
    """A conversation: for judges that read messages all of it; for the others its last answer, what was asked last before it, and what stands before both.

    One user's message alone is a text.
    """
    turns = [_turn(one) for one in messages]
    if len(turns) == 1 and turns[0]["role"] == "user" and isinstance(turns[0].get("content"), str):
        return Material(turns[0]["content"])
    answer = len(turns) - 1 if turns and turns[-1]["role"] == "assistant" else None
    asked = next((place for place in range(len(turns) - 1, -1, -1) if turns[place]["role"] == "user"), None)
    context = "\n".join(text for one in turns if one["role"] in (*_BEFORE, "tool") and (text := _text(one)))
    told = {"output": "" if answer is None else _text(turns[answer]), "input": "" if asked is None else _text(turns[asked]), "context": context}
    return Material(fields={"messages": turns, **{name: value for name, value in told.items() if value}})


def text_of_parts(content: Any, *, kinds: Sequence[str] = ("text", "input_text", "output_text")) -> str:
    """A text, or the texts of a list of parts; JSON parts as they are written.

    Raises:
        InputInvalid: an image, or something else that is no text.
    """
    if content is None or isinstance(content, str):
        return content or ""
    texts = []
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind in kinds and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            texts.append(part["refusal"])
        elif isinstance(kind, str) and "image" in kind:
            raise InputInvalid("an image", hint="send texts only; images are not judged")
        else:
            texts.append(json.dumps(part, ensure_ascii=False))
    return "\n".join(texts)


def _turn(message: Mapping[str, Any]) -> dict[str, Any]:
    role = str(message.get("role") or "user")
    turn: dict[str, Any] = {"role": role, "content": text_of_parts(message.get("content"))}
    if message.get("tool_calls"):
        turn["tool_calls"] = message["tool_calls"]
        turn["content"] = turn["content"] or None
    return turn


def _text(turn: Mapping[str, Any]) -> str:
    return str(turn.get("content") or "")
