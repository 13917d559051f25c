"""A work folder belongs to one run: what it is of is written down, another run does not go on with its state, and no two processes do at once.

Knows nothing of what is done there.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from snapjudge.errors import Interrupted, OptionInvalid, RunConflict
from snapjudge.store.files import read_record, storage_errors, write_file

MARK = "run.json"


@contextmanager
def alone(lock: Path, what: str) -> Iterator[None]:
    """Only one process at a time goes on; the lock goes with the process, however that ends.

    Args:
        what: is done under the lock, for the error.

    Raises:
        RunConflict: another process holds the lock. StorageFailed: nobody can write there.
    """
    before = lock.parent.exists()
    with storage_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        guard = FileLock(lock)
        try:
            guard.acquire(blocking=False)
        except Timeout as error:
            lock.touch()  # an error of its own where nothing can be written
            raise RunConflict(f"another process is at work on {what}", hint="wait for it or stop it, or choose another --out") from error
    try:
        yield
    finally:
        with suppress(OSError):  # where a file that is open stays
            lock.unlink()
        guard.release()
        if not before:
            with suppress(OSError):  # there is something in it
                lock.parent.rmdir()


def lock_of(path: Path) -> Path:
    """The lock of a folder or a file, beside it: what is locked may come and go."""
    return path.with_name(f"{path.name}.lock")


def refuse_taken(folder: Path, what: str, *, resume: bool, restart: bool) -> None:
    """Say early that an interrupted run lies in the folder, or a running one.

    Raises:
        RunConflict: neither `resume` nor `restart` was said. OptionInvalid: both were.
    """
    if resume and restart:
        raise OptionInvalid("--resume and --restart cannot both be meant", hint="go on with --resume, or start over with --restart")
    if not (resume or restart) and _left_in(folder):
        with alone(lock_of(folder), f"the {what} in {folder}"):
            raise RunConflict(f"an interrupted {what} lies in {folder}", hint="go on with --resume, or start over with --restart")


@contextmanager
def claimed(folder: Path, record: Mapping[str, Any], what: str, *, resume: bool, restart: bool, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Make the folder, or take the one that an interrupted run of the same record left, and keep others out of it; it is gone when the run is done.

    Where the run fails before it has anything to go on from, the folder is given back: a mistake in a command does not stand in the way of the right one.

    Args:
        record: everything that decides the run: settings, digests of data and weights.
        what: is done there, for the errors: "training of toxicity".
        say: is told where there is nothing to resume.

    Raises:
        RunConflict: an interrupted run lies there and `resume` was not said, or it was of something else, or is still running.
    """
    refuse_taken(folder, what, resume=resume, restart=restart)
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    mark = folder / MARK
    with alone(lock_of(folder), f"the {what} in {folder}"):
        if restart and folder.exists():
            with storage_errors(folder):
                shutil.rmtree(folder)
        if _left_in(folder) and read_record(mark).get("digest") != digest:
            raise RunConflict(f"the {what} in {folder} was of other data, settings or models", hint="repeat its command, or start over with --restart")
        if resume and not _left_in(folder):
            say(f"nothing to resume: no interrupted {what} lies in {folder}, so it begins at the start")
        write_file(mark, json.dumps({"digest": digest, **record}, indent=2))
        try:
            yield
        except Interrupted:
            raise
        except Exception:
            if _left_in(folder) <= {MARK}:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def _left_in(folder: Path) -> set[str]:
    """What an earlier run left; nothing where it was killed before it wrote anything."""
    return {path.name for path in folder.iterdir()} if folder.exists() else set()
