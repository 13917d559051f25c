"""The bodies of what is judged later: observations, files, batches and schedules. The same values on both sides of the wire."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import AnyHttpUrl, Field, model_validator

from snapjudge.core.api import MOST_ITEMS, MOST_JUDGES, Answer, Item
from snapjudge.core.frozen import Frozen
from snapjudge.core.metric import INPUT_NAMES
from snapjudge.core.question import OpenQuestion

BatchState = Literal["queued", "running", "done", "cancelled", "failed"]


class Whom(Frozen):
    """Who is asked: judges by name, version or alias, and open questions."""

    judges: tuple[str, ...] = Field(default=(), max_length=MOST_JUDGES, examples=[["toxicity", "tone@1"]])
    questions: tuple[OpenQuestion, ...] = Field(default=(), max_length=MOST_JUDGES)

    @model_validator(mode="after")
    def _somebody(self) -> "Whom":
        if not self.judges and not self.questions:
            raise ValueError("nobody is asked: name `judges` or put `questions`")
        return self


class ObservationRequest(Whom):
    """Items to be judged later. An item with an `id` that this key has sent before is taken for the same, so that a call may be repeated."""

    items: tuple[Item, ...] = Field(min_length=1, max_length=MOST_ITEMS, examples=[[{"id": "call-17", "inputs": {"output": "Click on Forgot password."}}]])


class ObservationsTaken(Frozen):
    """The observations' numbers, in order. They are on the server's disk."""

    request_id: str
    observations: tuple[str, ...]


class Observation(Frozen):
    """One observation: it waits, or was judged."""

    observation: str
    id: str = Field(default="", description="the caller's own")
    source: str = ""
    state: Literal["waiting", "judged", "failed"]
    taken_at: datetime
    judged_at: datetime | None = None
    answers: tuple[Answer, ...] = ()
    error: dict[str, Any] | None = None
    inputs: dict[str, Any] | None = Field(default=None, description="where the server keeps texts")
    place: int = Field(default=0, description="in the record; `after=` it lists what was judged since")


class ObservationList(Frozen):
    """What was judged, in the order in which it was; `next` is where to go on."""

    observations: tuple[Observation, ...]
    next: int


class StoredFile(Frozen):
    """A file on the server: `.jsonl` (also without an ending), `.csv`, `.tsv` or `.parquet`."""

    file: str
    name: str
    bytes: int
    made_at: datetime


class FileList(Frozen):
    """A key's files, the newest first."""

    files: tuple[StoredFile, ...]


class WebhookTerms(Frozen):
    """Whom to tell when a batch has ended: signed, tried again for about a day, at least once (`event` tells a second time)."""

    url: AnyHttpUrl
    secret_env: str = Field(default="", description="environment variable of the server with the secret that signs what is sent")


class BatchRequest(Whom):
    """Judge the records of a file, or of some items."""

    file: str = Field(default="", description="a file of this server (`POST /v1/files`)", examples=["file_0123"])
    path: str = Field(default="", description="instead: a file in the server's `--inbox` folder, which it is read from when the batch begins")
    items: tuple[Item, ...] = Field(default=(), max_length=MOST_ITEMS, description="instead: some items")
    mapping: dict[str, str] = Field(default_factory=dict, description="field -> column, where a file names them otherwise", examples=[{"output": "answer"}])
    webhook: WebhookTerms | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "BatchRequest":
        if sum(map(bool, (self.file, self.path, self.items))) != 1:
            raise ValueError("one of `file`, `path` and `items` says what is judged")
        if odd := sorted(set(self.mapping) - {*INPUT_NAMES, "id", "source"}):
            raise ValueError(f"mapping: {odd[0]} is no field: one of {', '.join(INPUT_NAMES)}, id, source")
        return self


class Batch(Frozen):
    """How a batch stands."""

    batch: str
    state: BatchState
    total: int | None = Field(default=None, description="records, once they are counted")
    done: int = 0
    abstained: int = Field(default=0, description="answers that are abstentions, and records that could not be read")
    flagged: int = 0
    made_at: datetime
    begun_at: datetime | None = None
    ended_at: datetime | None = None
    eta_s: float | None = Field(default=None, description="seconds that it still needs, at its pace so far")
    schedule: str = ""
    error: dict[str, Any] | None = None


class BatchList(Frozen):
    """A key's batches, the newest first."""

    batches: tuple[Batch, ...]


class BatchLine(Frozen):
    """One line of a batch's results: a record's answers, or why it could not be read."""

    line: int
    id: str = ""
    answers: tuple[Answer, ...] = ()
    problem: str = ""


class ScheduleRequest(Frozen):
    """A batch for later: once, or again and again. What was missed while no server ran is made up for once."""

    batch: BatchRequest
    first_at: datetime = Field(description="with its offset from UTC", examples=["2026-12-24T02:00:00+01:00"])
    every_s: float | None = Field(default=None, ge=60, le=366 * 86400, description="seconds from one to the next; once, where it is not said")

    @model_validator(mode="after")
    def _certain(self) -> "ScheduleRequest":
        if self.first_at.tzinfo is None:
            raise ValueError("first_at: a time without its offset from UTC")
        if self.batch.items and self.every_s is not None:
            raise ValueError("the same items would be judged again and again: name a `path` or a `file`")
        return self


class Schedule(Frozen):
    """A batch for later."""

    schedule: str
    next_at: datetime | None = Field(default=None, description="None once it has had its only turn")
    every_s: float | None = None
    batch: Mapping[str, Any]


class ScheduleList(Frozen):
    """A key's schedules."""

    schedules: tuple[Schedule, ...]


class Review(Frozen):
    """Something that people are to look at, and what was said of it."""

    review: str
    queue: str
    policy: str
    stage: str
    reasons: tuple[str, ...] = Field(description="of a route: its condition and the judge; of an action: `escalate`")
    inputs: dict[str, Any]
    source: str = ""
    answers: tuple[Answer, ...] = ()
    made_at: datetime
    decision: dict[str, Any] | None = None
    decided_by: str = ""
    decided_at: datetime | None = None
    place: int = 0


class ReviewList(Frozen):
    """Reviews, the oldest first; `next` is where to go on."""

    reviews: tuple[Review, ...]
    next: int


class ReviewDecision(Frozen):
    """What somebody says of it."""

    label: str = Field(min_length=1, max_length=256, examples=["fine"])
    note: str = Field(default="", max_length=4096)
