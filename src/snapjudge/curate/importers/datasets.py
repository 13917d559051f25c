"""Hugging Face datasets folders: what `save_to_disk` writes (Arrow streams), or data files laid out by split. Needs pyarrow, not `datasets`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from snapjudge.curate.importers.terms import ImportTerms, Item, with_vote
from snapjudge.curate.read import Record, records, shaped
from snapjudge.errors import DataInvalid, ExtraMissing, OptionInvalid, Problem

_FILES = (".parquet", ".jsonl", ".csv", ".tsv")


def datasets(folder: Path, terms: ImportTerms) -> Iterator[Item]:
    """Every split of a folder, one after another; a record without a source is told to come from its split."""
    splits = [folder] if (folder / "state.json").exists() else sorted(path.parent for path in folder.glob("*/state.json"))
    files = [] if splits else sorted(path for path in folder.rglob("*") if path.suffix in _FILES)
    if not splits and not files:
        raise OptionInvalid(f"{folder} holds no data set", hint="a folder of `save_to_disk`, or one with .parquet, .jsonl or .csv files", received=str(folder))
    for split in splits:
        source = folder.name if split == folder else f"{folder.name}/{split.name}"
        for number, row in enumerate(_arrow(split), 1):
            yield with_vote(Record(number, _sourced(shaped(row, terms.mapping), source)))
    for path in files:
        for record in records(path, terms.mapping):
            source = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            yield with_vote(record if record.data is None else Record(record.line, _sourced(record.data, source)))


def _sourced(row: Mapping[str, Any], source: str) -> dict[str, Any]:
    meta = row.get("meta")
    return {**row, "meta": {"source": source, **(meta if isinstance(meta, Mapping) else {})}}


def _arrow(split: Path) -> Iterator[dict[str, Any]]:
    """The rows of one saved split; class labels by name."""
    try:
        import pyarrow as arrow  # noqa: PLC0415 - an optional, heavy package
    except ImportError as error:
        raise ExtraMissing("reading a datasets folder needs pyarrow", hint="pip install 'snapjudge[local]'") from error
    try:
        state = json.loads((split / "state.json").read_bytes())
        info = json.loads((split / "dataset_info.json").read_bytes()) if (split / "dataset_info.json").exists() else {}
        names = {column: kind["names"] for column, kind in (info.get("features") or {}).items() if isinstance(kind, dict) and kind.get("_type") == "ClassLabel"}
        for file in state["_data_files"]:
            with arrow.memory_map(str(split / file["filename"])) as source, arrow.ipc.open_stream(source) as stream:
                for batch in stream:
                    for row in batch.to_pylist():
                        for column, known in names.items():
                            if isinstance(row.get(column), int) and 0 <= row[column] < len(known):
                                row[column] = known[row[column]]
                        yield row
    except (OSError, ValueError, KeyError, TypeError, arrow.ArrowException) as error:
        raise DataInvalid(
            str(split), [Problem("(folder)", str(error).splitlines()[0] or type(error).__name__, "a saved data set with all its files")]
        ) from error
