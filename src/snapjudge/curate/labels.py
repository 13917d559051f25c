"""Labels are events: who called which example what, when, under which criteria. A file of them only ever grows; the current label is derived.

Several processes may append at once. A line cut short by a crash is set aside beside the file and told; everything before it stays.
Knows label names as text; nothing of examples' contents or of models.
"""

import fcntl
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import AwareDatetime, Field, ValidationError

from snapjudge.core.frozen import Frozen
from snapjudge.curate.agreement import MISSING, Ints
from snapjudge.curate.read import SHOWN
from snapjudge.errors import DataInvalid, InputInvalid, Problem, StorageFailed

Source = Literal["production", "synthetic", "expert", "public", "consensus"]
State = Literal["adjudicated", "agreed", "single", "disputed"]


class LabelEvent(Frozen):
    """One person, model or rule calling one example something."""

    example: str = Field(min_length=1, description="the example's id")
    label: str = Field(min_length=1)
    labeler: str = Field(min_length=1, description="who or what said so")
    time: AwareDatetime
    criteria_version: int | None = Field(default=None, ge=1, description="the metric's version whose policy was applied")
    rationale: str = ""
    confidence: float | None = Field(default=None, ge=0, le=1)
    source: Source = "expert"
    adjudication: bool = Field(default=False, description="settles what the votes left open")

    @property
    def key(self) -> tuple[str, str, str, datetime, bool]:
        """What makes it the same event: appended twice, it counts once."""
        return self.example, self.label, self.labeler, self.time, self.adjudication


@dataclass(frozen=True)
class CurrentLabel:
    """What an example is called now.

    Args:
        label: None while disputed.
        state: settled by the latest adjudication, else agreed by all labelers' latest votes, a single vote, or disputed.
        stale: made under older criteria than the ones asked about.
        votes: each labeler's latest vote.
    """

    label: str | None
    state: State
    stale: bool
    votes: Mapping[str, str]


@dataclass(frozen=True)
class LabelFile:
    """The events of a file in its order, the bytes of its whole lines, and the line that was cut short, if one was."""

    events: tuple[LabelEvent, ...]
    length: int
    cut: str | None = None


def read_labels(path: Path) -> LabelFile:
    """All events of a file; one that does not exist has none.

    Raises:
        DataInvalid: naming every line that is no event.
    """
    raw = path.read_bytes() if path.exists() else b""
    *lines, rest = raw.split(b"\n")
    events, problems = [], []
    for number, line in enumerate(lines, 1):
        try:
            events.append(LabelEvent.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "line"
            problems.append(Problem(f"{path}:{number}: {where}", first["msg"], "a label event, as `snapjudge data label` writes them"))
    if problems:
        raise DataInvalid("labels", problems[:SHOWN], more=max(0, len(problems) - SHOWN), hint="correct these lines, or move them out of the file")
    return LabelFile(tuple(events), len(raw) - len(rest), rest.decode(errors="replace") or None)


def append_labels(path: Path, events: Iterable[LabelEvent]) -> int:
    """Add events that the file does not hold yet; returns how many. What a crash cut short goes to `NAME.cut` first.

    Raises:
        DataInvalid: the file holds lines that are no events; nothing is added.
        StorageFailed: the disk is full, or the file may not be written; nothing is added.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            known = read_labels(path)
            if known.cut is not None:
                with path.with_name(f"{path.name}.cut").open("a", encoding="utf-8") as aside:
                    aside.write(known.cut + "\n")
                file.truncate(known.length)
            keys = {event.key for event in known.events}
            new = [event for event in {event.key: event for event in events}.values() if event.key not in keys]
            try:
                file.write(b"".join(event.model_dump_json(exclude_defaults=True).encode() + b"\n" for event in new))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), known.length)
                raise
    except OSError as error:
        raise StorageFailed(f"cannot add to {path}: {error.strerror or error}", hint="free space or choose another place; nothing was added") from error
    return len(new)


def current_labels(events: Sequence[LabelEvent], criteria_version: int | None = None) -> dict[str, CurrentLabel]:
    """What each example is called now, in the order the examples were first labelled.

    Args:
        criteria_version: the metric's version now; labels made under an older one are stale.
    """
    by_example: dict[str, list[LabelEvent]] = {}
    for event in events:
        by_example.setdefault(event.example, []).append(event)
    return {example: _current(some, criteria_version) for example, some in by_example.items()}


def vote_matrix(events: Sequence[LabelEvent], labels: Sequence[str]) -> tuple[list[str], list[str], Ints]:
    """Examples, labelers, and each labeler's latest vote for each example [N, R] as a label's place; adjudications are no votes.

    Raises:
        InputInvalid: a vote for a label that is not among `labels`.
    """
    places = {label: place for place, label in enumerate(labels)}
    votes = [event for event in sorted(events, key=lambda event: event.time) if not event.adjudication]
    unknown = sorted({event.label for event in votes} - set(places))
    if unknown:
        raise InputInvalid(f"votes for labels the metric does not have: {', '.join(unknown[:5])}", hint=f"its labels are {', '.join(labels)}")
    examples, labelers = list(dict.fromkeys(event.example for event in votes)), sorted({event.labeler for event in votes})
    rows, columns = ({name: place for place, name in enumerate(names)} for names in (examples, labelers))
    found = np.full((len(examples), len(labelers)), MISSING, dtype=np.int64)
    for event in votes:
        found[rows[event.example], columns[event.labeler]] = places[event.label]
    return examples, labelers, found


def _current(events: Sequence[LabelEvent], criteria_version: int | None) -> CurrentLabel:
    """The latest adjudication, else what all latest votes agree on, else nothing."""
    in_time = sorted(events, key=lambda event: event.time)
    votes = {event.labeler: event for event in in_time if not event.adjudication}
    settled = [event for event in in_time if event.adjudication]
    named = {labeler: event.label for labeler, event in votes.items()}
    deciding = settled[-1:] or list(votes.values())
    stale = criteria_version is not None and any((event.criteria_version or 0) < criteria_version for event in deciding)
    if settled:
        return CurrentLabel(settled[-1].label, "adjudicated", stale, named)
    if len(set(named.values())) > 1:
        return CurrentLabel(None, "disputed", stale, named)
    return CurrentLabel(deciding[0].label, "single" if len(votes) == 1 else "agreed", stale, named)
