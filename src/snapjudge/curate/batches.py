"""Batches of synthetic rows: they wait beside a data set until a person has looked at a random sample of them. Knows nothing of how rows are made."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.curate.dataset import Dataset, row_of
from snapjudge.curate.journal import appending, read_journal
from snapjudge.errors import OptionInvalid, RunConflict

SAMPLE = 40
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,80}")


@dataclass(frozen=True)
class Batch:
    """The files of a batch: rows with the label they claim, the ids a person is to look at, and what the person said."""

    folder: Path

    @property
    def rows(self) -> Path:
        """{"id", "inputs", "meta", "label"} a line."""
        return self.folder / "rows.jsonl"

    @property
    def sample(self) -> Path:
        """Ids to be verified, drawn at random."""
        return self.folder / "sample.json"

    @property
    def verdicts(self) -> Path:
        """{"id", "right", "by"} a line."""
        return self.folder / "verdicts.jsonl"

    @property
    def used(self) -> Path:
        """There once the rows have gone into the data set."""
        return self.folder / "used.json"


def batch_of(dataset: Dataset, name: str) -> Batch:
    """A batch that is there.

    Raises:
        OptionInvalid: listing those that are.
    """
    check_name(name)
    batch = Batch(dataset.folder / "batches" / name)
    if not batch.rows.exists():
        known = sorted(path.name for path in (dataset.folder / "batches").glob("*"))
        raise OptionInvalid(
            f"there is no batch {name!r}", hint=f"there are {', '.join(known)}" if known else "`snapjudge data synthesise` makes one", received=name
        )
    return batch


def check_name(name: str) -> None:
    """Refuse a batch's name that would lie elsewhere.

    Raises:
        OptionInvalid.
    """
    if not _NAME.fullmatch(name):
        raise OptionInvalid(
            f"{name!r} cannot be a batch's name", hint="letters, digits, dots, dashes and underscores, beginning with a letter or digit", received=name
        )


def write_batch(dataset: Dataset, name: str, examples: Sequence[Example], metric: Metric, *, sample: int, seed: int) -> Batch:
    """Write a batch and draw its sample.

    Raises:
        RunConflict: a batch of that name is there. OptionInvalid: no rows, or a name that is no name of a folder.
    """
    check_name(name)
    batch = Batch(dataset.folder / "batches" / name)
    if batch.rows.exists():
        raise RunConflict(f"a batch {name} is there already", hint="choose another --name")
    if not examples:
        raise OptionInvalid("no rows came out", hint="see the counts above; other rows, another kind or a larger plan")
    ids = [example.id for example in examples]
    chosen = random.Random(seed).sample(ids, min(sample, len(ids)))  # noqa: S311 - a reproducible sample
    batch.folder.mkdir(parents=True, exist_ok=True)
    batch.sample.write_text(json.dumps(chosen), encoding="utf-8")
    with appending(batch.rows) as journal:  # last: a batch without rows is none
        journal.add(json.dumps(row_of(example, metric), ensure_ascii=False).encode() for example in examples)
    return batch


def read_rows(batch: Batch) -> list[dict[str, Any]]:
    """The rows of a batch."""
    return [json.loads(line) for line in read_journal(batch.rows).lines]


def open_sample(batch: Batch) -> list[dict[str, Any]]:
    """The rows of the sample that nobody has looked at yet, in the order they were drawn."""
    seen = {row["id"] for row in verdicts_of(batch)}
    rows = {row["id"]: row for row in read_rows(batch)}
    return [rows[name] for name in json.loads(batch.sample.read_text(encoding="utf-8")) if name not in seen]


def verdicts_of(batch: Batch) -> list[dict[str, Any]]:
    """What was said of the sample, the latest word on each row."""
    return list({row["id"]: row for row in map(json.loads, read_journal(batch.verdicts).lines)}.values())


def add_verdict(batch: Batch, row_id: str, *, right: bool, by: str) -> None:
    """Note what a person said of a row."""
    with appending(batch.verdicts) as journal:
        journal.add([json.dumps({"id": row_id, "right": right, "by": by}).encode()])
