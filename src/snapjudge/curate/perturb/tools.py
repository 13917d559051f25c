"""Corruptions of a right tool call: another tool, a wrong or missing argument, no call at all. Knows calls as JSON."""

import json
import random
from collections.abc import Callable
from typing import Any

Call = dict[str, Any]
ToolCorruption = Callable[[list[Call], list[Any], random.Random], list[Call] | None]


def read_calls(output: str) -> list[Call] | None:
    """The calls of an answer: one JSON object or a list of them, each with a name and its arguments (also as JSON text)."""
    try:
        data = json.loads(output)
    except ValueError:
        return None
    calls = data if isinstance(data, list) else [data]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return None
    return calls


def tool_names(tools: object) -> list[Any]:
    """The tools on offer, from a list or its JSON text; names wherever they stand."""
    try:
        data = json.loads(tools) if isinstance(tools, str) else tools
    except ValueError:
        return []
    listed = data if isinstance(data, list) else []
    return [tool.get("function", tool) if isinstance(tool, dict) else tool for tool in listed]


def wrong_tool(calls: list[Call], tools: list[Any], rng: random.Random) -> list[Call] | None:
    """Another tool of the list with the same arguments."""
    used = {call["name"] for call in calls}
    others = [tool["name"] for tool in tools if isinstance(tool, dict) and isinstance(tool.get("name"), str) and tool["name"] not in used]
    if not others:
        return None
    chosen = rng.randrange(len(calls))
    return [{**call, "name": rng.choice(others)} if place == chosen else call for place, call in enumerate(calls)]


def _arguments(call: Call) -> dict[str, Any]:
    found = call.get("arguments")
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            return {}
    return dict(found) if isinstance(found, dict) else {}


def _with_arguments(call: Call, arguments: dict[str, Any]) -> Call:
    """The call with other arguments, as JSON text where they were text."""
    return {**call, "arguments": dump(arguments, str(call["arguments"])) if isinstance(call.get("arguments"), str) else arguments}


def dump(value: object, like: str) -> str:
    """A value as JSON spaced as a text was, so that the spacing does not give a changed call away."""
    tight = '": ' not in like and '", ' not in like
    return json.dumps(value, ensure_ascii=False, separators=(",", ":") if tight else None, indent=2 if "\n" in like.strip() else None)


def wrong_value(calls: list[Call], _tools: list[Any], rng: random.Random) -> list[Call] | None:
    """One argument of another value of its type."""
    spots = [(place, name) for place, call in enumerate(calls) for name, value in _arguments(call).items() if _changed(value, rng) is not None]
    if not spots:
        return None
    place, name = rng.choice(spots)
    own = _arguments(calls[place])
    return [_with_arguments(call, {**own, name: _changed(own[name], rng)}) if at == place else call for at, call in enumerate(calls)]


def _changed(value: object, rng: random.Random) -> object:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + rng.choice((1, 2, 5, 10))
    if isinstance(value, str) and len(value) > 1:
        words = value.split()
        turned = value[::-1].lower()
        return " ".join(words[:-1]) if len(words) > 2 else turned if turned != value.lower() else f"{value}x"
    return value[:-1] if isinstance(value, list) and len(value) > 1 else None


def missing_argument(calls: list[Call], _tools: list[Any], rng: random.Random) -> list[Call] | None:
    """One argument left out."""
    spots = [(place, name) for place, call in enumerate(calls) for name in _arguments(call)]
    if not spots:
        return None
    place, name = rng.choice(spots)
    left = {key: value for key, value in _arguments(calls[place]).items() if key != name}
    return [_with_arguments(call, left) if at == place else call for at, call in enumerate(calls)]


def missing_call(calls: list[Call], _tools: list[Any], rng: random.Random) -> list[Call] | None:
    """One of several calls left out."""
    gone = rng.randrange(len(calls))
    return [call for place, call in enumerate(calls) if place != gone] if len(calls) > 1 else None


TOOL_CORRUPTIONS: dict[str, ToolCorruption] = {
    "wrong tool": wrong_tool,
    "wrong value": wrong_value,
    "missing argument": missing_argument,
    "missing call": missing_call,
}
