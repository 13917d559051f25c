"""OpenTelemetry spans as JSON, by the GenAI or the OpenInference conventions: OTLP files of the collector, or one span a line.

Every span of a model call becomes an example; its group is the session, else the trace; documents retrieved in the same trace are its context.
Recorded evaluations of the metric (`gen_ai.evaluation.result`) become votes.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from snapjudge.curate.importers.terms import ImportTerms, Item, Vote, documents, fitted
from snapjudge.curate.read import Record
from snapjudge.curate.times import moment
from snapjudge.errors import Problem

_MODEL_CALLS = ("chat", "text_completion", "generate_content", "invoke_agent", "completion")


def spans(path: Path, terms: ImportTerms) -> Iterator[Item]:
    """The model calls among the spans of a file; other spans give context only."""
    retrieved = _retrieved(path)
    for record in documents(path):
        if record.data is None:
            yield Item(record)
        for span in () if record.data is None else _spans(record.data):
            attributes = _attributes(span)
            turns = _conversation(attributes)
            if not turns:
                if _is_model_call(attributes):
                    yield Item(Record(record.line, None, Problem("attributes", "a model call without its messages", "recorded message content", record.line)))
                continue
            trace = str(_get(span, "traceId", "trace_id", "context.trace_id") or "")
            inputs = fitted(turns, terms.metric, "\n\n".join(retrieved.get(trace, ())), _tools(attributes))
            meta = {
                "source": str(attributes.get("service.name") or attributes.get("gen_ai.request.model") or attributes.get("llm.model_name") or ""),
                "group": str(attributes.get("session.id") or attributes.get("gen_ai.conversation.id") or trace),
                "date": _started(span),
            }
            span_id = _get(span, "spanId", "span_id", "context.span_id")
            yield Item(Record(record.line, {"id": f"{trace}:{span_id}" if span_id else None, "inputs": inputs, "meta": meta}), tuple(_evaluations(span, terms)))


def _spans(data: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The spans of an OTLP export, or the object itself."""
    if "resourceSpans" not in data:
        yield data
        return
    for resource in data["resourceSpans"] or ():
        common = _flat((resource.get("resource") or {}).get("attributes"))
        for scope in resource.get("scopeSpans") or ():
            for span in scope.get("spans") or ():
                yield {**span, "attributes": {**common, **_flat(span.get("attributes"))}}


def _flat(attributes: object) -> dict[str, Any]:
    """Attributes as a flat mapping, from OTLP's list of keys and typed values, or from (nested) objects."""
    if isinstance(attributes, list):
        return {str(one.get("key")): _typed(one.get("value")) for one in attributes if isinstance(one, dict)}
    found: dict[str, Any] = {}
    for key, value in attributes.items() if isinstance(attributes, dict) else ():
        nested = _flat(value) if isinstance(value, dict) else {}
        found |= {f"{key}.{inner}": one for inner, one in nested.items()} or {key: value}
    return found


def _typed(value: object) -> object:
    if not isinstance(value, dict) or len(value) != 1:
        return value
    kind, inner = next(iter(value.items()))
    if kind == "arrayValue":
        return [_typed(one) for one in inner.get("values") or ()]
    if kind == "kvlistValue":
        return {str(one.get("key")): _typed(one.get("value")) for one in inner.get("values") or ()}
    return int(inner) if kind == "intValue" else inner


def _attributes(span: Mapping[str, Any]) -> dict[str, Any]:
    """A span's attributes; the content that newer instrumentations put into events is among them."""
    found = _flat(span.get("attributes"))
    for event in span.get("events") or ():
        if isinstance(event, Mapping) and event.get("name") != "gen_ai.evaluation.result":
            found = {**_flat(event.get("attributes")), **found}
    return found


def _conversation(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of a model call with its answer, oldest first; empty where none were recorded."""
    system = _parts_text(_parsed(attributes.get("gen_ai.system_instructions")))
    asked, answered = (_genai(_parsed(attributes.get(f"gen_ai.{side}.messages"))) for side in ("input", "output"))
    if asked or answered:
        return [*([{"role": "system", "content": system}] if system else []), *asked, *answered]
    numbered = [*_numbered(attributes, "llm.input_messages", ".message"), *_numbered(attributes, "llm.output_messages", ".message")]
    numbered = numbered or [*_numbered(attributes, "gen_ai.prompt", ""), *_numbered(attributes, "gen_ai.completion", "", "assistant")]
    if numbered:
        return numbered
    listed = [*_genai(_parsed(attributes.get("llm.input_messages"))), *_genai(_parsed(attributes.get("llm.output_messages")))]
    if listed or not _is_model_call(attributes):
        return listed
    sides = (("user", attributes.get("input.value")), ("assistant", attributes.get("output.value")))
    return [{"role": role, "content": str(value)} for role, value in sides if value]


def _is_model_call(attributes: Mapping[str, Any]) -> bool:
    return attributes.get("openinference.span.kind") == "LLM" or attributes.get("gen_ai.operation.name") in _MODEL_CALLS


def _parsed(value: object) -> object:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _parts_text(parts: object) -> str:
    if isinstance(parts, str):
        return parts
    return "\n".join(str(part.get("content") or part.get("text") or "") for part in parts if isinstance(part, dict)) if isinstance(parts, list) else ""


def _genai(messages: object) -> list[dict[str, Any]]:
    """Messages of the GenAI conventions: a role and typed parts."""
    found = []
    for message in messages if isinstance(messages, list) else ():
        if not isinstance(message, dict):
            continue
        inner = message.get("message")
        own: dict[str, Any] = inner if isinstance(inner, dict) else message
        parts = own.get("parts") if isinstance(own.get("parts"), list) else own.get("content")
        listed = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
        calls = [part for part in listed if part.get("type") == "tool_call"]
        text = _parts_text(listed if isinstance(parts, list) else parts)
        answers = "\n".join(_text(part.get("response", part.get("result"))) for part in listed if part.get("type") == "tool_call_response")
        turn: dict[str, Any] = {"role": str(own.get("role") or "user"), "content": "\n".join(filter(None, (text, answers))) or None}
        if calls:
            turn["tool_calls"] = [{"type": "function", "function": {"name": c.get("name"), "arguments": _text(c.get("arguments"))}} for c in calls]
        if turn["content"] or calls:
            found.append(turn)
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _numbered(attributes: Mapping[str, Any], prefix: str, inner: str, role: str = "user") -> list[dict[str, Any]]:
    """Messages spelled out as `PREFIX.0.message.role`, `PREFIX.0.message.content`, ..."""
    turns: dict[int, dict[str, Any]] = defaultdict(lambda: {"role": role, "content": None})
    calls: dict[int, dict[int, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    pattern = re.compile(rf"^{re.escape(prefix)}\.(\d+){re.escape(inner)}\.(.+)$")
    for key, value in attributes.items():
        match = pattern.match(key)
        if not match:
            continue
        place, name = int(match[1]), match[2]
        if name in ("role", "content"):
            turns[place][name] = value
        elif name.endswith("message_content.text"):
            turns[place]["content"] = "\n".join(filter(None, (turns[place]["content"], str(value))))
        elif call := re.match(r"tool_calls\.(\d+)\.(?:tool_call\.function\.|function\.)?(name|arguments)$", name):
            calls[place][int(call[1])][call[2]] = _text(value)
    for place, some in calls.items():
        turns[place]["tool_calls"] = [{"type": "function", "function": some[number]} for number in sorted(some)]
    return [turns[place] for place in sorted(turns) if turns[place]["content"] or "tool_calls" in turns[place]]


def _tools(attributes: Mapping[str, Any]) -> list[Any] | None:
    listed = _parsed(attributes.get("gen_ai.tool.definitions"))
    if isinstance(listed, list):
        return listed
    numbered = sorted(
        (int(match[1]), _parsed(value)) for key, value in attributes.items() if (match := re.match(r"llm\.tools\.(\d+)\.tool\.json_schema$", key))
    )
    return [schema for _, schema in numbered] or None


def _retrieved(path: Path) -> dict[str, list[str]]:
    """Documents retrieved, by trace."""
    found: dict[str, list[str]] = defaultdict(list)
    for record in documents(path):
        for span in () if record.data is None else _spans(record.data):
            attributes = _flat(span.get("attributes"))
            texts = [value for key, value in attributes.items() if re.match(r"retrieval\.documents\.\d+\.document\.content$", key)]
            listed = _parsed(attributes.get("gen_ai.retrieval.documents") or attributes.get("retrieval.documents"))
            texts += (
                [one.get("content") or (one.get("document") or {}).get("content") for one in listed if isinstance(one, dict)]
                if isinstance(listed, list)
                else []
            )
            found[str(_get(span, "traceId", "trace_id", "context.trace_id") or "")] += [str(text) for text in texts if text]
    return found


def _evaluations(span: Mapping[str, Any], terms: ImportTerms) -> Iterator[Vote]:
    for event in span.get("events") or ():
        attributes = _flat(event.get("attributes")) if isinstance(event, Mapping) and event.get("name") == "gen_ai.evaluation.result" else {}
        name, label = attributes.get("gen_ai.evaluation.name"), attributes.get("gen_ai.evaluation.score.label")
        if label is not None and terms.asks(name):
            when = moment(int(event["timeUnixNano"])) if str(event.get("timeUnixNano", "")).isdigit() else None
            yield Vote(label, f"evaluation {name}", when, rationale=str(attributes.get("gen_ai.evaluation.explanation") or ""))


def _started(span: Mapping[str, Any]) -> str:
    value: Any = _get(span, "startTimeUnixNano", "start_time")
    when = moment(int(value) if isinstance(value, str) and value.isdigit() else value)
    return "" if when is None else when.isoformat()


def _get(span: Mapping[str, Any], *names: str) -> object:
    """The first of some fields that is there; a dotted one is nested."""
    for name in names:
        value: Any = span
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value:
            return value
    return None
