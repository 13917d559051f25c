"""Export: a data set's labelled examples as one file that `train`, `prove` and other people's tools read."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.errors import ExtraMissing, OptionInvalid
from snapjudge.store.files import write_file

Row = dict[str, Any]


def export_data(examples: Iterable[Example], metric: Metric, splits: Mapping[str, str], out: Path) -> int:
    """Write labelled examples as .jsonl, .csv or .parquet; returns how many. The file appears whole, or not at all.

    Args:
        splits: id -> split, written as a column of its own.

    Raises:
        OptionInvalid: another ending. StorageFailed, ExtraMissing.
    """
    if out.suffix not in _WRITERS:
        raise OptionInvalid(f"cannot write {out.suffix or 'a file without an ending'}", hint=f"one of {', '.join(_WRITERS)}", received=str(out))
    rows = [_row(example, metric, splits) for example in examples]
    write_file(out, _WRITERS[out.suffix](rows))
    return len(rows)


def _row(example: Example, metric: Metric, splits: Mapping[str, str]) -> Row:
    """A labelled example in the shape that `train` and `prove` read; a soft label as shares."""
    assert example.target is not None
    shares = {name: share for name, share in zip(metric.label_names, example.target, strict=True) if share}
    label = next(iter(shares)) if len(shares) == 1 else shares
    split = {"split": splits[example.id]} if example.id in splits else {}
    verdicts = {name: verdict.model_dump(exclude_none=True) for name, verdict in example.verdicts.items()}
    told = {"verdicts": verdicts} if verdicts else {}
    return {"id": example.id, "inputs": example.inputs, "label": label, "meta": example.provenance.model_dump(exclude_defaults=True), **told, **split}


def _jsonl(rows: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _flat(rows: Sequence[Row]) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a table; what is no text is JSON."""
    found = []
    for row in rows:
        plain = {"id": row["id"], **row["inputs"], "label": row["label"], **row["meta"], **({"split": row["split"]} if "split" in row else {})}
        for judge, verdict in row.get("verdicts", {}).items():
            plain |= {f"verdict.{judge}" + ("" if part == "label" else f".{part}"): value for part, value in verdict.items()}
        found.append({name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for name, value in plain.items()})
    return list(dict.fromkeys(name for row in found for name in row)), found


def _csv(rows: Sequence[Row]) -> bytes:
    columns, flat = _flat(rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or ["id"], restval="")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue().encode()


def _parquet(rows: Sequence[Row]) -> bytes:
    try:
        import pyarrow as arrow  # noqa: PLC0415 - an optional, heavy package
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as error:
        raise ExtraMissing("writing Parquet needs pyarrow", hint="pip install 'snapjudge[local]'") from error
    columns, flat = _flat(rows)
    buffer = io.BytesIO()
    parquet.write_table(arrow.table({name: [row.get(name) for row in flat] for name in columns}), buffer)
    return buffer.getvalue()


_WRITERS: dict[str, Callable[[Sequence[Row]], bytes]] = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
