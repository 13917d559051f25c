"""Import: other people's files into a data set, each row checked, nothing imported twice and nothing lost."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from snapjudge.core.example import check_inputs, content_key, encodable
from snapjudge.core.metric import INPUT_NAMES, Metric
from snapjudge.core.progress import Progress
from snapjudge.curate.dataset import Dataset, ExampleWriter, check_criteria, writing
from snapjudge.curate.importers import importer, shown, sniff
from snapjudge.curate.importers.terms import ImportTerms, Item, Vote
from snapjudge.curate.journal import read_journal
from snapjudge.curate.labels import LabelEvent, Source, append_labels
from snapjudge.curate.personal import redacted, redacted_inputs
from snapjudge.curate.read import provenance_of, to_example
from snapjudge.errors import DataInvalid, InputInvalid, Interrupted, Problem, StorageFailed
from snapjudge.store.files import write_file

_BLOCK = 10_000


@dataclass(frozen=True)
class ImportRequest:
    """What is imported to where, for which metric.

    Args:
        labels: how labels are called there -> how the metric calls them.
        criteria_version: under which version the labels were made; the metric's own unless said.
        redact: replace personal data before anything is stored.
    """

    source: Path
    dataset: Dataset
    metric: Metric
    format: str = "auto"
    mapping: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    question: str | None = None
    label_source: Source = "expert"
    labeler: str = ""
    criteria_version: int | None = None
    redact: bool = False


@dataclass
class ImportResult:
    """What became of the rows: read = added + known + rejected."""

    format: str
    read: int = 0
    added: int = 0
    known: int = 0
    labels: int = 0
    redacted: int = 0
    rejected: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    id: str
    key: str
    stored: dict[str, Any]
    events: list[LabelEvent]
    timeless: list[LabelEvent]


def import_data(request: ImportRequest, progress: Progress, stop: Callable[[], bool] = lambda: False) -> ImportResult:
    """Import a file or folder. The same import again adds nothing; one that was killed goes on with the same command.

    Rows that cannot be used are kept in `rejected.jsonl` with their reason.

    Raises:
        OptionInvalid (no such format), DataInvalid (the file is not of this format), CriteriaChanged, StorageFailed, Interrupted.
    """
    if not request.source.exists():
        raise StorageFailed(f"there is no {request.source}", hint="check the path", received=str(request.source))
    kind = sniff(request.source) if request.format == "auto" else request.format
    terms = ImportTerms(request.metric, request.mapping, request.labels, request.question)
    items = importer(kind)(request.source, terms)
    check_criteria(request.dataset, request.metric)
    result, bad = ImportResult(kind), list[dict[str, Any]]()
    progress.start(f"import {kind}", 0)
    with writing(request.dataset) as writer:
        try:
            while block := list(islice(items, _BLOCK)):
                if stop():
                    raise Interrupted("the import was stopped", hint="the same command goes on where it stopped")
                _take(block, request, writer, result, bad)
                progress.advance(len(block))
        finally:
            _note_rejected(request, bad)
    return result


def _note_rejected(request: ImportRequest, bad: Sequence[Mapping[str, Any]]) -> None:
    """The rows of this file that cannot be used, in place of what an earlier import of it said; those of other files stay."""
    path = request.dataset.rejected
    before = [json.loads(line) for line in read_journal(path).lines]
    rows = [row for row in before if row["file"] != request.source.name] + list(bad)
    if rows or before:
        write_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _take(block: list[Item], request: ImportRequest, writer: ExampleWriter, result: ImportResult, bad: list[dict[str, Any]]) -> None:
    """Check and store one block of items: examples first, so that no label ever lacks its example."""
    new, events, timeless = [], [], []
    for item in block:
        result.read += 1
        try:
            row = _row(item, request)
            if writer.known.get(row.id, row.key) != row.key:
                raise DataInvalid(
                    request.source.name, [Problem("id", f"{row.id!r}, which is another text in the data set", "one id for one example", item.record.line)]
                )
        except DataInvalid as error:
            bad.append({"file": request.source.name, "line": item.record.line, "problems": [str(problem) for problem in error.problems]})
            result.rejected += [str(problem) for problem in error.problems]
            continue
        if row.id in writer.known:
            result.known += 1
        else:
            writer.known[row.id] = row.key
            new.append(row.stored)
        events += row.events
        timeless += row.timeless
    writer.add(new)
    result.added += len(new)
    result.redacted += sum("redacted" in row["meta"] for row in new)
    result.labels += append_labels(request.dataset.labels, events) + append_labels(request.dataset.labels, timeless, ignore_time=True)


def _row(item: Item, request: ImportRequest) -> _Row:
    """An item as the row that is stored and its label events.

    Raises:
        DataInvalid: with every problem of the row.
    """
    record, metric, name = item.record, request.metric, request.source.name
    data = dict(record.data or {})
    example = to_example(type(record)(record.line, {**data, "label": None} if record.problem is None else None, record.problem), metric, name)
    inputs = {**_others(data.get("inputs"), metric), **example.inputs}
    changed = redacted_inputs(inputs) if request.redact else inputs
    example = example.model_copy(update={"inputs": {field: changed[field] for field in example.inputs}})
    whole: dict[str, Any] = {field: changed[field] for field in INPUT_NAMES if field in changed}
    row_id = record.id or hashlib.sha256(content_key(whole).encode()).hexdigest()[:16]
    known = provenance_of(data.get("meta"), name).model_dump(exclude_defaults=True, exclude={"labeler", "criteria_version"})
    meta = {**known, **({"redacted": True} if changed != inputs else {})}
    stored: dict[str, Any] = {"id": row_id, "inputs": whole, "meta": meta}
    labelers = [request.labeler, *(vote.labeler for vote in item.votes), *(vote.rationale for vote in item.votes)]
    if not encodable([row_id, meta, data.get("verdicts"), labelers]):
        raise DataInvalid(name, [Problem("id, meta or labeler", "a text with lone surrogates, or bytes that are not UTF-8", "valid Unicode", record.line)])
    if isinstance(data.get("verdicts"), Mapping) and data["verdicts"]:
        stored["verdicts"] = dict(data["verdicts"])
    made = [_event(vote, row_id, data, request, record.line) for vote in item.votes]
    dated = [event for vote, event in zip(item.votes, made, strict=True) if vote.time is not None]
    return _Row(row_id, content_key(whole), stored, dated, [event for event in made if event not in dated])


def _others(inputs: object, metric: Metric) -> dict[str, Any]:
    """Standard fields that this metric does not read but another may; those that cannot be judged are left out."""
    given: Mapping[str, Any] = inputs if isinstance(inputs, Mapping) else {}
    found: dict[str, Any] = {}
    for name in INPUT_NAMES:
        if name in metric.inputs or given.get(name) is None:
            continue
        try:
            found |= check_inputs(inputs, [name])
        except InputInvalid:
            continue
    return found


def _event(vote: Vote, row_id: str, data: Mapping[str, Any], request: ImportRequest, line: int) -> LabelEvent:
    """A vote as a label event under the metric's label names; several labels become shares."""
    metric = request.metric
    label = vote.label
    if isinstance(label, Mapping):
        mapped: dict[str, float] = {}
        for name, share in label.items():
            ours = request.labels.get(str(name), str(name))
            mapped[ours] = mapped.get(ours, 0.0) + share
        label = mapped
    elif str(label) in request.labels:
        label = request.labels[str(label)]
    try:
        target = metric.target(label)
    except ValueError as error:
        found, _, expected = str(error).removeprefix("found ").partition("; expected ")
        hint = f"{expected}; --label {shown(vote.label)}=NAME renames one"
        raise DataInvalid(request.source.name, [Problem("label", found, hint, line)]) from error
    shares = {name: share for name, share in zip(metric.label_names, target, strict=True) if share}
    meta = data.get("meta")
    version = meta.get("criteria_version") if isinstance(meta, Mapping) and isinstance(meta.get("criteria_version"), int) else None
    return LabelEvent(
        example=row_id,
        label=max(shares, key=lambda name: shares[name]),
        labeler=request.labeler or vote.labeler or f"import {request.source.name}",
        time=vote.time or datetime.now(UTC),
        criteria_version=request.criteria_version or version or metric.version,
        rationale=redacted(vote.rationale) if request.redact else vote.rationale,
        confidence=vote.confidence,
        source=request.label_source,
        adjudication=vote.adjudication,
        shares=shares if len(shares) > 1 else None,
    )
