"""Observations: taken in, leased to whoever judges them, and put down once and for ever.

Whoever's lease ran out, or whose process died, loses its claim: what it finds then is not put down, for somebody else judges the same. Every function is one
write or look of `Database`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from snapjudge.store.records.tables import judged, waiting

TRIES = 5  # after which an observation that brings engines down is put down as failed


@dataclass(frozen=True)
class New:
    """An observation that comes in.

    Args:
        given_id: the caller's own, or empty; a second one with it is the first again.
        asked: whom it is put to, as JSON.
    """

    given_id: str
    item: dict[str, Any]
    asked: dict[str, Any]


@dataclass(frozen=True)
class Leased:
    """One to be judged, for as long as its lease lasts."""

    id: str
    item: dict[str, Any]
    asked: dict[str, Any]
    tries: int


@dataclass(frozen=True)
class Finding:
    """What came of one: answers, or the error that it cannot be judged for."""

    id: str
    answers: list[dict[str, Any]]
    error: dict[str, Any] | None = None


def take(connection: sa.Connection, owner: str, new: Sequence[New], now: float, most: int) -> list[str] | None:
    """Take some in; their numbers, in order. None where more than `most` would wait then, and nothing was taken."""
    if standing(connection) + len(new) > most:
        return None
    given = [one.given_id for one in new if one.given_id]
    known: dict[str, str] = {}
    for table in (waiting, judged):
        rows = connection.execute(sa.select(table.c.given_id, table.c.id).where(table.c.owner == owner, table.c.given_id.in_(given))) if given else ()
        known |= {row.given_id: row.id for row in rows}
    ids: list[str] = []
    rows_to_add = []
    for one in new:
        number = known.get(one.given_id) if one.given_id else None
        if number is None:
            number = f"obs_{uuid4().hex}"
            rows_to_add.append(
                {
                    "id": number,
                    "owner": owner,
                    "given_id": one.given_id or None,
                    "item": one.item,
                    "asked": one.asked,
                    "taken_at": now,
                    "lease_until": 0.0,
                    "tries": 0,
                }
            )
            if one.given_id:
                known[one.given_id] = number
        ids.append(number)
    if rows_to_add:
        connection.execute(sa.insert(waiting), rows_to_add)
    return ids


def lease(connection: sa.Connection, holder: str, count: int, until: float, now: float) -> list[Leased]:
    """Give some to a holder, the oldest first."""
    chosen = sa.select(waiting.c.seq).where(waiting.c.lease_until < now).order_by(waiting.c.seq).limit(count)
    change = sa.update(waiting).where(waiting.c.seq.in_(chosen)).values(lease=holder, lease_until=until, tries=waiting.c.tries + 1)
    found = connection.execute(change.returning(waiting.c.seq, waiting.c.id, waiting.c.item, waiting.c.asked, waiting.c.tries)).all()
    return [Leased(row.id, row.item, row.asked, row.tries) for row in sorted(found, key=lambda row: row.seq)]


def put_down(connection: sa.Connection, holder: str, findings: Sequence[Finding], now: float, *, keep_texts: bool) -> int:
    """Put down what a holder found, of those that are still its own; how many."""
    count = 0
    for one in findings:
        row = connection.execute(sa.delete(waiting).where(waiting.c.id == one.id, waiting.c.lease == holder).returning(*waiting.c)).first()
        if row is None:
            continue
        connection.execute(
            insert(judged).values(
                id=row.id,
                owner=row.owner,
                given_id=row.given_id,
                source=row.item.get("source", ""),
                item=row.item if keep_texts else None,
                answers=one.answers,
                error=one.error,
                taken_at=row.taken_at,
                judged_at=now,
            )
        )
        count += 1
    return count


def give_back(connection: sa.Connection, holder: str, ids: Sequence[str] | None = None, *, tried: bool = True) -> None:
    """Let others have what a holder could not judge; all that it has where no numbers are given.

    Args:
        tried: whether it was tried, and another failure counts.
    """
    change = sa.update(waiting).where(waiting.c.lease == holder)
    if ids is not None:
        change = change.where(waiting.c.id.in_(ids))
    connection.execute(change.values(lease=None, lease_until=0.0, tries=waiting.c.tries - (0 if tried else 1)))


def free_all(connection: sa.Connection) -> None:
    """Take every lease back: for the only process of a folder, when it starts."""
    connection.execute(sa.update(waiting).where(waiting.c.lease.is_not(None)).values(lease=None, lease_until=0.0))


def standing(connection: sa.Connection) -> int:
    """How many wait."""
    return int(connection.scalar(sa.select(sa.func.count()).select_from(waiting)) or 0)


def find(connection: sa.Connection, owner: str, number: str) -> tuple[Any, bool] | None:
    """One of this owner's, and whether it is judged."""
    for table, done in ((judged, True), (waiting, False)):
        row = connection.execute(sa.select(table).where(table.c.id == number, table.c.owner == owner)).first()
        if row is not None:
            return row, done
    return None


def since(connection: sa.Connection, owner: str, after: int, count: int, source: str = "") -> Sequence[Any]:
    """What was judged of this owner's after some place in the record, in the order in which it was."""
    chosen = sa.select(judged).where(judged.c.owner == owner, judged.c.seq > after).order_by(judged.c.seq).limit(count)
    return connection.execute(chosen.where(judged.c.source == source) if source else chosen).all()


def forget(connection: sa.Connection, before: float, count: int = 5000) -> int:
    """Forget what was judged before some time, so many at once; how many."""
    old = sa.select(judged.c.seq).where(judged.c.judged_at < before).limit(count)
    return connection.execute(sa.delete(judged).where(judged.c.seq.in_(old))).rowcount
