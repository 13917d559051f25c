"""Labels are events: who called which example what, when, under which criteria. A file of them only ever grows; the current label is derived.

Several processes may append at once. A line cut short by a crash is set aside beside the file and told; everything before it stays.
Knows label names as text; nothing of examples' contents or of models.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from pydantic import AwareDatetime, Field, ValidationError

from snapjudge.core.frozen import Frozen
from snapjudge.curate.agreement import MISSING, Ints
from snapjudge.curate.journal import Journal, appending, read_journal
from snapjudge.curate.read import SHOWN
from snapjudge.errors import DataInvalid, InputInvalid, OptionInvalid, Problem

Source = Literal["production", "synthetic", "expert", "public", "consensus"]
PEOPLE: tuple[Source, ...] = ("expert", "public", "production")
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
    shares: dict[str, float] | None = Field(
        default=None, description="label -> share, where a labeler gives more than one label its due (votes, probabilities)"
    )

    @property
    def key(self) -> tuple[object, ...]:
        """What makes it the same event: appended twice, it counts once."""
        return *self.timeless_key, self.time

    @property
    def timeless_key(self) -> tuple[object, ...]:
        """The same for events whose time is not known: who called what what, under which criteria."""
        return self.example, self.label, self.labeler, self.adjudication, self.criteria_version


def source_named(name: str) -> Source:
    """A source by its name.

    Raises:
        OptionInvalid: listing those there are.
    """
    for one in get_args(Source):
        if one == name:
            return one  # type: ignore[no-any-return]  # get_args forgets the literal
    raise OptionInvalid(f"there is no source {name!r}", hint=f"one of {', '.join(get_args(Source))}", received=name)


@dataclass(frozen=True)
class CurrentLabel:
    """What an example is called now.

    Args:
        label: None while disputed.
        state: settled by the latest adjudication, else agreed by all labelers' latest votes, a single vote, or disputed.
        stale: made under older criteria than the ones asked about.
        votes: each labeler's latest vote.
        by_people: whether all that decide are labels of people (expert, public, production), none synthetic or of a consensus.
        shares: of the labels: what the deciding labelers said on average; for a disputed example, the shares of the votes.
    """

    label: str | None
    state: State
    stale: bool
    votes: Mapping[str, str]
    shares: Mapping[str, float]
    by_people: bool


@dataclass(frozen=True)
class LabelFile:
    """The events of a file in its order, and the line that was cut short, if one was."""

    events: tuple[LabelEvent, ...]
    cut: str | None = None


def read_labels(path: Path) -> LabelFile:
    """All events of a file; one that does not exist has none.

    Raises:
        DataInvalid: naming every line that is no event.
    """
    return _parsed(path, read_journal(path))


def _parsed(path: Path, journal: Journal) -> LabelFile:
    events, problems = [], []
    for number, line in enumerate(journal.lines, 1):
        try:
            events.append(LabelEvent.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "line"
            problems.append(Problem(f"{path}:{number}: {where}", first["msg"], "a label event, as `snapjudge data label` writes them"))
    if problems:
        raise DataInvalid("labels", problems[:SHOWN], more=max(0, len(problems) - SHOWN), hint="correct these lines, or move them out of the file")
    return LabelFile(tuple(events), journal.cut)


def append_labels(path: Path, events: Iterable[LabelEvent], *, ignore_time: bool = False) -> int:
    """Add events that the file does not hold yet; returns how many. What a crash cut short goes to `NAME.cut` first.

    Args:
        ignore_time: events without a time of their own are known where they are the labeler's latest word on the example.

    Raises:
        DataInvalid: the file holds lines that are no events; nothing is added.
        StorageFailed: the disk is full, or the file may not be written; nothing is added.
    """
    with appending(path) as journal:
        known = _parsed(path, journal.known).events
        keys = {event.key for event in known}
        latest = {(event.example, event.labeler, event.adjudication): event.timeless_key for event in sorted(known, key=lambda event: event.time)}
        new = []
        for event in events:
            place = event.example, event.labeler, event.adjudication
            if latest.get(place) == event.timeless_key if ignore_time else event.key in keys:
                continue
            keys.add(event.key)
            latest[place] = event.timeless_key
            new.append(event)
        journal.add(event.model_dump_json(exclude_defaults=True).encode() for event in new)
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
    shares, by_people = _shares(deciding), all(event.source in PEOPLE for event in deciding)
    if settled:
        return CurrentLabel(settled[-1].label, "adjudicated", stale, named, shares, by_people)
    if len(set(named.values())) > 1:
        return CurrentLabel(None, "disputed", stale, named, shares, by_people)
    return CurrentLabel(deciding[0].label, "single" if len(votes) == 1 else "agreed", stale, named, shares, by_people)


def _shares(events: Sequence[LabelEvent]) -> dict[str, float]:
    """The mean of what some labelers said, each as shares of the labels."""
    total: dict[str, float] = {}
    for event in events:
        own = event.shares or {event.label: 1.0}
        whole = sum(own.values()) or 1.0
        for label, share in own.items():
            total[label] = total.get(label, 0.0) + share / whole / len(events)
    return total
