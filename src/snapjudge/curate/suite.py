"""A regression suite: rows that some judge got wrong and people have settled. Once a judge has got a row right, none may lose it again.

A file of JSON lines that only grows: a row as it was added, and who first held it. Knows nothing of models.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.curate.dataset import row_of
from snapjudge.curate.journal import appending, read_journal
from snapjudge.curate.read import Record, to_example
from snapjudge.errors import DataInvalid, OptionInvalid, Problem


@dataclass(frozen=True)
class Suite:
    """The rows of a suite, and by id the judge that first got each right; a row nobody got right yet is open."""

    examples: tuple[Example, ...]
    held: Mapping[str, str]

    @property
    def open(self) -> list[str]:
        """Ids of rows that no judge got right yet."""
        return [example.id for example in self.examples if example.id not in self.held]


def read_suite(path: Path, metric: Metric) -> Suite:
    """All rows of a suite; a file that does not exist has none.

    Raises:
        DataInvalid: a line that is neither a row nor who holds it.
    """
    rows: dict[str, Example] = {}
    held: dict[str, str] = {}
    for number, line in enumerate(read_journal(path).lines, 1):
        try:
            data = json.loads(line)
            if "held" in data:
                held.setdefault(str(data["held"]), str(data["by"]))
                continue
        except (ValueError, TypeError, KeyError) as error:
            raise DataInvalid(path.name, [Problem("(line)", f"{error}", "a row of a suite", number)], hint="correct this line, or move it out") from error
        example = to_example(Record(number, data), metric, path.name)
        if example.target is None:
            raise DataInvalid(path.name, [Problem("label", "nothing", "the settled label", number)], hint="every row of a suite has a label")
        rows.setdefault(example.id, example)
    return Suite(tuple(rows.values()), held)


def filled_suite(path: Path, metric: Metric) -> Suite:
    """A suite that a judge can be held against.

    Raises:
        OptionInvalid: there is none, or it holds no rows. DataInvalid: as `read_suite`.
    """
    suite = read_suite(path, metric)
    if not suite.examples:
        what = f"{path} holds no rows" if path.exists() else f"{path} is not there, so that it holds no rows"
        raise OptionInvalid(what, hint="`snapjudge suite grow` fills a suite from settled errors", received=str(path))
    return suite


def add_rows(path: Path, examples: Iterable[Example], metric: Metric) -> int:
    """Add settled rows that the suite does not hold; returns how many."""
    with appending(path) as journal:
        known = {row.get("id") for row in map(json.loads, journal.known.lines)}
        new = [row_of(example, metric) for example in examples if example.id not in known]
        journal.add(json.dumps(row, ensure_ascii=False).encode() for row in new)
    return len(new)


def hold(path: Path, names: Iterable[str], judge: str) -> None:
    """Note that a judge got rows right for the first time."""
    with appending(path) as journal:
        known = {row.get("held") for row in map(json.loads, journal.known.lines)}
        journal.add(json.dumps({"held": name, "by": judge}).encode() for name in names if name not in known)
