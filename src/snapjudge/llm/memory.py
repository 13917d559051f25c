"""What endpoints have answered, kept by content, so that nothing is paid for twice and a killed run goes on. Knows nothing of what was asked for."""

import json
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any

from snapjudge.errors import StorageFailed

_TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"


class Memory:
    """A file of answers by key; several processes may share it. Without a path it forgets everything at the end."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path or ":memory:", timeout=30, isolation_level=None)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute(_TABLE)
        except (sqlite3.Error, OSError) as error:
            raise StorageFailed(f"cannot open {path}: {error}", hint="move it away; its answers are then asked again", received=str(path)) from error

    def get(self, key: str) -> dict[str, Any] | None:
        """The answer under a key."""
        row = self._file.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, answer: dict[str, Any]) -> None:
        """Keep an answer.

        Raises:
            StorageFailed: the disk is full.
        """
        try:
            self._file.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(answer, ensure_ascii=False)))
        except sqlite3.Error as error:
            raise StorageFailed(f"cannot write {self._path}: {error}", hint="free space; what was answered before is kept") from error

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._file.close()
