"""Writing files so that a kill or a full disk leaves no half of one under its final name; reading what a run has left. Knows nothing of what is in them."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from snapjudge.errors import StorageFailed

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EFBIG: "the file would be too large"}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an operating-system error about `path` into one with a next step."""
    try:
        yield
    except OSError as error:
        reason = _FULL.get(error.errno or 0) or error.strerror or str(error)
        raise StorageFailed(
            f"cannot write {path}: {reason}", hint="free space or choose another place; nothing that was there before has changed", received=str(path)
        ) from error


def write_file(path: Path, content: bytes | str) -> None:
    """Write a whole file under a temporary name and rename it."""
    raw = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    with storage_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Make a folder and see that files can be written there, before long work whose result goes there.

    Raises:
        StorageFailed.
    """
    probe = folder / f".{uuid4().hex[:8]}"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()


def write_folder(path: Path, files: dict[str, bytes], last: str) -> None:
    """Write a folder under a temporary name, the file `last` at the end, and rename it; `path` must not exist."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    with storage_errors(path):
        try:
            for name in sorted(files, key=lambda name: name == last):
                target = temporary / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as file:
                    file.write(files[name])
                    file.flush()
                    os.fsync(file.fileno())
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def read_record(path: Path) -> dict[str, Any]:
    """A JSON object that another run left; an empty one where there is none, or a broken one."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
