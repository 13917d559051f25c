"""Things that a key has open on the server: its own alone, so many at most, and forgotten when nobody comes back to them. Knows nothing of what they are."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from snapjudge.errors import EngineBusy, SessionUnknown


class Open(Protocol):
    """What can be kept.

    Attributes:
        number: what its owner calls it by.
        owner: the key that it belongs to.
        used: when somebody last came to it, on the clock of whoever keeps it.
    """

    number: str
    owner: str
    used: float

    @property
    def busy(self) -> bool:
        """Whether it is being worked on, and not to be forgotten just now."""
        ...


T = TypeVar("T", bound=Open)


class Owned(Generic[T]):
    """All of one kind. For one event loop.

    Args:
        kind: what they are called, in the singular.
        most: that a key may have.
        seconds: after which one that nobody came to is forgotten.
        ended: called with each that is forgotten or closed.
    """

    def __init__(self, kind: str, most: int, seconds: float, ended: Callable[[T], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._kind, self._most, self._seconds, self._ended, self._clock = kind, most, seconds, ended, clock
        self._open: dict[str, T] = {}

    def __len__(self) -> int:
        return len(self._open)

    def check_room(self, owner: str) -> None:
        """See that a key may open one more.

        Raises:
            EngineBusy.
        """
        self.forget_old()
        if Counter(one.owner for one in self._open.values())[owner] >= self._most:
            raise EngineBusy(f"{self._most} {self._kind}s are open, the most for one key", hint="close some, or let them run out", retry_after=60.0)

    def add(self, one: T) -> T:
        """Keep one."""
        self._open[one.number] = one
        self.touch(one)
        return one

    def find(self, number: str, owner: str) -> T:
        """One of this owner's.

        Raises:
            SessionUnknown: there is none, or it is another's: nobody is told which.
        """
        self.forget_old()
        found = self._open.get(number)
        if found is None or found.owner != owner:
            hint = f"POST /v1/{self._kind}s opens one; one that nothing is appended to is forgotten"
            raise SessionUnknown(f"no {self._kind} {number[:80]!r}", hint=hint, received=number[:80])
        return found

    def touch(self, one: T) -> None:
        """Note that somebody came."""
        one.used = self._clock()

    def close(self, one: T) -> None:
        """Forget one."""
        if self._open.pop(one.number, None) is not None:
            self._ended(one)

    def left(self, one: T) -> float:
        """Seconds until one is forgotten."""
        return max(0.0, one.used + self._seconds - self._clock())

    def forget_old(self) -> None:
        """Forget those that nobody came to for too long."""
        for one in [one for one in self._open.values() if not self.left(one) and not one.busy]:
            self.close(one)

    def close_all(self) -> None:
        """Forget all."""
        for one in list(self._open.values()):
            self.close(one)
