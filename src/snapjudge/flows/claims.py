"""A work folder belongs to one run: what it is of is written down, and another run does not go on with its state. Knows nothing of what is trained."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from snapjudge.errors import Interrupted, RunConflict
from snapjudge.store.files import read_record, storage_errors, write_file

MARK = "run.json"


def refuse_taken(folder: Path, what: str, *, resume: bool, restart: bool) -> None:
    """Say early that an interrupted run lies in the folder.

    Raises:
        RunConflict: neither `resume` nor `restart` was said.
    """
    if folder.exists() and not (resume or restart):
        raise RunConflict(f"an interrupted training of {what} lies in {folder}", hint="go on with --resume, or start over with --restart")


@contextmanager
def released(folder: Path) -> Iterator[None]:
    """Give the folder back where a run fails before it has anything to go on from: a mistake in a command does not stand in the way of the right one."""
    try:
        yield
    except Interrupted:
        raise
    except Exception:
        if folder.exists() and {path.name for path in folder.iterdir()} <= {MARK}:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # there is something in it
                folder.parent.rmdir()
        raise


def claim_folder(folder: Path, record: Mapping[str, Any], what: str, *, resume: bool, restart: bool) -> None:
    """Make the folder, or take the one that an interrupted run of the same record left.

    Args:
        record: everything that decides the run: settings, digests of data and weights.
        what: is trained there, for the errors.

    Raises:
        RunConflict: an interrupted run lies there and `resume` was not said, or it was of something else.
    """
    refuse_taken(folder, what, resume=resume, restart=restart)
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
    mark = folder / MARK
    if restart:
        shutil.rmtree(folder, ignore_errors=True)
    begun = folder.exists() and any(folder.iterdir())  # an empty one is of a run that was killed before it wrote anything
    if begun and read_record(mark).get("digest") != digest:
        raise RunConflict(f"the training in {folder} was of other data, settings, metric or backbone", hint="repeat its command, or start over with --restart")
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_file(mark, json.dumps({"digest": digest, **record}, indent=2))
