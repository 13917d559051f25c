"""The labelled rows of a task: read from files of JSON lines, each line checked. Knows nothing of how they are drawn or asked about."""

import ast
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapjudge.core.example import check_inputs, plain_text
from snapjudge.core.metric import INPUT_NAMES
from snapjudge.curate.read import SHOWN, records
from snapjudge.curate.recipe import Task
from snapjudge.errors import DataInvalid, InputInvalid, Problem

_TRUTH = {"true": "True", "false": "False"}
_UNLABELLED = "None"


@dataclass(frozen=True)
class Row:
    """A labelled content of one task; `line` tells where in its file it stands."""

    inputs: Mapping[str, Any]
    label: str
    categories: tuple[str, ...]
    file: str
    group: str
    answer: bool | None = None  # to the task's own questions
    licence: str = ""
    line: int = 0


def read_rows(path: Path, name: str) -> list[Row]:
    """The rows of a file of JSON lines, not yet of any task.

    Raises:
        DataInvalid: every line that cannot be read, or holds no content, with its number.
    """
    rows, problems = list[Row](), list[Problem]()
    for record in records(path):
        if record.data is None:
            problems += [record.problem] if record.problem is not None else []
            continue
        try:
            inputs = check_inputs(record.data["inputs"], INPUT_NAMES, INPUT_NAMES)
            rows.append(_row(record.data, inputs, name, record.line))
        except InputInvalid as error:
            problems.append(Problem("inputs", error.message, "fields such as output, with text", record.line))
        except (ValueError, SyntaxError):
            problems.append(Problem("meta.category", repr(record.data["meta"]["category"])[:80], "a name, or a list of names", record.line))
    _refuse(path.name, problems)
    return rows


def check_labels(file: str, rows: Sequence[Row], task: Task) -> None:
    """Refuse rows whose label does not answer what their task asks.

    Raises:
        DataInvalid: every line without a label or, where yes is `True` and nothing else is asked about labels, with one that is neither true nor false.
    """
    if not task.questions and not task.asks_label:
        return
    truth = task.yes in _TRUTH.values() and not task.asks_label
    problems = []
    for row in rows:
        if row.label == _UNLABELLED:
            problems.append(Problem("label", "nothing", f"a label, such as {task.yes}", row.line))
        elif truth and row.label not in _TRUTH.values():
            problems.append(Problem("label", repr(row.label), "true or false; `yes` in the recipe names another label that answers yes", row.line))
    _refuse(file, problems)


def benign_rows(task: Task, rows: Iterable[Row]) -> list[Row]:
    """Rows of another file as ones whose answer to the task's questions is no."""
    no = "False" if task.yes == "True" else "no"
    found = []
    for row in rows:
        text = row.inputs.get("input") or row.inputs.get("output")
        if isinstance(text, str):
            found.append(Row({place_of(task, text): text}, no, (), row.file, f"{row.file}:{text}", answer=False, licence=row.licence))
    return found


def place_of(task: Task, text: str) -> str:
    """The field a text without one of its own goes to."""
    return task.inputs[number_of(text, len(task.inputs))] if task.inputs else "output"


def number_of(text: str, below: int) -> int:
    """A whole number below `below` that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]) % below


def _row(data: Mapping[str, Any], inputs: Mapping[str, Any], file: str, line: int) -> Row:
    meta = data.get("meta") or {}
    raw = str(meta.get("category") or "None")
    categories = tuple(map(str, ast.literal_eval(raw))) if raw.startswith("[") else (raw,)
    label = str(data.get("label"))
    group = str(meta.get("group") or plain_text(inputs))
    return Row(inputs, _TRUTH.get(label.lower(), label), categories, file, group, licence=str(meta.get("licence") or ""), line=line)


def _refuse(file: str, problems: Sequence[Problem]) -> None:
    if problems:
        raise DataInvalid(file, problems[:SHOWN], more=max(0, len(problems) - SHOWN), hint="correct the lines named, or leave them out")
