"""Exports of annotation tools: Label Studio and Argilla. Every annotator's answer is a vote."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from snapjudge.curate.importers.terms import ImportTerms, Item, Vote, documents
from snapjudge.curate.read import Record, shaped
from snapjudge.curate.times import moment
from snapjudge.errors import Problem


def label_studio(path: Path, terms: ImportTerms) -> Iterator[Item]:
    """Tasks {id, data, annotations}. A cancelled annotation is no vote; one marked as ground truth settles."""
    for record in documents(path):
        task = record.data
        if task is None or not isinstance(task.get("data"), Mapping):
            yield Item(Record(record.line, None, record.problem or Problem("data", "nothing", "a task with its data", record.line)))
            continue
        annotations = task.get("annotations") or task.get("completions") or []
        votes = [vote for one in annotations if isinstance(one, Mapping) if (vote := _annotation(one, terms)) is not None]
        yield Item(Record(record.line, _with_id(task, shaped(task["data"], terms.mapping))), tuple(votes))


def _annotation(annotation: Mapping[str, Any], terms: ImportTerms) -> Vote | None:
    results = [one for one in annotation.get("result") or () if isinstance(one, Mapping)]
    if annotation.get("was_cancelled"):
        return None
    answers = [(one, value) for one in results if (value := _value(one.get("value"))) is not None]
    asked = [pair for pair in answers if terms.asks(pair[0].get("from_name"))] or (answers if len({one.get("from_name") for one, _ in answers}) == 1 else [])
    if not asked:
        return None
    by = annotation.get("completed_by")
    who = by.get("email") or by.get("id") if isinstance(by, Mapping) else by
    why = next((" ".join(map(str, text)) for one in results if isinstance(text := (one.get("value") or {}).get("text"), list)), "")
    when = moment(annotation.get("updated_at") or annotation.get("created_at"))
    return Vote(asked[0][1], "" if who is None else f"annotator {who}" if isinstance(who, int) else str(who), when, bool(annotation.get("ground_truth")), why)


def _value(value: object) -> object:
    """The answer of a control: a choice, a rating or a number."""
    if not isinstance(value, Mapping):
        return None
    for name in ("choices", "taxonomy"):
        if isinstance(value.get(name), list) and value[name]:
            first = value[name][0]
            return first[-1] if isinstance(first, list) and first else first
    return next((value[name] for name in ("rating", "number") if value.get(name) is not None), None)


def argilla(path: Path, terms: ImportTerms) -> Iterator[Item]:
    """Records {id, fields, responses}, of Argilla 1 (a list of submissions) or 2 (responses by question). Suggestions are no votes."""
    for record in documents(path):
        data = record.data
        if data is None or not isinstance(data.get("fields"), Mapping):
            yield Item(Record(record.line, None, record.problem or Problem("fields", "nothing", "a record with its fields", record.line)))
            continue
        fields = {**data["fields"], "meta": data.get("metadata")}
        yield Item(Record(record.line, _with_id(data, shaped(fields, terms.mapping))), tuple(_responses(data.get("responses"), terms)))


def _responses(responses: object, terms: ImportTerms) -> Iterator[Vote]:
    if isinstance(responses, Mapping):  # version 2
        names = [name for name in responses if terms.asks(name)] or (list(responses) if len(responses) == 1 else [])
        for one in responses.get(names[0]) or () if names else ():
            if isinstance(one, Mapping) and one.get("value") is not None and one.get("status", "submitted") == "submitted":
                yield Vote(one["value"], str(one.get("user_id") or ""))
        return
    for one in responses if isinstance(responses, list) else ():
        values = one.get("values") if isinstance(one, Mapping) else None
        if not isinstance(values, Mapping) or one.get("status", "submitted") != "submitted":
            continue
        names = [name for name in values if terms.asks(name)] or (list(values) if len(values) == 1 else [])
        value = values[names[0]].get("value") if names and isinstance(values[names[0]], Mapping) else None
        if value is not None:
            yield Vote(value, str(one.get("user_id") or ""), moment(one.get("updated_at")))


def _with_id(data: Mapping[str, Any], row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with the export's own id where it has none; labels among the data are the tool's, not votes."""
    return {**{key: value for key, value in row.items() if key != "label"}, "id": row.get("id") or data.get("id")}
