"""Score a file with one or several judges: streaming, in constant memory, resumable after a kill.

Output goes to OUT.partial beside a small record of how far it is, and is renamed when whole. The record is written after the output it speaks
of is on disk, so that a resumed run cuts off what came later and neither loses nor repeats a line.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from snapjudge.core.judgement import Abstention, Judgement
from snapjudge.core.progress import Progress, Silent
from snapjudge.curate.read import Record, records
from snapjudge.errors import Interrupted, OptionInvalid, RunConflict, StorageFailed
from snapjudge.flows.claims import alone, lock_of
from snapjudge.judge import CHUNK, Panel
from snapjudge.store.files import read_record, storage_errors, write_file


@dataclass(frozen=True)
class ScoreRequest:
    """Input and output files (None: standard input, standard output), columns, and what to do with earlier output."""

    source: Path | None
    out: Path | None
    mapping: Mapping[str, str] | None = None
    overwrite: bool = False
    restart: bool = False


@dataclass(frozen=True)
class ScoreResult:
    """What stands in the output: records, how many of them were there before a resume, and how many of all judgements abstained or were flagged.

    `absent` names the columns of the mapping that no record had.
    """

    records: int
    resumed: int
    abstained: int
    flagged: int
    absent: tuple[str, ...] = ()


@dataclass
class _Tally:
    """What has been written so far."""

    records: int = 0
    abstained: int = 0
    flagged: int = 0


def score_file(panel: Panel, request: ScoreRequest, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False) -> ScoreResult:
    """Write one line per record and judge, in order.

    Raises:
        OptionInvalid: the output is the input.
        RunConflict: the output exists, or belongs to another input or other judges, or another process is writing it.
        StorageFailed: the disk is full; what was written stays, and the same command goes on from there.
        Interrupted: `stop` said so; the same command goes on from there.
    """
    progress = progress or Silent()
    if request.source is not None and not request.source.is_file():
        raise StorageFailed(f"no file {request.source}", hint="check the path; - reads standard input", received=str(request.source))
    if request.source is not None and request.out is not None and request.source.resolve() == request.out.resolve():
        raise OptionInvalid(f"{request.out} is what is to be scored", hint="write to another file with --out", received=str(request.out))
    if request.out is not None and (request.out.is_dir() or not request.out.name):
        raise OptionInvalid(f"{request.out} is a folder", hint="name a file in it with --out", received=str(request.out))
    if request.out is None:
        return _score(panel, request, _Stream(sys.stdout), progress, stop)
    with (
        alone(lock_of(_partial_paths(request.out)[0]), str(request.out)),
        _Partial.open(request.out, _identity(panel, request), overwrite=request.overwrite, restart=request.restart) as sink,
    ):
        if sink.tally.records:
            progress.say(f"going on after {sink.tally.records} records")
        result = _score(panel, request, sink, progress, stop)
        sink.finish()
        return result


def _score(panel: Panel, request: ScoreRequest, sink: "_Stream | _Partial", progress: Progress, stop: Callable[[], bool]) -> ScoreResult:
    source, trail, tally = iter(records(request.source, request.mapping)), _Trail(), sink.tally
    before, absent = tally.records, {*(request.mapping or {}).values()}
    for record in islice(source, before):
        trail.add(record)
        absent -= record.mapped
    if before and trail.digest != sink.trail:
        raise RunConflict(
            f"the first {before} records are not those the interrupted output was written from", hint="give the same input, or start over with --restart"
        )
    progress.start("score", 0)
    while chunk := list(islice(source, CHUNK)):
        lines: list[str] = []
        for record in chunk:
            trail.add(record)
            absent -= record.mapped
        if absent and tally.records == before:
            progress.say(f"no record so far has the column {' or '.join(sorted(absent))} that --map names")
        for record, answers in zip(chunk, _answers(panel, chunk), strict=True):
            for answer in answers:
                tally.abstained += isinstance(answer, Abstention)
                tally.flagged += isinstance(answer, Judgement) and answer.flagged
                lines.append(output_line(record, answer))
        tally.records += len(chunk)
        sink.write(lines, trail.digest)
        progress.advance(len(chunk), f"{tally.flagged} flagged, {tally.abstained} abstained")
        if stop():
            raise Interrupted(f"stopped after {tally.records} records", hint="run the same command again to go on from there" if request.out else "")
    return ScoreResult(tally.records, before, tally.abstained, tally.flagged, tuple(sorted(absent)) if tally.records else ())


def _answers(panel: Panel, chunk: Sequence[Record]) -> Iterator[list[Judgement | Abstention]]:
    """Answers per record; a record that could not be read abstains for every judge."""
    good = [record.data.get("inputs") for record in chunk if record.data is not None]
    judged = panel.score_many((item if isinstance(item, Mapping) else {} for item in good), [_source(record) for record in chunk if record.data is not None])
    for record in chunk:
        if record.problem is None:
            yield list(next(judged).values())
        else:
            reason = str(record.problem)
            yield [Abstention(judge=name, code="data_invalid", message=reason) for name in panel.judges]


def _source(record: Record) -> str:
    meta = (record.data or {}).get("meta")
    return str(meta.get("source") or "") if isinstance(meta, Mapping) else ""


def output_line(record: Record, answer: Judgement | Abstention) -> str:
    """One line of output: {id} with the judgement's fields; of an abstention they are null, and `abstained` tells why."""
    stated = None if record.data is None else record.data.get("id")
    identity: dict[str, Any] = {"id": stated if isinstance(stated, str | int) else record.id or f"line {record.line}"}
    if isinstance(answer, Judgement):
        return _json({**identity, **answer.model_dump(mode="json")})
    reason = {"code": answer.code, "message": answer.message, "line": record.line}
    return _json({**identity, **dict.fromkeys(Judgement.model_fields), "judge": answer.judge, "abstained": reason})


def _json(line: dict[str, Any]) -> str:
    """Readable JSON; escaped throughout where it echoes text that UTF-8 cannot hold."""
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(line)
    return text


def _identity(panel: Panel, request: ScoreRequest) -> dict[str, Any]:
    """What the output depends on beside the records; a resumed run must have the same."""
    judges = {name: judge.bundle.digest for name, judge in panel.judges.items()}
    source = str(request.source.resolve()) if request.source else "-"
    return {"judges": judges, "precision": panel.backbone.precision, "input": source, "map": dict(request.mapping or {})}


class _Trail:
    """A running digest of the records taken, so that a resumed run knows whether it stands on the same ones."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, record: Record) -> None:
        said = record.data if record.problem is None else str(record.problem)
        self._hash.update(json.dumps([record.line, said], sort_keys=True, default=str).encode())

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


class _Stream:
    """Standard output: every chunk is flushed; nothing to resume."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self.tally, self.trail = _Tally(), ""

    def write(self, lines: Sequence[str], trail: str) -> None:
        del trail
        self._out.write("\n".join(lines) + "\n")
        self._out.flush()


class _Partial:
    """A file being written, with the record that makes it resumable."""

    def __init__(self, out: Path, identity: dict[str, Any], file: IO[bytes], tally: _Tally, trail: str) -> None:
        self._out, self._identity, self._file = out, identity, file
        self.tally, self.trail = tally, trail

    @classmethod
    def open(cls, out: Path, identity: dict[str, Any], *, overwrite: bool, restart: bool) -> "_Partial":
        partial, mark = _partial_paths(out)
        if out.exists() and not overwrite:
            raise RunConflict(f"{out} exists", hint="choose another name, or pass --overwrite", received=str(out))
        tally, size, trail = _Tally(), 0, ""
        if mark.exists() and partial.exists() and not restart:
            known = read_record(mark)
            if known.get("identity") != identity:
                raise RunConflict(
                    f"{partial} was written from another input, with other judges or other columns, or its record is broken",
                    hint="repeat that command, or start over with --restart",
                )
            tally, size, trail = _Tally(known["records"], known["abstained"], known["flagged"]), known["bytes"], known["trail"]
        with storage_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            file = partial.open("r+b" if size else "wb", buffering=0)  # unbuffered: what failed to be written is not tried again on close
            file.truncate(size)
            file.seek(size)
        return cls(out, identity, file, tally, trail)

    def __enter__(self) -> "_Partial":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, lines: Sequence[str], trail: str) -> None:
        start, raw = self._file.tell(), memoryview(("\n".join(lines) + "\n").encode())
        with storage_errors(self._out):
            try:
                while raw:
                    raw = raw[self._file.write(raw) :]
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(start)
                raise
        state = {"identity": self._identity, **vars(self.tally), "bytes": self._file.tell(), "trail": trail}
        write_file(_partial_paths(self._out)[1], json.dumps(state))

    def finish(self) -> None:
        """The file is whole: give it its name."""
        self._file.close()
        partial, mark = _partial_paths(self._out)
        with storage_errors(self._out):
            partial.replace(self._out)
            mark.unlink(missing_ok=True)


def _partial_paths(out: Path) -> tuple[Path, Path]:
    return out.with_name(f"{out.name}.partial"), out.with_name(f"{out.name}.partial.json")
