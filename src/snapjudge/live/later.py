"""Observations, judged when the engines have room: live requests go first, and what was taken in is judged however often the server stops in between.

Knows nothing of HTTP.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from snapjudge.core.api import Answer, Item
from snapjudge.core.question import OpenQuestion
from snapjudge.errors import EngineBusy, EngineFailed, SnapjudgeError
from snapjudge.live.judges import LiveJudges
from snapjudge.live.judging import Asked
from snapjudge.live.rounds import PAUSE, Rounds
from snapjudge.store.records import observations, reviews
from snapjudge.store.records.database import Database
from snapjudge.store.records.observations import TRIES, Finding, Leased

TOGETHER = 16  # leased at once
LEASE_SECONDS = 120.0
LOOK_EVERY = 5.0  # seconds between looks at a queue that nobody woke it for
ROOM = 0.05  # seconds of work ahead of an engine from which on what can wait does
PATIENCE = 2.0  # seconds that one waits for room, so that busy days do not keep it for ever
FORGET_EVERY = 600.0


def asked_json(judges: LiveJudges, names: Sequence[str], questions: Sequence[OpenQuestion]) -> dict[str, Any]:
    """Whom something is put to, for later: an alias stands for the judge it points at now.

    Raises:
        JudgeUnknown.
    """
    found = [judges.roster.find(name) for name in names]
    return {"judges": [[name, one.judge] for name, one in zip(names, found, strict=True)], "questions": [one.model_dump(mode="json") for one in questions]}


def asked_of(judges: LiveJudges, told: Mapping[str, Any]) -> Asked:
    """The same again.

    Raises:
        JudgeUnknown: one of them is not loaded any more.
    """
    questions = [OpenQuestion.model_validate(one) for one in told["questions"]]
    asked = judges.asked([judge for _, judge in told["judges"]], questions)
    names = {place: name for place, (name, _) in enumerate(told["judges"])}
    return Asked(tuple((place, names.get(place, name), judge) for place, name, judge in asked.judges), asked.questions)


async def room(judges: LiveJudges) -> None:
    """Return when an engine has little to do, or when it has been waited for long enough."""
    host = judges.generalist.host
    until = time.monotonic() + PATIENCE
    while host.seconds_until_done(0) > ROOM and time.monotonic() < until:
        await asyncio.sleep(0.01)


class Later:
    """One server's. For one event loop.

    Args:
        holder: a name that no other process has.
        judged: is told all answers.
        keep_texts: whether texts stay in the record once they are judged.
        keep_seconds: for which the record is kept.

    Attributes:
        wake: says that something came in.
    """

    def __init__(
        self, judges: LiveJudges, database: Database, holder: str, judged: Callable[[Sequence[Answer]], None], *, keep_texts: bool, keep_seconds: float
    ) -> None:
        self._judges, self._database, self._holder, self._judged = judges, database, holder, judged
        self._keep_texts, self._keep_seconds = keep_texts, keep_seconds
        self._rounds = Rounds("observations", self._some, LOOK_EVERY)
        self._forgot = 0.0
        self.wake = self._rounds.wake

    async def run(self) -> None:
        """Judge until cancelled; what is not judged then is given back."""
        try:
            await self._rounds.run()
        finally:
            await self._database.write(lambda connection: observations.give_back(connection, self._holder, tried=False))

    async def _some(self) -> bool:
        """Judge some; whether there were any."""
        now = time.time()
        leased = await self._database.write(lambda connection: observations.lease(connection, self._holder, TOGETHER, now + LEASE_SECONDS, now))
        if not leased:
            await self._forget()
            return False
        tasks = [asyncio.create_task(self._one(one)) for one in leased]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        findings = [one for one in found if one is not None]
        left = [one.id for one, finding in zip(leased, found, strict=True) if finding is None]
        now = time.time()
        if findings:
            await self._database.write(lambda connection: observations.put_down(connection, self._holder, findings, now, keep_texts=self._keep_texts))
        if left:
            await self._database.write(lambda connection: observations.give_back(connection, self._holder, left))
            await asyncio.sleep(PAUSE)
        return True

    async def _one(self, leased: Leased) -> Finding | None:
        """What came of one; None where it is to be tried again."""
        await room(self._judges)
        try:
            item = Item.model_validate(leased.item)
            (found,), _ = await self._judges.answer([item], asked_of(self._judges, leased.asked))
        except EngineFailed as error:  # it may have been what brought the engine down
            return Finding(leased.id, [], error.as_dict()) if leased.tries >= TRIES else None
        except EngineBusy:
            await self._database.write(lambda connection: observations.give_back(connection, self._holder, [leased.id], tried=False))
            return None
        except (SnapjudgeError, ValueError) as error:
            told = error.as_dict() if isinstance(error, SnapjudgeError) else {"code": "input_invalid", "message": str(error)}
            return Finding(leased.id, [], told)
        self._judged(found.answers)
        return Finding(leased.id, [one.model_dump(mode="json", exclude_defaults=True) for one in found.answers])

    async def _forget(self) -> None:
        """Forget what is too old, now and then."""
        now = time.time()
        if now - self._forgot < FORGET_EVERY:
            return
        self._forgot = now
        await self._database.write(lambda connection: reviews.forget(connection, now - self._keep_seconds))
        while await self._database.write(lambda connection: observations.forget(connection, now - self._keep_seconds)):
            pass
