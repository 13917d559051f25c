"""Webhooks that are still to be called: written in the transaction of what they tell, called at least once, with a number by which a second call is known."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from snapjudge.store.records.tables import calls

TRIES = 12  # within about a day
FIRST_WAIT, LONGEST_WAIT = 2.0, 6 * 3600.0


def tell(connection: sa.Connection, url: str, body: dict[str, Any], now: float, secret_env: str = "") -> str:
    """Put a call down; its number."""
    number = f"evt_{uuid4().hex}"
    connection.execute(sa.insert(calls).values(id=number, url=url, secret_env=secret_env, body={**body, "event": number}, tries=0, next_at=now))
    return number


def due(connection: sa.Connection, now: float, count: int = 16) -> Sequence[Any]:
    """Those whose time has come."""
    return connection.execute(sa.select(calls).where(calls.c.next_at <= now).order_by(calls.c.next_at).limit(count)).all()


def settle(connection: sa.Connection, number: str, now: float, *, told: bool, hopeless: bool = False) -> bool:
    """Note how a call went: it is gone once it was heard, or tried as often as it may be; whether it is gone without having been heard."""
    row = connection.execute(sa.select(calls).where(calls.c.id == number)).first()
    if row is None:
        return False
    if told or hopeless or row.tries + 1 >= TRIES:
        connection.execute(sa.delete(calls).where(calls.c.id == number))
        return not told
    wait = min(LONGEST_WAIT, FIRST_WAIT * 4.0**row.tries)
    connection.execute(sa.update(calls).where(calls.c.id == number).values(tries=row.tries + 1, next_at=now + wait))
    return False
