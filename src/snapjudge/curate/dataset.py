"""A data set on disk: `examples.jsonl` and `labels.jsonl`, both only ever growing, joined when read.

`criteria.jsonl` beside them keeps a digest of the policy text of each criteria version, so that a text that changed without its version is noticed.
Knows nothing of where examples come from (`curate.importers`) or of how they are split (`curate.split`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from snapjudge.core.example import Example, content_key
from snapjudge.core.metric import Metric
from snapjudge.curate.journal import Appender, appending, read_journal
from snapjudge.curate.labels import CurrentLabel, current_labels, read_labels
from snapjudge.curate.read import SHOWN, Record, to_example
from snapjudge.errors import CriteriaChanged, DataInvalid, OptionInvalid, Problem

Disputed = Literal["leave", "shares"]


@dataclass(frozen=True)
class Dataset:
    """The files of a data set's folder."""

    folder: Path

    @property
    def examples(self) -> Path:
        """What is judged: one {"id", "inputs", "meta"} a line."""
        return self.folder / "examples.jsonl"

    @property
    def labels(self) -> Path:
        """Who called it what: one label event a line."""
        return self.folder / "labels.jsonl"

    @property
    def rejected(self) -> Path:
        """Rows that could not be imported, with the reason."""
        return self.folder / "rejected.jsonl"

    @property
    def criteria(self) -> Path:
        """Digests of the policy by criteria version."""
        return self.folder / "criteria.jsonl"

    @property
    def review(self) -> Path:
        """Rows that judges differ on, for a person to look at."""
        return self.folder / "review.jsonl"

    @property
    def test(self) -> Path:
        """The frozen test set."""
        return self.folder / "test.json"

    @property
    def metric(self) -> Path:
        """The metric file that commands use where none is given."""
        return self.folder / "metric.yaml"


def is_dataset(path: Path) -> bool:
    """Whether a path is a data set's folder."""
    return path.is_dir() and (path / "examples.jsonl").exists()


def read_dataset(dataset: Dataset, metric: Metric) -> list[Example]:
    """All examples, without labels.

    Raises:
        OptionInvalid: the folder holds no examples.
        DataInvalid: naming every line that the metric cannot read.
    """
    if not dataset.examples.exists():
        raise OptionInvalid(
            f"{dataset.folder} is no data set: there is no {dataset.examples.name} in it",
            hint="`snapjudge data import FILE DATASET` makes one",
            received=str(dataset.folder),
        )
    found: list[Example] = []
    problems: list[Problem] = []
    for number, line in enumerate(read_journal(dataset.examples).lines, 1):
        try:
            data = json.loads(line)
            problem = None if isinstance(data, dict) else Problem("(line)", type(data).__name__, "an object", number)
            found.append(to_example(Record(number, data if problem is None else None, problem), metric, dataset.examples.name))
        except DataInvalid as error:
            problems += error.problems
        except ValueError as error:
            problems.append(Problem("(line)", f"broken JSON ({error})", "an example, as `snapjudge data import` writes them", number))
    if problems:
        raise DataInvalid(
            str(dataset.examples), problems[:SHOWN], more=max(0, len(problems) - SHOWN), hint="import the rows again for this metric, with the fields it reads"
        )
    return found


@dataclass(frozen=True)
class Labelled:
    """The examples of a data set that have a label now, and how many were left out because of what.

    Args:
        current: what every example with any label is called, by id.
    """

    examples: tuple[Example, ...]
    unlabelled: int
    disputed: int
    stale: int
    current: Mapping[str, CurrentLabel]


def labelled(dataset: Dataset, metric: Metric, *, disputed: Disputed = "leave", leave_stale: bool = False) -> Labelled:
    """Examples with their current labels as targets.

    Args:
        disputed: leave disputed examples out, or give them the shares of their votes as a soft target.
        leave_stale: leave out what was labelled under older criteria than the metric's.

    Raises:
        DataInvalid: a label the metric does not have, or lines that cannot be read.
    """
    now = current_labels(read_labels(dataset.labels).events, metric.version)
    found, counts, problems = [], dict.fromkeys(("unlabelled", "disputed", "stale"), 0), []
    for example in read_dataset(dataset, metric):
        current = now.get(example.id)
        if current is None:
            counts["unlabelled"] += 1
        elif current.label is None and disputed == "leave":
            counts["disputed"] += 1
        elif current.stale and leave_stale:
            counts["stale"] += 1
        else:
            try:
                found.append(example.model_copy(update={"target": metric.target(dict(current.shares))}))
            except ValueError as error:
                problems.append(Problem(f"{example.where}: label", str(error), f"labels of {metric.name}"))
    if problems:
        raise DataInvalid(
            str(dataset.labels), problems[:SHOWN], more=max(0, len(problems) - SHOWN), hint="label these examples again under the metric's labels"
        )
    return Labelled(tuple(found), **counts, current=now)


def row_of(example: Example, metric: Metric) -> dict[str, Any]:
    """A labelled example as a line of a file: {"id", "inputs", "label", "meta"}."""
    meta = example.provenance.model_dump(exclude_defaults=True)
    return {"id": example.id, "inputs": example.inputs, "label": metric.label_names[example.label_index], "meta": meta}


class ExampleWriter:
    """A data set's examples held open under their lock."""

    def __init__(self, dataset: Dataset, journal: Appender) -> None:
        self._journal = journal
        self.known: dict[str, str] = {}
        for number, line in enumerate(journal.known.lines, 1):
            try:
                row = json.loads(line)
                self.known[row["id"]] = content_key(row["inputs"])
            except (ValueError, KeyError, TypeError) as error:
                problem = Problem("(line)", f"no example ({error})", 'an object {"id", "inputs", "meta"}', number)
                raise DataInvalid(str(dataset.examples), [problem], hint="correct this line, or move it out of the file") from error

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append rows {"id", "inputs", "meta"}; the caller has checked them."""
        self._journal.add(json.dumps(row, ensure_ascii=False).encode() for row in rows)


@contextmanager
def writing(dataset: Dataset) -> Iterator[ExampleWriter]:
    """Add examples; other writers wait, people who label do not.

    Raises:
        StorageFailed, DataInvalid.
    """
    with appending(dataset.examples) as journal:
        yield ExampleWriter(dataset, journal)


def add_to_review(dataset: Dataset, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows {"id", "reason", ...} to the review queue that are not in it."""
    with appending(dataset.review) as journal:
        known = {json.loads(line)["id"] for line in journal.known.lines}
        journal.add(json.dumps(row, ensure_ascii=False).encode() for row in rows if row["id"] not in known)


def check_criteria(dataset: Dataset, metric: Metric) -> None:
    """Note the metric's policy text under its version; refuse a text that changed while the version stayed.

    Raises:
        CriteriaChanged: labels made before and after would follow different criteria under one version.
    """
    digest = criteria_digest(metric)
    with appending(dataset.criteria) as journal:
        known = {row["version"]: row["digest"] for row in map(json.loads, journal.known.lines)}
        if metric.version not in known:
            journal.add([json.dumps({"version": metric.version, "digest": digest}).encode()])
        elif known[metric.version] != digest:
            raise CriteriaChanged(
                f"the policy of {metric.name} has changed since labels were made under its version {metric.version}",
                hint=f"set `version: {max(known) + 1}` in the metric file; older labels are then shown as stale",
                received=metric.version,
            )


def criteria_digest(metric: Metric) -> str:
    """What people label by: question, policy and labels. Line breaks and spacing do not count."""
    text = json.dumps([" ".join(metric.question.split()), " ".join(metric.policy.split()), sorted(metric.labels)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
