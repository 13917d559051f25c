"""OpenAI messages: fine-tuning files and logged chat completions."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from snapjudge.curate.importers.terms import ImportTerms, Item, documents, fitted, with_vote
from snapjudge.curate.read import Record, shaped
from snapjudge.errors import Problem


def messages(path: Path, terms: ImportTerms) -> Iterator[Item]:
    """Lines {messages, label?, id?, meta?}, or {request: {messages}, response: {choices}}."""
    for record in documents(path):
        if record.data is None:
            yield Item(record)
            continue
        turns, tools = _conversation(record.data)
        if turns is None:
            yield Item(Record(record.line, None, Problem("messages", "nothing", "a list of messages", record.line)))
            continue
        rest = {name: value for name, value in record.data.items() if name not in ("messages", "request", "response", "tools")}
        flat = shaped({**rest, "meta": rest.get("meta") or rest.get("metadata")}, terms.mapping)
        yield with_vote(Record(record.line, {**flat, "inputs": fitted(turns, terms.metric, tools=tools)}))


def _conversation(data: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]] | None, object]:
    request, response = data.get("request"), data.get("response")
    holder = request if isinstance(request, Mapping) else data
    turns = holder.get("messages")
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        return None, None
    choices = response.get("choices") if isinstance(response, Mapping) else None
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) and isinstance(choices[0].get("message"), Mapping):
        turns = [*turns, choices[0]["message"]]
    return turns, holder.get("tools")
