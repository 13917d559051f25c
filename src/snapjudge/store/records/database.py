"""One folder's database: opened, brought up to date, written by one thread that puts what comes together into one transaction.

A write that was acknowledged is on the disk (`synchronous=FULL`); reads see the last whole state and wait for nobody. Knows no tables.
"""

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from filelock import FileLock, Timeout

from snapjudge.errors import RunConflict, StorageFailed
from snapjudge.store.files import storage_errors

T = TypeVar("T")
FILE = "records.sqlite"
_TOGETHER = 256  # writes in one transaction
_BUSY_SECONDS = 30.0
_log = logging.getLogger(__name__)
Write = Callable[[sa.Connection], Any]


class Database:
    """A folder's, for as long as it is open; no other process has it.

    Raises:
        RunConflict: another process does. StorageFailed: nobody can write there, or what is there is no such database.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = FileLock(folder / f"{FILE}.lock")
            try:
                self._lock.acquire(blocking=False)
            except Timeout as error:
                raise RunConflict(f"another server uses {folder}", hint="give this one another folder with --data") from error
        try:
            self._engine = _opened(folder / FILE)
        except BaseException:
            self._lock.release()
            raise
        self._writes: queue.SimpleQueue[tuple[Write, Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="snapjudge-records", daemon=True)
        self._thread.start()

    async def write(self, change: Callable[[sa.Connection], T]) -> T:
        """What a change gives, once it is on the disk. It may be tried again by itself, and must do nothing but write.

        Raises:
            StorageFailed; what `change` raises, and then nothing of it is written.
        """
        future: Future[T] = Future()
        self._writes.put((change, future))
        return await asyncio.wrap_future(future)

    async def read(self, look: Callable[[sa.Connection], T]) -> T:
        """What a look gives.

        Raises:
            StorageFailed.
        """
        return await asyncio.to_thread(self._read, look)

    def close(self) -> None:
        """Write what waits, and give the folder back."""
        self._writes.put(None)
        self._thread.join()
        self._engine.dispose()
        self._lock.release()

    def _read(self, look: Callable[[sa.Connection], T]) -> T:
        try:
            with self._engine.execution_options(writes=False).connect() as connection:
                return look(connection)
        except sa.exc.OperationalError as error:
            raise _failed(self.folder, error) from error

    def _work(self) -> None:
        while (first := self._writes.get()) is not None:
            together = [first]
            while len(together) < _TOGETHER and not self._writes.empty():
                one = self._writes.get()
                if one is None:
                    self._writes.put(None)
                    break
                together.append(one)
            self._write(together)

    def _write(self, together: list[tuple[Write, Future[Any]]]) -> None:
        """All in one transaction; what raises is undone alone."""
        settled: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            with self._engine.begin() as connection:
                for change, future in together:
                    if not future.set_running_or_notify_cancel():
                        continue
                    try:
                        with connection.begin_nested():
                            settled.append((future, change(connection), None))
                    except sa.exc.OperationalError:
                        raise
                    except Exception as error:  # the change's own: whoever asked for it hears of it
                        settled.append((future, None, error))
        except Exception as error:
            _log.error("a write failed: %s", error)
            settled = [(future, None, _failed(self.folder, error)) for _, future in together if not future.cancelled()]
        for future, value, failure in settled:
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(value)


def _opened(path: Path) -> sa.Engine:
    """The database, with all its tables."""
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False})
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    try:
        migrate(engine)
    except (sa.exc.DatabaseError, sqlite3.DatabaseError) as error:
        engine.dispose()
        raise StorageFailed(f"{path} is no database of this version: {error}", hint="move it away, or start with another --data folder") from error
    return engine


def migrate(engine: sa.Engine) -> None:
    """Bring the tables up to date."""
    from alembic import command  # noqa: PLC0415 - a moment, needed once
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", "snapjudge.store.records:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes", True) else "BEGIN")


def _prepare(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions are begun by `_opened`, as they are meant
    for setting in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={round(_BUSY_SECONDS * 1000)}"):
        connection.execute(f"PRAGMA {setting}")


def _failed(folder: Path, error: Exception) -> StorageFailed:
    return StorageFailed(f"{folder / FILE}: {getattr(error, 'orig', None) or error}", hint="is there room on the disk? What was acknowledged is there")
