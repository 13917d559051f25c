"""Sessions: conversations that are judged as they grow, each its key's own; forgotten when nothing comes for a while. Knows nothing of HTTP."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from snapjudge.core.api import Answer, Item
from snapjudge.errors import EngineBusy, SessionUnknown
from snapjudge.live.judges import LiveJudges
from snapjudge.live.judging import Asked, Growing, Spent
from snapjudge.serve.settings import Bounds


@dataclass(eq=False)
class Session:
    """One conversation.

    Args:
        owner: the key it belongs to; nobody else's.
        fields: what stands before the messages.
    """

    number: str
    owner: str
    asked: Asked
    fields: dict[str, Any]
    source: str
    growing: Growing
    messages: list[dict[str, Any]] = field(default_factory=list)
    used: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Sessions:
    """All of a server's. For one event loop."""

    def __init__(self, judges: LiveJudges, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self._judges, self._bounds, self._clock = judges, bounds, clock
        self._open: dict[str, Session] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, owner: str, judges: Sequence[str], fields: dict[str, Any], source: str) -> Session:
        """A new session.

        Raises:
            JudgeUnknown. EngineBusy: its key has as many as it may.
        """
        self.forget_old()
        if Counter(one.owner for one in self._open.values())[owner] >= self._bounds.sessions:
            raise EngineBusy(f"{self._bounds.sessions} sessions are open, the most for one key", hint="close some, or let them run out", retry_after=60.0)
        asked = self._judges.asked(judges)
        session = Session(f"ses_{uuid4().hex}", owner, asked, dict(fields), source, Growing(), used=self._clock())
        self._open[session.number] = session
        return session

    def find(self, number: str, owner: str) -> Session:
        """A session of this owner.

        Raises:
            SessionUnknown: there is none, or it is another's: nobody is told which.
        """
        self.forget_old()
        found = self._open.get(number)
        if found is None or found.owner != owner:
            raise SessionUnknown(
                f"no session {number[:80]!r}", hint="POST /v1/sessions opens one; one that nothing is appended to is forgotten", received=number[:80]
            )
        return found

    async def append(self, session: Session, messages: Sequence[dict[str, Any]], *, judge: bool, deadline: float | None) -> tuple[tuple[Answer, ...], Spent]:
        """Add turns and ask about all of it; where that fails the session is as it was before.

        Raises:
            As `LiveJudges.ask`.
        """
        async with session.turn:
            session.used = self._clock()
            whole = [*session.messages, *messages]
            item = Item(inputs={**session.fields, "messages": whole}, source=session.source)
            results, spent = await self._judges.ask_again(item, session.asked, session.growing, only_read=not judge, deadline=deadline)
            session.messages, session.used = whole, self._clock()
        return results.answers, spent

    def close(self, session: Session) -> None:
        """Forget a session."""
        self._open.pop(session.number, None)
        self._judges.let_go(session.growing)

    def left(self, session: Session) -> float:
        """Seconds until a session is forgotten."""
        return max(0.0, session.used + self._bounds.session_seconds - self._clock())

    def forget_old(self) -> None:
        """Forget sessions that nothing was appended to for too long."""
        for one in [one for one in self._open.values() if not self.left(one) and not one.turn.locked()]:
            self.close(one)
