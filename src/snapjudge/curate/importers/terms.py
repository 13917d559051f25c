"""What importers are told and what they give: items, each one example with the votes that came with it. Knows no foreign format."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from snapjudge.core.example import words_of
from snapjudge.core.metric import Metric
from snapjudge.curate.read import Record, json_objects, records
from snapjudge.curate.times import moment
from snapjudge.errors import DataInvalid, Problem, StorageFailed


@dataclass(frozen=True)
class ImportTerms:
    """For which metric, how its fields and labels are called there, and which of several questions is meant."""

    metric: Metric
    mapping: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    question: str | None = None

    def asks(self, *names: object) -> bool:
        """Whether a question of that name or wording is the one to import: the one asked for, else the metric's own."""
        wanted = {self.question} if self.question else {self.metric.name, self.metric.question}
        return any(name in wanted for name in names)


@dataclass(frozen=True)
class Vote:
    """One label that came with a record; whatever is not known is None or empty."""

    label: object
    labeler: str = ""
    time: datetime | None = None
    adjudication: bool = False
    rationale: str = ""
    confidence: float | None = None


@dataclass(frozen=True)
class Item:
    """A record in our shape (`inputs`, `meta`, `id`), and its votes."""

    record: Record
    votes: tuple[Vote, ...] = ()


def items_of_records(path: Path, terms: ImportTerms) -> Iterator[Item]:
    """JSON lines, CSV and Parquet: the label, if there is one, is the record's own vote."""
    if path.suffix == ".json":
        raise DataInvalid(path.name, [Problem("(file)", "JSON that is no known export", "JSON lines, or one of the formats of --format")])
    for record in records(path, terms.mapping):
        yield with_vote(record)


def with_vote(record: Record) -> Item:
    """A record and the vote its label and meta make."""
    data = record.data or {}
    if data.get("label") is None:
        return Item(record)
    meta = data.get("meta")
    known = meta if isinstance(meta, Mapping) else {}
    return Item(record, (Vote(data["label"], str(known.get("labeler") or ""), moment(known.get("date"))),))


def documents(path: Path) -> Iterator[Record]:
    """The objects of a JSON file (one object or a list of them) or of JSON lines, as they stand there."""
    try:
        if path.suffix != ".json":
            with path.open("rb") as lines:
                yield from json_objects(lines)
            return
        whole = json.loads(path.read_bytes())
    except OSError as error:
        raise StorageFailed(f"cannot read {path}: {error.strerror or error}", hint="check the path and its permissions", received=str(path)) from error
    except (ValueError, RecursionError):
        with path.open("rb") as lines:  # lines under a name that promises one document
            yield from json_objects(lines)
        return
    for number, data in enumerate(whole if isinstance(whole, list) else [whole], 1):
        yield Record(number, data) if isinstance(data, dict) else Record(number, None, Problem(f"[{number - 1}]", type(data).__name__, "an object"))


def fitted(messages: Sequence[Mapping[str, Any]], metric: Metric, context: str = "", tools: object = None) -> dict[str, Any]:
    """A conversation as the fields a metric reads: `messages` whole; `output` the last answer, `input` the last user turn before it,
    `context` what was retrieved, else the system's and all earlier turns.
    """
    turns = [dict(turn) for turn in messages]
    last = max((place for place, turn in enumerate(turns) if turn.get("role") == "assistant"), default=len(turns))
    asked = max((place for place, turn in enumerate(turns[:last]) if turn.get("role") == "user"), default=-1)
    before = "\n".join(f"{turn.get('role')}: {words_of(turn)}" for turn in turns[: max(asked, 0)])
    found: dict[str, Any] = {
        "messages": turns,
        "output": words_of(turns[last]) if last < len(turns) else "",
        "input": words_of(turns[asked]) if asked >= 0 else "",
        "context": context or before,
        "tools": tools,
    }
    return {name: value for name, value in found.items() if name in metric.inputs and value}
