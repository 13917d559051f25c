"""The example: inputs, label and where they come from; and the check of inputs that every path uses.

Knows nothing of files: `curate.read` brings lines here, a server brings request bodies.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from snapjudge.core.frozen import Frozen
from snapjudge.core.metric import INPUT_NAMES, InputName
from snapjudge.errors import InputInvalid, InputUnreadable, Problem

Inputs = Mapping[str, Any]
TEXT_FIELDS = ("context", "input", "output", "a", "b")


class Provenance(Frozen):
    """Where an example comes from. `group` ties examples that must never be split (same document, conversation, contrast pair).

    A synthetic example names its `parent` (the id it was made from), `method` and `seed`.
    """

    source: str = ""
    labeler: str = ""
    date: str = ""
    criteria_version: int | None = None
    group: str = ""
    licence: str = ""
    category: str = ""
    parent: str = ""
    method: str = ""
    seed: str = ""


class Verdict(Frozen):
    """What another judge said of an example, as it came with the data; cost in dollars and seconds where known."""

    label: str
    shares: tuple[float, ...] = Field(default=(), description="its probabilities in label order, where it told any")
    cost: float | None = Field(default=None, ge=0)
    seconds: float | None = Field(default=None, ge=0)


class Example(Frozen):
    """One thing to judge and, where known, its label as a distribution over the metric's labels."""

    id: str
    inputs: dict[str, Any]
    target: tuple[float, ...] | None = None
    provenance: Provenance = Provenance()
    where: str = Field(default="", description="file:line it was read from")
    verdicts: dict[str, Verdict] = Field(default={}, description="by the name of the judge that gave them; baselines of a proof")

    @property
    def label_index(self) -> int:
        """The most likely label of the target; the first on a tie."""
        assert self.target is not None, "an unlabelled example has no label"
        return max(range(len(self.target)), key=self.target.__getitem__)

    @property
    def content_key(self) -> str:
        """A digest of what is judged; examples with the same key are the same text. Case and spacing do not count."""
        return content_key(self.inputs)

    @property
    def group(self) -> str:
        """The stated group, else the text itself: the same text never falls on both sides of a split."""
        return self.provenance.group or self.content_key


def content_key(inputs: Inputs) -> str:
    """sha256 of the inputs in canonical order, case-folded, runs of white space as one."""
    parts = [[name, _folded(inputs[name])] for name in INPUT_NAMES if name in inputs]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def texts_of(inputs: Inputs) -> dict[str, str]:
    """Input fields as plain text, for people and for models of words."""
    found = {}
    for name, value in inputs.items():
        if name == "messages" and isinstance(value, list):
            found[name] = "\n".join(f"{turn.get('role', '')}: {words_of(turn)}" for turn in value)
        else:
            found[name] = value if isinstance(value, str) else str(value)
    return found


def words_of(turn: Mapping[str, Any]) -> str:
    """What a message says: its text, or the texts of its parts, and its tool calls as JSON."""
    content = turn.get("content")
    if isinstance(content, list):
        content = "\n".join(str(part.get("text") or part.get("content") or "") for part in content if isinstance(part, dict))
    calls = json.dumps(turn["tool_calls"], ensure_ascii=False, default=str) if turn.get("tool_calls") else ""
    return "\n".join(str(part) for part in (content, calls) if part)


def shortened(text: str, most: int) -> str:
    """A text for people, cut at `most` characters and saying so."""
    return text if len(text) <= most else f"{text[:most]} ... ({len(text)} characters)"


def plain_text(inputs: Inputs) -> str:
    """All fields as one text."""
    return "\n".join(texts_of(inputs).values())


def length_of(inputs: Inputs) -> int:
    """Characters of all fields together."""
    return sum(len(text) for text in texts_of(inputs).values())


def check_inputs(inputs: object, wanted: Sequence[InputName], optional: Sequence[InputName] = ()) -> dict[str, Any]:
    """The wanted inputs, checked; other standard fields are left out, and so are optional ones that are missing or empty.

    Raises:
        InputInvalid: naming every missing, empty, unknown or wrongly typed field; InputUnreadable where one of them is there, and nothing that can be read.
    """
    if not isinstance(inputs, Mapping):
        raise _invalid([Problem("inputs", _kind(inputs), "an object of fields such as output")])
    expected = f"one of {', '.join(INPUT_NAMES)}"
    problems = [Problem(f"inputs.{name}", "an unknown field", expected) for name in inputs if name not in INPUT_NAMES]
    kept: dict[str, Any] = {}
    for name in wanted:
        value = inputs.get(name)
        if name in optional and value in (None, "", []):
            continue
        problem = _field_problem(name, value)
        if problem:
            problems.append(Problem(f"inputs.{name}", *problem))
        else:
            kept[name] = value
    if not kept and not problems:
        problems.append(Problem("inputs", _NO_FIELD, f"at least one of {', '.join(wanted)}"))
    if problems:
        raise _invalid(problems)
    return kept


_NOTHING, _EMPTY, _NO_FIELD, _SILENT = "nothing", "an empty text", "none of the fields the metric reads", "messages without any text"
_ABSENT = (_NOTHING, _EMPTY, _NO_FIELD, _SILENT, "an empty list")


def _field_problem(name: str, value: object) -> tuple[str, str] | None:
    """What was found and expected of a field that cannot be judged, else None."""
    if value is None:
        return _NOTHING, "a text; the metric reads this field"
    if name in TEXT_FIELDS or (name == "tools" and isinstance(value, str)):
        return _text_problem(value)
    if not isinstance(value, list) or not value:
        return _kind(value), "a list with at least one entry"
    if not encodable(value):
        return "a text with lone surrogates", "valid Unicode"
    return _tools_problem(value) if name == "tools" else _messages_problem(value)


def _tools_problem(tools: list[Any]) -> tuple[str, str] | None:
    return next(((_kind(tool), "tools as objects or texts") for tool in tools if not isinstance(tool, dict | str)), None)


def _messages_problem(turns: list[Any]) -> tuple[str, str] | None:
    problem = next((problem for turn in turns if (problem := _turn_problem(turn))), None)
    if problem is None and not any(_says(turn) for turn in turns):
        return _SILENT, "at least one message that says something"
    return problem


def _text_problem(value: object) -> tuple[str, str] | None:
    if not isinstance(value, str):
        return _kind(value), "a text"
    if not encodable(value):
        return "a text with lone surrogates", "valid Unicode"
    return None if _visible(value) else (_EMPTY, "a text with at least one visible character")


def _visible(text: str) -> bool:
    return any(character.isprintable() and not character.isspace() for character in text)


def encodable(value: object) -> bool:
    """Whether every text in a value is valid Unicode."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _says(turn: dict[str, Any]) -> bool:
    """Whether a checked message has any text or tool call."""
    content = turn.get("content")
    texts = [part["text"] for part in content] if isinstance(content, list) else [content or ""]
    return bool(turn.get("tool_calls")) or any(_visible(text) for text in texts)


def _turn_problem(turn: object) -> tuple[str, str] | None:
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str) or not turn["role"].strip():
        return _kind(turn) if not isinstance(turn, dict) else "a message without a role", 'messages as {"role": ..., "content": ...}'
    content, calls = turn.get("content"), turn.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        return f"tool_calls as {_kind(calls)}", "tool_calls as a list of objects"
    if isinstance(content, list):
        odd = [part for part in content if not (isinstance(part, dict) and isinstance(part.get("text"), str))]
        return ("a message part without text", "text parts only; images and audio are not judged") if odd else None
    if isinstance(content, str) or (content is None and calls):
        return None
    return "a message without content", "content as a text, or tool_calls"


def _invalid(problems: Sequence[Problem]) -> InputInvalid:
    kind = InputInvalid if all(one.found in _ABSENT for one in problems) else InputUnreadable
    return kind(
        "; ".join(str(problem) for problem in problems),
        hint='inputs are {"output": "..."} with the standard field names: `ask --field context=...` gives one, --map output=COLUMN names a column of a file',
    )


def _folded(value: object) -> object:
    return " ".join(value.casefold().split()) if isinstance(value, str) else value


def _kind(value: object) -> str:
    names: dict[type, str] = {type(None): "nothing", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
    return ("an empty list" if value == [] else names.get(type(value))) or type(value).__name__
