"""Batches: a file's records judged one after another, written down as they are, and gone on with wherever a stop or a kill has left them.

A batch's results lie in a file. How much of it counts stands in the database, put down after what it speaks of is on the disk: what comes after that is cut
off by whoever goes on, so that no record is judged twice in the results and none is left out. Knows nothing of HTTP.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sa

from snapjudge.core.api import Answer, Item
from snapjudge.core.later import BatchLine, BatchRequest
from snapjudge.curate.read import Record, records
from snapjudge.errors import EngineBusy, EngineFailed, NotFound, SnapjudgeError
from snapjudge.live.judges import LiveJudges
from snapjudge.live.judging import Asked
from snapjudge.live.later import asked_of, room
from snapjudge.live.rounds import PAUSE, Rounds
from snapjudge.store.files import storage_errors
from snapjudge.store.records import batches
from snapjudge.store.records.database import Database

TOGETHER = 32  # records between two writes
LEASE_SECONDS = 120.0
LOOK_EVERY = 1.0
Told = Callable[[sa.Connection, Any, str], None]


class Batches:
    """One server's; one batch at a time. For one event loop.

    Args:
        folder: with `files` and `results`.
        inbox: where `path`s lead to.
        judged: is told all answers.
        told: puts down, in the transaction that ends a batch, whom that is to be told.

    Attributes:
        wake: says that a batch was made, or goes on.
    """

    def __init__(
        self, judges: LiveJudges, database: Database, holder: str, folder: Path, inbox: Path | None, judged: Callable[[Sequence[Answer]], None], told: Told
    ) -> None:
        self._judges, self._database, self._holder, self._folder, self._inbox = judges, database, holder, folder, inbox
        self._judged, self._told = judged, told
        self._rounds = Rounds("batches", self._next, LOOK_EVERY)
        self.wake = self._rounds.wake

    def results(self, number: str) -> Path:
        """The file of a batch's results."""
        return self._folder / "results" / f"{number}.jsonl"

    def file(self, number: str, name: str) -> Path:
        """A stored file."""
        suffix = Path(name).suffix.lower()
        return self._folder / "files" / f"{number}{suffix if suffix in ('.csv', '.tsv', '.parquet') else '.jsonl'}"

    def from_inbox(self, path: str) -> Path:
        """A file of the inbox folder.

        Raises:
            NotFound: there is no inbox, or the path leads out of it, or to nothing.
        """
        if self._inbox is None:
            raise NotFound("this server has no inbox", hint="start it with --inbox FOLDER, or send the file (POST /v1/files)", received=path)
        found = (self._inbox / path.replace("\0", "")).resolve()
        if not found.is_relative_to(self._inbox.resolve()) or not found.is_file():
            raise NotFound(f"no file {path!r} in the server's inbox", hint="a path below the inbox folder", received=path)
        return found

    async def run(self) -> None:
        """Work until cancelled; what is not done then is gone on with later."""
        try:
            await self._rounds.run()
        finally:
            await self._database.write(lambda connection: batches.give_back(connection, self._holder))

    async def _next(self) -> bool:
        """Make the batches whose time has come, and go on with the oldest; whether there was one."""
        now = time.time()

        def leased(connection: sa.Connection) -> Any:
            batches.come_due(connection, now)
            return batches.lease(connection, self._holder, now + LEASE_SECONDS, now)

        batch = await self._database.write(leased)
        if batch is not None:
            await self._work(batch)
        return batch is not None

    async def _work(self, batch: Any) -> None:
        """Go on with a batch until it ends, or is taken away."""
        try:
            request = BatchRequest.model_validate(batch.request)
            if not await self._records(batch, request, asked_of(self._judges, batch.asked)):
                return
            state, error = "done", None
        except SnapjudgeError as failure:
            state, error = "failed", failure.as_dict()

        def ended(connection: sa.Connection) -> None:
            if batches.end(connection, self._holder, batch.id, state, time.time(), error):
                self._told(connection, batch, state)

        await self._database.write(ended)

    async def _records(self, batch: Any, request: BatchRequest, asked: Asked) -> bool:
        """Judge what is left of it; False where it was taken away."""
        source = None if request.items else await self._source(batch.owner, request)
        total = batch.total
        if total is None:
            total = len(request.items) if source is None else await asyncio.to_thread(_count, source, request.mapping)
            if not await self._note(batch.id, total=total):
                return False
        rows = iter(_of_items(request.items)) if source is None else records(source, request.mapping)
        done, abstained, flagged = batch.done, batch.abstained, batch.flagged
        out = await asyncio.to_thread(_opened, self.results(batch.id), batch.out_bytes)
        with out:
            left = islice(rows, done, None)
            while some := await asyncio.to_thread(lambda: list(islice(left, TOGETHER))):
                lines = await asyncio.gather(*(self._line(one, asked) for one in some))
                answers = [answer for line in lines for answer in line.answers]
                done += len(lines)
                abstained += sum(one.abstention is not None for one in answers) + sum(bool(line.problem) for line in lines)
                flagged += sum(bool(one.flagged) for one in answers)
                size = await asyncio.to_thread(_written, out, lines)
                if not await self._note(batch.id, done=done, abstained=abstained, flagged=flagged, out_bytes=size):
                    return False
        return True

    async def _source(self, owner: str, request: BatchRequest) -> Path:
        if request.path:
            return self.from_inbox(request.path)
        row = await self._database.read(lambda connection: batches.find_file(connection, owner, request.file))
        if row is None:
            raise NotFound(f"no file {request.file!r}", hint="it was deleted; POST /v1/files takes another", received=request.file)
        return self.file(row.id, row.name)

    async def _note(self, number: str, **values: Any) -> bool:
        until = time.time() + LEASE_SECONDS
        return await self._database.write(lambda connection: batches.note(connection, self._holder, number, until, **values))

    async def _line(self, record: Record, asked: Asked) -> BatchLine:
        """One record's answers; it waits for engines for as long as it takes."""
        if record.data is None:
            return BatchLine(line=record.line, problem=str(record.problem))
        try:
            item = _item_of(record)
        except ValueError:
            return BatchLine(line=record.line, problem="inputs: not an object of fields")
        fallen = 0
        while True:
            await room(self._judges)
            try:
                (found,), _ = await self._judges.answer([item], asked)
            except EngineFailed as error:
                fallen += 1
                if fallen > 1:
                    return BatchLine(line=record.line, id=item.id, problem=f"{error.code}: {error.message}")
            except EngineBusy:
                await asyncio.sleep(PAUSE)
            else:
                self._judged(found.answers)
                return BatchLine(line=record.line, id=found.id, answers=found.answers)


def _item_of(record: Record) -> Item:
    data = record.data or {}
    meta = data.get("meta")
    source = data.get("source") or (meta.get("source") if isinstance(meta, Mapping) else "")
    return Item(id=(record.id or "")[:256], inputs=data.get("inputs") or {}, source=source[:256] if isinstance(source, str) else "")


def _of_items(items: Sequence[Item]) -> Iterator[Record]:
    for number, one in enumerate(items, 1):
        yield Record(number, {"inputs": one.inputs, "id": one.id, "source": one.source})


def _count(source: Path, mapping: Mapping[str, str]) -> int:
    return sum(1 for _ in records(source, mapping))


def _opened(path: Path, size: int) -> BinaryIO:
    """The results so far; what came after they were last noted is cut off."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        out = path.open("r+b")
        out.truncate(size)
        out.seek(size)
        return out


def _written(out: BinaryIO, lines: Sequence[BatchLine]) -> int:
    """Add lines; how long the file is, once they are on the disk."""
    with storage_errors(Path(out.name)):
        out.write(b"".join(one.model_dump_json(exclude_defaults=True).encode() + b"\n" for one in lines))
        out.flush()
        os.fsync(out.fileno())
        return out.tell()
