"""A content that grows: an answer as it streams, or the turns of a conversation. What was read of it is kept at hand until the session is closed."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType

from snapjudge.engine.requests import Answer, Read
from snapjudge.errors import EngineClosed
from snapjudge.model.tokens import Ids

Submit = Callable[..., "Future[Answer]"]
Keep = Callable[[Ids], Callable[[], None]]


class Session:
    """Made by `Engine.session`; may be used from any thread.

    Args:
        submit: the engine's.
        keep: pins what is at hand of a content, and gives what lets go of it.
    """

    def __init__(self, content: Ids, submit: Submit, keep: Keep) -> None:
        self._content = tuple(content)
        self._submit, self._keep = submit, keep
        self._let_go: Callable[[], None] | None = None
        self._kept = 0
        self._closed = False
        self._turn = threading.Lock()  # one append after the other
        self._held = threading.Lock()  # never taken before the engine's own

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def content(self) -> Ids:
        """All tokens so far."""
        return self._content

    def append(self, tokens: Ids, reads: Sequence[Read] = (), *, deadline: float | None = None, tail: Ids = (), traces: bool = False) -> "Future[Answer]":
        """Add tokens and ask about the content with them; without reads they are only read ahead.

        Args:
            tail: what closes the content for these reads only, such as the end mark of a field that goes on growing.
            traces: as `Engine.submit` has them.

        Raises:
            What `Engine.submit` raises; the content stays as it was. EngineClosed: the session is closed.
        """
        with self._turn:
            if self._closed:
                raise EngineClosed("the session is closed", hint="open a new one")
            content = (*self._content, *tokens)
            future = self._submit((*content, *tail), reads, deadline=deadline, traces=traces, answered=lambda: self._hold(content))
            self._content = content
        return future

    def close(self) -> None:
        """Let the content go; it stays in the cache until something else needs the room."""
        with self._held:
            self._closed = True
            let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()

    def _hold(self, content: Ids) -> None:
        """Keep what has been read, in place of what was kept before. Called under the engine's lock, before anything can put it out."""
        let_go = self._keep(content)
        with self._held:
            if not self._closed and len(content) >= self._kept:
                let_go, self._let_go, self._kept = self._let_go or _nothing, let_go, len(content)
        let_go()


def _nothing() -> None:
    """There was nothing to let go."""
