"""Batches, the schedules that make them, and files. Every function is one write or look of `Database`."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from snapjudge.store.records.tables import batches, files, schedules

RUNNING = ("queued", "running")
Values = dict[str, Any]


def make(connection: sa.Connection, owner: str, request: Values, asked: Values, now: float, schedule: str | None = None) -> str:
    """A batch; its number."""
    number = f"bat_{uuid4().hex}"
    values = {"id": number, "owner": owner, "state": "queued", "request": request, "asked": asked, "schedule": schedule, "made_at": now}
    connection.execute(sa.insert(batches).values(**values, done=0, abstained=0, flagged=0, out_bytes=0, lease_until=0.0))
    return number


def find(connection: sa.Connection, owner: str, number: str) -> Any:
    """One of this owner's, or None."""
    return connection.execute(sa.select(batches).where(batches.c.id == number, batches.c.owner == owner)).first()


def newest(connection: sa.Connection, owner: str, count: int) -> Sequence[Any]:
    """The newest of this owner's."""
    return connection.execute(sa.select(batches).where(batches.c.owner == owner).order_by(batches.c.made_at.desc()).limit(count)).all()


def unended(connection: sa.Connection, owner: str) -> int:
    """How many of this owner's have not ended, with its schedules that have turns left."""
    going = sa.select(sa.func.count()).select_from(batches).where(batches.c.owner == owner, batches.c.state.in_(RUNNING))
    planned = sa.select(sa.func.count()).select_from(schedules).where(schedules.c.owner == owner, schedules.c.next_at.is_not(None))
    return int(connection.scalar(going) or 0) + int(connection.scalar(planned) or 0)


def lease(connection: sa.Connection, holder: str, until: float, now: float) -> Any:
    """The oldest that nobody works on, given to a holder; None where there is none."""
    chosen = sa.select(batches.c.id).where(batches.c.state.in_(RUNNING), batches.c.lease_until < now).order_by(batches.c.made_at).limit(1)
    begun = sa.func.coalesce(batches.c.begun_at, now)
    change = sa.update(batches).where(batches.c.id == chosen.scalar_subquery()).values(state="running", lease=holder, lease_until=until, begun_at=begun)
    return connection.execute(change.returning(*batches.c)).first()


def note(connection: sa.Connection, holder: str, number: str, until: float, **values: Any) -> bool:
    """Put down how far a batch is; whether it is still the holder's to go on with."""
    change = sa.update(batches).where(batches.c.id == number, batches.c.lease == holder, batches.c.state == "running")
    return connection.execute(change.values(lease_until=until, **values)).rowcount == 1


def end(connection: sa.Connection, holder: str, number: str, state: str, now: float, error: Values | None = None) -> bool:
    """Put down how a batch ended; whether it was the holder's to say."""
    change = sa.update(batches).where(batches.c.id == number, batches.c.lease == holder, batches.c.state == "running")
    return connection.execute(change.values(state=state, ended_at=now, error=error, lease=None, lease_until=0.0)).rowcount == 1


def give_back(connection: sa.Connection, holder: str) -> None:
    """Let others go on with what a holder works on."""
    connection.execute(sa.update(batches).where(batches.c.lease == holder).values(lease=None, lease_until=0.0))


def free_all(connection: sa.Connection) -> None:
    """Take every lease back: for the only process of a folder, when it starts."""
    connection.execute(sa.update(batches).where(batches.c.lease.is_not(None)).values(lease=None, lease_until=0.0))


def cancel(connection: sa.Connection, owner: str, number: str, now: float) -> bool:
    """Stop one that has not ended; whether it had not."""
    change = sa.update(batches).where(batches.c.id == number, batches.c.owner == owner, batches.c.state.in_(RUNNING))
    return connection.execute(change.values(state="cancelled", ended_at=now, lease=None, lease_until=0.0)).rowcount == 1


def resume(connection: sa.Connection, owner: str, number: str) -> bool:
    """Let one that was stopped or failed go on from where it was; whether it was."""
    change = sa.update(batches).where(batches.c.id == number, batches.c.owner == owner, batches.c.state.in_(("cancelled", "failed")))
    return connection.execute(change.values(state="queued", ended_at=None, error=None)).rowcount == 1


def add_file(connection: sa.Connection, number: str, owner: str, name: str, size: int, now: float) -> None:
    """Note a file that is on the disk."""
    connection.execute(sa.insert(files).values(id=number, owner=owner, name=name, bytes=size, made_at=now))


def find_file(connection: sa.Connection, owner: str, number: str) -> Any:
    """One of this owner's, or None."""
    return connection.execute(sa.select(files).where(files.c.id == number, files.c.owner == owner)).first()


def newest_files(connection: sa.Connection, owner: str, count: int) -> Sequence[Any]:
    """The newest of this owner's."""
    return connection.execute(sa.select(files).where(files.c.owner == owner).order_by(files.c.made_at.desc()).limit(count)).all()


def uses_of(connection: sa.Connection, number: str) -> int:
    """How many batches and schedules still need a file."""
    needed = sa.func.json_extract
    running = sa.select(sa.func.count()).select_from(batches).where(needed(batches.c.request, "$.file") == number, batches.c.state != "done")
    planned = sa.select(sa.func.count()).select_from(schedules).where(needed(schedules.c.request, "$.file") == number)
    return int(connection.scalar(running) or 0) + int(connection.scalar(planned) or 0)


def drop_file(connection: sa.Connection, number: str) -> None:
    """Forget a file."""
    connection.execute(sa.delete(files).where(files.c.id == number))


def plan(connection: sa.Connection, owner: str, request: Values, asked: Values, first: float, every: float | None, now: float) -> str:
    """A schedule; its number."""
    number = f"sch_{uuid4().hex}"
    values = {"id": number, "owner": owner, "request": request, "asked": asked, "every_s": every, "next_at": first, "made_at": now}
    connection.execute(sa.insert(schedules).values(**values))
    return number


def plans(connection: sa.Connection, owner: str) -> Sequence[Any]:
    """All schedules of this owner."""
    return connection.execute(sa.select(schedules).where(schedules.c.owner == owner).order_by(schedules.c.made_at)).all()


def drop_plan(connection: sa.Connection, owner: str, number: str) -> bool:
    """Forget a schedule; whether there was one."""
    return connection.execute(sa.delete(schedules).where(schedules.c.id == number, schedules.c.owner == owner)).rowcount == 1


def come_due(connection: sa.Connection, now: float) -> list[str]:
    """Make the batches whose time has come, one for each schedule however long nobody looked; their numbers."""
    made = []
    for row in connection.execute(sa.select(schedules).where(schedules.c.next_at <= now)).all():
        made.append(make(connection, row.owner, row.request, row.asked, now, row.id))
        after = None if row.every_s is None else row.next_at + row.every_s * (int((now - row.next_at) // row.every_s) + 1)
        connection.execute(sa.update(schedules).where(schedules.c.id == row.id).values(next_at=after))
    return made
