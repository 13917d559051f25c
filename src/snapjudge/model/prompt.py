"""Rendering: an example's fields to content token ids, a metric's question to a readout.

The content never knows the metric: it is a function of the field values and the backbone alone. Nothing is ever cut: text longer than
the backbone's window becomes several overlapping windows. Knows nothing of layers or labels' logits.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from snapjudge.core.metric import INPUT_NAMES, Metric
from snapjudge.errors import InputInvalid, MetricInvalid, Problem
from snapjudge.model.prompt_rules import Prompted, PromptStyle
from snapjudge.model.readout import Readout, label_tokens
from snapjudge.model.tokens import Ids

OVERLAP = 64  # tokens shared by neighbouring windows of a field, at most a quarter of the window
PASSAGE = 192  # tokens of a window of a metric that reads by passages: about six sentences
MOST_WINDOWS = 4096
_TAGS = "|".join((*INPUT_NAMES, "user", "assistant", "system", "tool", "turn"))
_LOOKALIKE = re.compile(rf"<(\\*)(/?(?:{_TAGS})\b[^<>]*)>", re.IGNORECASE)


@dataclass(frozen=True)
class Content:
    """What is judged, as token ids: one sequence per window; for pairwise, the swapped order's windows follow the given order's."""

    windows: tuple[Ids, ...]
    orders: int = 1

    @property
    def tokens(self) -> int:
        """Tokens of all windows together."""
        return sum(len(window) for window in self.windows)


def render_readout(metric: Metric, backbone: Prompted) -> Readout:
    """The metric's question and its labels' tokens under a backbone.

    Raises:
        LabelNotOneToken: an answer word does not fit.
        MetricInvalid: the question is longer than the backbone keeps room for.
    """
    text = backbone.style.readout.format(question=" ".join(metric.question.split()))
    ids = backbone.tokens.encode(text)
    if len(ids) > backbone.readout_tokens:
        problem = Problem("question", f"{len(ids)} tokens", f"at most {backbone.readout_tokens} under {backbone.name}")
        raise MetricInvalid(f"metric {metric.name}", [problem], hint="shorten the question; keep the criteria in `policy`, which the judge does not read")
    return Readout(ids, label_tokens(metric, backbone.tokens, text.rsplit(maxsplit=1)[-1], backbone.name))


def render_content(inputs: Mapping[str, Any], metric: Metric, backbone: Prompted) -> Content:
    """Token ids of the metric's inputs, which `core.example.check_inputs` has checked."""
    fields: dict[str, Any] = {name: inputs[name] for name in metric.ordered_inputs if name in inputs}
    if metric.by_passages:
        return Content(_passages(fields, backbone))
    windows = content_windows(fields, backbone)
    if metric.type != "pairwise":
        return Content(windows)
    swapped = {**fields, "a": fields["b"], "b": fields["a"]}
    return Content((*windows, *content_windows(swapped, backbone)), orders=2)


def content_windows(fields: Mapping[str, Any], backbone: Prompted) -> tuple[Ids, ...]:
    """All windows of a content. Short fields stand whole in every window; fields over their fair share are read piece by piece."""
    return _windows(_fields(fields, backbone), backbone, backbone.content_tokens)


def closing_tokens(field: str, backbone: Prompted) -> int:
    """How many tokens close a field: what a content that ends with it has after the field's last word, and what a growing one gets anew each time."""
    return len(_after(field, backbone))


def _passages(fields: Mapping[str, Any], backbone: Prompted) -> tuple[Ids, ...]:
    """The whole content where it is no longer than a passage, else the passages of each field by themselves."""
    texts, longest = _fields(fields, backbone), min(PASSAGE, backbone.content_tokens)
    if len(backbone.tokens.begin) + sum(len(f.before) + len(f.body) + len(f.after) for f in texts) <= longest:
        return _windows(texts, backbone, longest)
    return tuple(window for one in texts for window in _windows([one], backbone, longest))


def _windows(texts: Sequence["_Field"], backbone: Prompted, longest: int) -> tuple[Ids, ...]:
    """Windows of at most `longest` tokens, of every combination of the fields' pieces."""
    marks = len(backbone.tokens.begin) + sum(len(f.before) + len(f.after) for f in texts)
    pieces = _pieces([f.body for f in texts], longest - marks)
    if (count := _count(pieces)) > MOST_WINDOWS:
        raise InputInvalid(
            f"the inputs need {count} windows of {longest} tokens under {backbone.name}",
            hint=f"at most {MOST_WINDOWS}; split the text, or use a backbone with a longer window",
        )
    return tuple(
        backbone.tokens.begin + tuple(i for f, piece in zip(texts, chosen, strict=True) for i in (*f.before, *piece, *f.after)) for chosen in product(*pieces)
    )


@dataclass(frozen=True)
class _Field:
    before: Ids
    body: Ids
    after: Ids


def _fields(fields: Mapping[str, Any], backbone: Prompted) -> list[_Field]:
    """The fields as token ids, in canonical order."""
    return [_marked(name, fields[name], backbone) for name in INPUT_NAMES if name in fields]


def _pieces(bodies: Sequence[Ids], room: int) -> list[list[Ids]]:
    """Cut the bodies that exceed their fair share of `room` tokens into overlapping pieces; shorter ones leave their rest to the others."""
    shares = [0] * len(bodies)
    left = room
    order = sorted(range(len(bodies)), key=lambda index: len(bodies[index]))
    for position, index in enumerate(order):
        shares[index] = min(len(bodies[index]), left // (len(order) - position))
        left -= shares[index]
    if any(body and share < 1 for body, share in zip(bodies, shares, strict=True)):
        raise InputInvalid(
            f"{len(bodies)} fields do not fit a window with {max(0, room)} tokens beside their marks", hint="use a backbone with a longer window"
        )
    return [list(_slide(body, share)) for body, share in zip(bodies, shares, strict=True)]


def _slide(body: Ids, size: int) -> Iterator[Ids]:
    """Overlapping pieces of at most `size` tokens that together cover `body`."""
    step = max(1, size - min(OVERLAP, size // 4))
    start = 0
    while True:
        yield body[start : start + size]
        if start + size >= len(body):
            return
        start += step


def _count(pieces: Sequence[Sequence[Ids]]) -> int:
    count = 1
    for some in pieces:
        count *= len(some)
    return count


def _marked(name: str, value: Any, backbone: Prompted) -> _Field:
    """A field's opening mark, body and closing mark."""
    style, tokens = backbone.style, backbone.tokens
    if name == "messages":
        body = tuple(i for turn in value for i in _turn(turn, backbone))
    else:
        body = tokens.encode(_plain(_tool_lines(value) if name == "tools" else value, style))
    return _Field(tokens.encode(style.open.format(tag=name)), body, _after(name, backbone))


def _after(name: str, backbone: Prompted) -> Ids:
    return (*backbone.tokens.encode(backbone.style.close.format(tag=name)), *backbone.style.after_field)


def _turn(turn: Mapping[str, Any], backbone: Prompted) -> Ids:
    style, tokens = backbone.style, backbone.tokens
    role = re.sub(r"\W+", "_", str(turn["role"]).strip().lower()) or "user"
    body = tokens.encode(_plain(_turn_text(turn), style))
    return (*tokens.encode(style.open.format(tag=role)), *body, *_after(role, backbone))


def _turn_text(turn: Mapping[str, Any]) -> str:
    content = turn.get("content")
    parts = [part["text"] for part in content] if isinstance(content, list) else [content] if content else []
    for call in turn.get("tool_calls") or ():
        called = call["function"] if isinstance(call.get("function"), dict) else call
        arguments = called.get("arguments", "")
        parts.append(f"call {called.get('name', '')}({arguments if isinstance(arguments, str) else _compact(arguments)})")
    return "\n".join(parts)


def _tool_lines(tools: Any) -> str:
    """One line per tool, `name(arg: type, other?: type): description`; text that is not a JSON list of tools stays as it is."""
    if isinstance(tools, str):
        try:
            parsed = json.loads(tools)
        except (ValueError, RecursionError):
            return tools
        if not isinstance(parsed, list) or not all(isinstance(tool, dict) for tool in parsed):
            return tools
        tools = parsed
    return "\n".join(
        tool if isinstance(tool, str) else _tool_line(tool.get("function", tool) if isinstance(tool.get("function", tool), dict) else tool) for tool in tools
    )


def _tool_line(tool: Mapping[str, Any]) -> str:
    schema = tool.get("parameters") or tool.get("input_schema") or {}
    properties = schema.get("properties", {}) if isinstance(schema, dict) else {}
    stated = schema.get("required") if isinstance(schema, dict) else ()
    required = stated if isinstance(stated, list) else ()
    if not isinstance(properties, dict):
        return _compact(tool)
    arguments = []
    for name, spec in properties.items():
        kind = spec.get("type", "any") if isinstance(spec, dict) else "any"
        about = spec.get("description", "") if isinstance(spec, dict) else ""
        arguments.append(f"{name}{'' if name in required else '?'}: {kind}{f' ({about})' if about else ''}")
    description = " ".join(str(tool.get("description", "")).split())
    return f"{tool.get('name', '')}({', '.join(arguments)}){f': {description}' if description else ''}"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def _plain(text: str, style: PromptStyle) -> str:
    r"""Escape look-alikes of the field tags where only text separates the fields: <output> becomes <\output>, and so on, reversibly."""
    return _LOOKALIKE.sub(r"<\\\1\2>", text) if style.forgeable else text
