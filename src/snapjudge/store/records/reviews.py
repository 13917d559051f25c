"""What people are to look at, and what they said. Every function is one write or look of `Database`."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from snapjudge.store.records.tables import reviews

Values = dict[str, Any]


def ask_for(connection: sa.Connection, values: Values, most: int) -> bool:
    """Put something before people; False where as many wait as may."""
    if standing(connection) >= most:
        return False
    connection.execute(sa.insert(reviews).values(**values))
    return True


def standing(connection: sa.Connection) -> int:
    """How many wait for somebody."""
    return int(connection.scalar(sa.select(sa.func.count()).select_from(reviews).where(reviews.c.decided_at.is_(None))) or 0)


def find(connection: sa.Connection, number: str, owner: str | None) -> Any:
    """One of an owner's, or of anybody's where None is given; None where there is none."""
    chosen = sa.select(reviews).where(reviews.c.id == number)
    return connection.execute(chosen if owner is None else chosen.where(reviews.c.owner == owner)).first()


def some(connection: sa.Connection, owner: str | None, queue: str, after: int, count: int, *, decided: bool) -> Sequence[Any]:
    """Those after some place, the oldest first: undecided ones, or decided ones."""
    chosen = sa.select(reviews).where(reviews.c.seq > after, reviews.c.decided_at.is_not(None) if decided else reviews.c.decided_at.is_(None))
    if owner is not None:
        chosen = chosen.where(reviews.c.owner == owner)
    if queue:
        chosen = chosen.where(reviews.c.queue == queue)
    return connection.execute(chosen.order_by(reviews.c.seq).limit(count)).all()


def decide(connection: sa.Connection, number: str, decision: Values, by: str, now: float) -> bool:
    """Put down what somebody said; False where somebody has already."""
    change = sa.update(reviews).where(reviews.c.id == number, reviews.c.decided_at.is_(None))
    return connection.execute(change.values(decision=decision, decided_by=by, decided_at=now)).rowcount == 1


def forget(connection: sa.Connection, before: float) -> int:
    """Forget what was decided before some time; how many."""
    return connection.execute(sa.delete(reviews).where(reviews.c.decided_at < before)).rowcount
