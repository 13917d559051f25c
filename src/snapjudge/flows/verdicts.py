"""Score files: what `snapjudge score` wrote, as arrays. Abstentions are counted, never guessed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snapjudge.core.example import plain_text
from snapjudge.curate.read import SHOWN, records
from snapjudge.errors import DataInvalid, OptionInvalid, Problem


@dataclass(frozen=True)
class Verdicts:
    """One judge's answers to a file, in its order: ids, labels, scores [N], confidence [N], flags [N]; and how many rows it abstained from."""

    judge: str
    ids: Sequence[str]
    labels: Sequence[str]
    scores: NDArray[np.float64]
    confidence: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    abstained: int


def read_verdicts(path: Path, judge: str | None = None) -> Verdicts:
    """The answers of one judge in a score file.

    Args:
        judge: which, by name or name@version, where the file has several.

    Raises:
        DataInvalid: lines that no `score` wrote, or an id twice. OptionInvalid: which judge is not clear.
    """
    rows, problems, abstained = [], [], 0
    seen: dict[str, set[str]] = {}
    if not path.exists():
        raise OptionInvalid(f"there is no file {path}", hint="`snapjudge score FILE --judge J --out SCORES` writes it", received=str(path))
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            try:
                row = json.loads(raw)
                name, row_id = row["judge"], str(row["id"])
                if judge is not None and judge not in (name, name.partition("@")[0]):
                    continue
                if row_id in seen.setdefault(name, set()):
                    raise ValueError(f"id {row_id!r} twice")
                seen[name].add(row_id)
                if row["score"] is None:
                    abstained += 1
                else:
                    rows.append((name, row_id, str(row["label"]), float(row["score"]), float(row["confidence"]), bool(row["flagged"])))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                problems.append(Problem("(line)", f"{type(error).__name__}: {error}", "a line of `snapjudge score`", number))
    if problems:
        raise DataInvalid(
            path.name, problems[:SHOWN], more=max(0, len(problems) - SHOWN), hint="`snapjudge score FILE --judge J --out SCORES` writes such a file"
        )
    if len(seen) != 1:
        told = ", ".join(sorted(seen)) or "nobody"
        raise OptionInvalid(f"{path.name} has answers of {told}", hint="say which judge with --judge", received=judge)
    _, ids, labels, scores, confidence, flagged = zip(*rows, strict=True) if rows else ((),) * 6
    return Verdicts(next(iter(seen)), ids, labels, np.array(scores, dtype=float), np.array(confidence, dtype=float), np.array(flagged, dtype=bool), abstained)


def texts_by_id(path: Path, wanted: Sequence[str]) -> list[str]:
    """The texts of some rows of a data file, in the order of their ids; empty where a row is not there."""
    known = {record.id: plain_text(record.data["inputs"]) for record in records(path) if record.data and isinstance(record.data.get("inputs"), dict)}
    return [known.get(name, "") for name in wanted]
