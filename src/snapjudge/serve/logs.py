"""Log lines: one JSON object each, or plain text for people. Texts of requests are written only where that was switched on."""

import json
import logging
import time
from typing import Any

_OWN = {"request_id", "method", "path", "status", "ms", "caller", "body", "code"}


class JsonLines(logging.Formatter):
    """A record as one JSON object: time (UTC), level, logger, message and whatever of ours was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line: dict[str, Any] = {"time": stamp, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        line |= {name: value for name, value in vars(record).items() if name in _OWN and value not in (None, "")}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


class PlainLines(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, a traceback below it."""
        extra = " ".join(f"{name}={value}" for name, value in vars(record).items() if name in _OWN and value not in (None, ""))
        text = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.levelname:<7} {record.getMessage()} {extra}".rstrip()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up(*, as_json: bool, level: int = logging.INFO) -> None:
    """Send all log lines of this process to standard error in one of the two forms."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if as_json else PlainLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "httpx", "asyncio"):
        one = logging.getLogger(name)
        one.handlers[:] = []
        one.propagate = True
        one.setLevel(logging.WARNING)
