"""Everything that is judged later, opened when it is first needed, or at the start where a server before this one has left something."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from snapjudge.core.api import Answer
from snapjudge.core.later import BatchRequest
from snapjudge.guard.guarding import Guarded
from snapjudge.live.batches import Batches
from snapjudge.live.judges import LiveJudges
from snapjudge.live.later import Later
from snapjudge.serve.deferred.outbox import Outbox
from snapjudge.serve.metrics import Metrics
from snapjudge.serve.settings import ServeSettings
from snapjudge.serve.webhooks import Webhooks
from snapjudge.store.records import batches, calls, observations, reviews
from snapjudge.store.records.database import FILE, Database

_log = logging.getLogger(__name__)
DAY = 86_400.0


class Deferred:
    """Made open; for one event loop.

    Attributes:
        folder: where it all lies.
        database, later, batches: its parts.

    Raises:
        RunConflict: another server uses the folder. StorageFailed.
    """

    def __init__(self, settings: ServeSettings, judges: LiveJudges, metrics: Metrics, webhooks: Webhooks) -> None:
        self.folder = settings.data.absolute()
        self.database = Database(self.folder)
        self._metrics, self._most_reviews = metrics, settings.bounds.reviews
        holder = uuid4().hex
        self.outbox = Outbox(self.database, webhooks)
        seconds = settings.keep_days * DAY
        self.later = Later(judges, self.database, holder, self._judged, keep_texts=settings.keep_texts, keep_seconds=seconds)
        self.batches = Batches(judges, self.database, holder, self.folder, settings.inbox, self._judged, self._ended)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Go on with what another server has left."""

        def freed(connection: sa.Connection) -> None:
            observations.free_all(connection)
            batches.free_all(connection)

        await self.database.write(freed)
        await self.count()
        self._tasks = [asyncio.create_task(self._kept_up(name, work)) for name, work in self._works.items()]

    async def count(self) -> None:
        """Show how many observations wait."""
        self._metrics.waiting.set(await self.database.read(observations.standing))

    async def review(self, found: Guarded, inputs: Mapping[str, Any], source: str, owner: str) -> tuple[str, ...]:
        """Put before people what a policy wants them to see; the numbers under which it lies there, once it does."""
        wanted: dict[str, list[str]] = {}
        for one in found.people:
            wanted.setdefault(one.queue, []).append(f"{one.condition}: {one.asked}")
        if found.response.action == "escalate":
            wanted.setdefault(found.response.escalate_to, []).append("escalate")
        common = {
            "owner": owner,
            "policy": found.response.policy,
            "stage": found.response.stage,
            "inputs": dict(inputs),
            "source": source,
            "answers": [one.model_dump(mode="json", exclude_defaults=True) for one in found.response.answers],
            "made_at": time.time(),
        }
        rows = [{**common, "id": f"rev_{uuid4().hex}", "queue": queue, "reasons": reasons} for queue, reasons in wanted.items()]

        def put(connection: sa.Connection) -> list[str]:
            return [str(row["id"]) for row in rows if reviews.ask_for(connection, row, self._most_reviews)]

        kept = await self.database.write(put)
        self._metrics.reviews.labels("kept").inc(len(kept))
        self._metrics.reviews.labels("dropped").inc(len(rows) - len(kept))
        return tuple(kept)

    async def close(self) -> None:
        """Give back what is not done, and the folder."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self.database.close)

    @property
    def _works(self) -> dict[str, Any]:
        return {"observations": self.later.run, "batches": self.batches.run, "calls": self.outbox.run, "figures": self._figures}

    async def _kept_up(self, name: str, work: Any) -> None:
        """A fault of ours in one of them ends neither it nor the others."""
        while True:
            try:
                running: Awaitable[None] = work()
                await running
            except Exception:
                _log.exception("the work on %s failed; it goes on", name)
                await asyncio.sleep(1.0)

    async def _figures(self) -> None:
        while True:
            await asyncio.sleep(5.0)
            with contextlib.suppress(Exception):
                await self.count()

    def _judged(self, answers: Sequence[Answer]) -> None:
        self._metrics.count(answers)
        self._metrics.later.inc()

    def _ended(self, connection: sa.Connection, batch: Any, state: str) -> None:
        webhook = BatchRequest.model_validate(batch.request).webhook
        if webhook is None:
            return
        row = batches.find(connection, batch.owner, batch.id)
        told = {"batch": batch.id, "state": state, "total": row.total, "done": row.done, "abstained": row.abstained, "flagged": row.flagged}
        calls.tell(connection, str(webhook.url), told, row.ended_at, webhook.secret_env)
        self.outbox.wake()


def left_behind(folder: Path) -> bool:
    """Whether a server has kept something in a folder."""
    return (folder / FILE).exists()
