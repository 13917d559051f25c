"""Reading data files: JSON lines, CSV and Parquet to records, records to examples, every problem named with file, line and field.

A record is read lazily, so that a file may be longer than memory. Knows nothing of models; `check_inputs` and `Metric.target` say what is right.
"""

import csv
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from snapjudge.core.example import Example, Provenance, Verdict, check_inputs
from snapjudge.core.metric import INPUT_NAMES, Metric
from snapjudge.errors import DataInvalid, ExtraMissing, InputInvalid, OptionInvalid, Problem, StorageFailed

SHOWN = 20  # problems listed in one error
_META = tuple(Provenance.model_fields)


@dataclass(frozen=True)
class Record:
    """One line or row: its number (1 is the first line of a JSON-lines file, the first row under a CSV header is 2), and its fields or a problem.

    `mapped` names the columns of a mapping that the line has; the header of a table is checked before its rows.
    """

    line: int
    data: Mapping[str, Any] | None
    problem: Problem | None = None
    mapped: AbstractSet[str] = frozenset()

    @property
    def id(self) -> str | None:
        """The record's own id, if it has one."""
        value = None if self.data is None else self.data.get("id")
        return None if value is None or isinstance(value, dict | list) else str(value)


def parse_map(pairs: Sequence[str]) -> dict[str, str]:
    """`--map output=text` pairs as field -> column.

    Raises:
        OptionInvalid: not of the form FIELD=COLUMN, or an unknown field.
    """
    fields = (*INPUT_NAMES, "id", "label", *_META)
    mapping = parse_pairs(pairs, "--map")
    for field, column in mapping.items():
        if field not in fields:
            raise OptionInvalid(f"--map {field}={column} cannot be read", hint=f"FIELD=COLUMN with a field among {', '.join(fields)}", received=field)
    return mapping


def parse_pairs(pairs: Sequence[str], option: str, example: str = "output=text") -> dict[str, str]:
    """`A=B` pairs of an option, such as the example.

    Raises:
        OptionInvalid: not of that form.
    """
    found = {}
    for pair in pairs:
        left, sign, right = pair.partition("=")
        if not sign or not left or not right:
            raise OptionInvalid(f"{option} {pair!r} cannot be read", hint=f"{option} LEFT=RIGHT, such as {option} {example}", received=pair)
        found[left] = right
    return found


def parse_numbers(pairs: Sequence[str], option: str) -> dict[str, float]:
    """`NAME=NUMBER` pairs of an option.

    Raises:
        OptionInvalid: not of that form.
    """
    found = {}
    for name, value in parse_pairs(pairs, option).items():
        try:
            found[name] = float(value)
        except ValueError as error:
            raise OptionInvalid(f"{option} {name}={value}: {value!r} is no number", hint=f"{option} NAME=0.9", received=value) from error
    return found


def records(path: Path | None, mapping: Mapping[str, str] | None = None) -> Iterator[Record]:
    """The records of a file by its ending (.jsonl, .csv, .tsv, .parquet; anything else is read as JSON lines); None is standard input."""
    mapping = mapping or {}
    if path is None:
        yield from _json_lines(sys.stdin.buffer, mapping)
        return
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path, mapping)
        elif path.suffix in (".csv", ".tsv"):
            with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as text:
                yield from _csv(text, path, mapping)
        else:
            with path.open("rb") as lines:
                yield from _json_lines(lines, mapping)
    except OSError as error:
        raise _unreadable(path, error) from error


def _json_lines(lines: IO[bytes], mapping: Mapping[str, str]) -> Iterator[Record]:
    columns = {*mapping.values()}
    for record in json_objects(lines):
        yield record if record.data is None else Record(record.line, shaped(record.data, mapping), mapped=columns & record.data.keys())


def json_objects(lines: IO[bytes]) -> Iterator[Record]:
    """The objects of a file of JSON lines, as they stand there."""
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        try:
            data = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"), parse_constant=_no_constant)
        except UnicodeDecodeError as error:
            yield Record(number, None, Problem("(line)", f"bytes that are not UTF-8 at {error.start}", "UTF-8 text", number))
        except json.JSONDecodeError as error:
            yield Record(number, None, Problem(f"column {error.colno}", f"broken JSON ({error.msg})", "one JSON object per line", number))
        except _NotFinite as error:
            yield Record(number, None, Problem("(line)", str(error), "finite numbers; JSON has no NaN or Infinity", number))
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, or thousands of brackets
            yield Record(number, None, Problem("(line)", f"JSON that cannot be read ({error})", "one flat object per line", number))
        else:
            if isinstance(data, dict):
                yield Record(number, data)
            else:
                yield Record(number, None, Problem("(line)", type(data).__name__, 'an object {"id", "inputs", "label"?, "meta"?}', number))


class _NotFinite(Exception):
    """NaN or Infinity spelled out in JSON."""


def _no_constant(name: str) -> float:
    raise _NotFinite(name)


def shaped(data: Mapping[str, Any], mapping: Mapping[str, str]) -> Mapping[str, Any]:
    """A record in our shape. With `inputs` present only the mapped fields move; a flat record's columns become inputs and meta."""
    if isinstance(data.get("inputs"), dict) and not mapping:
        return data
    taken = {field: data[column] for field, column in mapping.items() if column in data}
    flat = {**{key: value for key, value in data.items() if key not in mapping.values()}, **taken}
    nested = flat["inputs"] if isinstance(flat.get("inputs"), dict) else {}
    inputs = {**nested, **{name: flat[name] for name in INPUT_NAMES if flat.get(name) not in (None, "")}}
    meta = {**(flat["meta"] if isinstance(flat.get("meta"), dict) else {}), **{name: flat[name] for name in _META if flat.get(name) not in (None, "")}}
    found: dict[str, Any] = {"inputs": inputs, "meta": meta}
    verdicts = {**(flat["verdicts"] if isinstance(flat.get("verdicts"), dict) else {}), **_verdict_columns(flat)}
    found |= {"verdicts": verdicts} if verdicts else {}
    named = {key: flat[key] for key in ("id", "label", "stage", "action") if flat.get(key) not in (None, "")}
    if isinstance(named.get("label"), str) and named["label"].startswith("{"):
        named["label"] = _as_json(named["label"])  # shares, as a table holds them
    if isinstance(inputs.get("messages"), str):
        inputs["messages"] = _as_json(inputs["messages"])
    return {**found, **named}


def _as_json(text: str) -> Any:
    """A cell that holds JSON; as it stands if it does not, for the check of inputs to say what is wrong."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _verdict_columns(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Columns `verdict.NAME`, `verdict.NAME.cost`, `verdict.NAME.seconds` of a flat record."""
    found: dict[str, dict[str, Any]] = {}
    for column, value in flat.items():
        if column.startswith("verdict.") and value not in (None, ""):
            name, _, part = column.removeprefix("verdict.").rpartition(".")
            if not name or part not in ("cost", "seconds"):
                name, part = column.removeprefix("verdict."), "label"
            found.setdefault(name, {})[part] = value
    return found


def _csv(text: IO[str], path: Path, mapping: Mapping[str, str]) -> Iterator[Record]:
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(text, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
    _check_columns(reader.fieldnames or (), path, mapping)
    columns = {*mapping.values()}
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            line = reader.line_num + 1  # the reader has not counted the row it gave up
            yield Record(line, None, Problem("(row)", f"broken CSV ({error})", "a row as under the header", line))
            continue
        if None in row or None in row.values():
            found = f"{len([v for v in row.values() if v is not None])} cells"
            yield Record(reader.line_num, None, Problem("(row)", found, f"{len(reader.fieldnames or ())} cells as in the header", reader.line_num))
            continue
        yield Record(reader.line_num, shaped(_typed(row, mapping), mapping), mapped=columns)


def _typed(row: Mapping[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    """CSV cells as values: messages and versions are JSON; a label stays text, which the metric reads."""
    data = dict(row)
    for key in (mapping.get(name, name) for name in ("messages", "criteria_version")):
        if row.get(key):
            data[key] = _as_json(row[key])
    return data


def _parquet(path: Path, mapping: Mapping[str, str]) -> Iterator[Record]:
    try:
        import pyarrow as arrow  # noqa: PLC0415 - an optional, heavy package
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise ExtraMissing("reading Parquet needs pyarrow", hint="pip install 'snapjudge[local]'") from error
    try:
        file = parquet.ParquetFile(path)
    except arrow.ArrowInvalid as error:
        raise DataInvalid(path.name, [Problem("(file)", str(error).splitlines()[0], "a Parquet file")]) from error
    with file:
        _check_columns(file.schema_arrow.names, path, mapping)
        number, columns = 0, {*mapping.values()}
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield Record(number, shaped(row, mapping), mapped=columns)


def _check_columns(columns: Sequence[str], path: Path, mapping: Mapping[str, str]) -> None:
    missing = [f"{field}={column}" for field, column in mapping.items() if column not in columns]
    known = {*INPUT_NAMES, "inputs"} & {*columns, *mapping}
    if missing or not known:
        found = f"columns {', '.join(columns) or '(none)'}"
        expected = f"the mapped columns {', '.join(missing)}" if missing else f"a column named {' or '.join(INPUT_NAMES)}, or --map output=COLUMN"
        raise DataInvalid(path.name, [Problem("(header)", found, expected, 1)], hint="--map FIELD=COLUMN says which column is which field")


def to_example(record: Record, metric: Metric, name: str) -> Example:
    """A record as an example of the metric; the label may be missing.

    Raises:
        DataInvalid: with every problem of the record.
    """
    problems = [record.problem] if record.problem else []
    data = record.data or {}
    inputs, target = {}, None
    if record.data is not None:
        try:
            inputs = check_inputs(data.get("inputs"), metric.ordered_inputs, metric.optional)
        except InputInvalid as error:
            problems.append(Problem("inputs", error.message, "inputs the metric can read", record.line))
        if data.get("label") is not None:
            try:
                target = metric.target(data["label"])
            except ValueError as error:
                found, _, expected = str(error).removeprefix("found ").partition("; expected ")
                problems.append(Problem("label", found, expected, record.line))
    if problems:
        raise DataInvalid(name, problems)
    where = f"{name}:{record.line}"
    verdicts = _verdicts(data.get("verdicts"), metric)
    return Example(id=record.id or where, inputs=inputs, target=target, provenance=provenance_of(data.get("meta"), name), where=where, verdicts=verdicts)


def _verdicts(given: object, metric: Metric) -> dict[str, Verdict]:
    """Verdicts of other judges, each a label, shares of labels, or {"label", "probabilities"?, "cost"?, "seconds"?}; one that is no label counts as missing."""
    found = {}
    for name, value in given.items() if isinstance(given, Mapping) else ():
        whole = value if isinstance(value, Mapping) and {"label", "probabilities"} & value.keys() else {"label": value}
        try:
            target = metric.target(whole.get("probabilities") or whole.get("label"))
            label = metric.label_names[target.index(max(target))]
            numbers = {key: float(whole[key]) for key in ("cost", "seconds") if whole.get(key) not in (None, "")}
            found[str(name)] = Verdict(label=label, shares=target, cost=numbers.get("cost"), seconds=numbers.get("seconds"))
        except (ValueError, TypeError):
            continue
    return found


def provenance_of(meta: object, name: str) -> Provenance:
    """The meta fields of a record that are known; `name` is its source where it states none."""
    if not isinstance(meta, Mapping):
        return Provenance(source=name)
    texts = {key: str(meta[key]) for key in _META if key != "criteria_version" and meta.get(key) not in (None, "")}
    version = meta.get("criteria_version")
    return Provenance.model_validate(
        {"source": name, **texts, "criteria_version": version if isinstance(version, int) and not isinstance(version, bool) else None}
    )


def read_examples(paths: Iterable[Path], metric: Metric, mapping: Mapping[str, str] | None = None) -> list[Example]:
    """All labelled examples of some files, checked in one go.

    Raises:
        DataInvalid: listing up to twenty problems over all files, among them the same id with different labels.
    """
    examples: list[Example] = []
    problems: list[Problem] = []
    for path in paths:
        for record, example in readable(path, metric, mapping, problems):
            if example.target is None:
                problems.append(Problem(f"{path.name}: label", "nothing", f"one of {', '.join(metric.labels)}", record.line))
            else:
                examples.append(example)
    problems += _same_id(examples)
    if problems:
        raise DataInvalid("data", problems[:SHOWN], more=max(0, len(problems) - SHOWN), hint="correct the lines named, or leave them out")
    return examples


def readable(path: Path, metric: Metric, mapping: Mapping[str, str] | None, problems: list[Problem]) -> Iterator[tuple[Record, Example]]:
    """The records of a file that are examples of the metric; what is wrong with the others, or with the mapping, is added to `problems`."""
    before, absent, read = len(problems), {*(mapping or {}).values()}, False
    for record in records(path, mapping):
        absent, read = absent - record.mapped, read or record.data is not None
        try:
            yield record, to_example(record, metric, path.name)
        except DataInvalid as error:
            problems += [Problem(f"{path.name}: {p.path}", p.found, p.expected, p.line or record.line) for p in error.problems]
    if read and absent:
        problems.insert(before, Problem(f"{path.name}: --map", f"no column {' or '.join(sorted(absent))} in any line", "columns that the file has"))


def _same_id(examples: Sequence[Example]) -> Iterator[Problem]:
    """The same id with two labels or two texts."""
    first: dict[str, Example] = {}
    for example in examples:
        before = first.setdefault(example.id, example)
        if before is not example and (before.target != example.target or before.content_key != example.content_key):
            what = "different labels" if before.target != example.target else "different texts"
            yield Problem(f"{example.where}: id", f"{example.id!r}, also at {before.where} with {what}", "one id for one example")


def file_digest(path: Path) -> str:
    """sha256 of a data file, for the record of a run.

    Raises:
        StorageFailed: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"cannot read {path}: {error.strerror or error}", hint="check the path and its permissions", received=str(path))
