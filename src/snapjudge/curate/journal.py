"""Files of JSON lines that only ever grow: several processes may append, and a line cut short by a crash is set aside and told.

Knows nothing of what the lines say.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

from snapjudge.errors import StorageFailed


@dataclass(frozen=True)
class Journal:
    """The whole lines of a file, the bytes they take, and the line that was cut short, if one was."""

    lines: tuple[bytes, ...]
    length: int
    cut: str | None = None


def read_journal(path: Path) -> Journal:
    """All lines of a file; one that does not exist has none.

    Raises:
        StorageFailed: it may not be read.
    """
    try:
        raw = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise StorageFailed(f"cannot read {path}: {error.strerror or error}", hint="check the path and its permissions", received=str(path)) from error
    *lines, rest = raw.split(b"\n")
    return Journal(tuple(lines), len(raw) - len(rest), rest.decode(errors="replace") or None)


class Appender:
    """A journal held open under its lock: what it holds, and the way to add to it."""

    def __init__(self, path: Path, file: RawIOBase) -> None:
        self.known = read_journal(path)
        self._file, self._length = file, self.known.length
        if self.known.cut is not None:
            with path.with_name(f"{path.name}.cut").open("a", encoding="utf-8") as aside:
                aside.write(self.known.cut + "\n")
            file.truncate(self._length)

    def add(self, lines: Iterable[bytes]) -> None:
        """Append lines, all of them or, if the disk is full, none."""
        block = b"".join(line + b"\n" for line in lines)
        try:
            left = memoryview(block)
            while left:  # the file has no buffer of its own: one would be flushed at closing, after the way back below
                left = left[os.write(self._file.fileno(), left) :]
            os.fsync(self._file.fileno())
        except OSError:
            os.ftruncate(self._file.fileno(), self._length)
            raise
        self._length += len(block)


@contextmanager
def appending(path: Path) -> Iterator[Appender]:
    """Hold a journal for appending; others wait until it is let go. What a crash cut short goes to `NAME.cut` first.

    Raises:
        StorageFailed: the disk is full, or the file may not be written; what was being added is not in it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            yield Appender(path, file)
    except OSError as error:
        raise StorageFailed(f"cannot add to {path}: {error.strerror or error}", hint="free space or choose another place; nothing was added") from error
