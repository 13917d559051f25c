"""Sessions: conversations that are judged as they grow, each its key's own; forgotten when nothing comes for a while. Knows nothing of HTTP."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from snapjudge.core.api import Answer, Item
from snapjudge.live.judges import LiveJudges
from snapjudge.live.judging import Asked, Growing, Spent
from snapjudge.serve.owned import Owned
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

    @property
    def busy(self) -> bool:
        """Whether a turn is being judged."""
        return self.turn.locked()


class Sessions(Owned[Session]):
    """All of a server's. For one event loop."""

    def __init__(self, judges: LiveJudges, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__("session", bounds.sessions, bounds.session_seconds, lambda one: judges.let_go(one.growing), clock)
        self._judges = judges

    def open(self, owner: str, judges: Sequence[str], fields: dict[str, Any], source: str) -> Session:
        """A new session.

        Raises:
            JudgeUnknown. EngineBusy: its key has as many as it may.
        """
        self.check_room(owner)
        return self.add(Session(f"ses_{uuid4().hex}", owner, self._judges.asked(judges), dict(fields), source, Growing()))

    async def append(self, session: Session, messages: Sequence[dict[str, Any]], *, judge: bool, deadline: float | None) -> tuple[tuple[Answer, ...], Spent]:
        """Add turns and ask about all of it; where that fails the session is as it was before.

        Raises:
            As `LiveJudges.ask`.
        """
        async with session.turn:
            self.touch(session)
            whole = [*session.messages, *messages]
            item = Item(inputs={**session.fields, "messages": whole}, source=session.source)
            results, spent = await self._judges.ask_again(item, session.asked, session.growing, only_read=not judge, deadline=deadline)
            session.messages = whole
            self.touch(session)
        return results.answers, spent
