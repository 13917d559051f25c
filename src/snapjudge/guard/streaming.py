"""A text that is guarded while it is written: looked at every few tokens, given on as far as a look came to nothing, stopped where looks in a row agree.

What is given on has always been part of a text that a look let through; the newest tokens of it wait for what follows. A text is looked at as it goes out:
what was redacted is not seen again. One `StreamGuard` is one text; nothing is shared between them. Knows nothing of HTTP.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from snapjudge.core.api import GuardResponse
from snapjudge.core.policy import STAGE_FIELDS, Policy, Stage
from snapjudge.core.policy_terms import STOPPING, STRENGTH, Streaming
from snapjudge.errors import RequestTooLarge
from snapjudge.guard.guarding import Guarded, guard
from snapjudge.guard.routing import Elsewhere
from snapjudge.live.judges import LiveJudges
from snapjudge.live.judging import Growing, Spent

LONGEST = 400_000  # characters of one text
SETTLED = 8  # tokens behind what is taken out of a text that is being written
_HOLDING = ("redact", "override", *STOPPING)  # actions that keep what they are about from the reader
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SENTENCE = re.compile(r"[.!?]['\")\]]?\s|[\u3002\uff01\uff1f\n]")


@dataclass(frozen=True)
class Piece:
    """Text that goes on to the reader."""

    text: str


@dataclass(frozen=True)
class Ending:
    """How a text ended.

    Args:
        guarded: the last look, with the strongest action that was taken; its text is all that was given on.
        stopped: whether it was cut off; then `instead` is what the reader is told in place of the rest.
        looks: how often it was looked at.
    """

    guarded: Guarded
    stopped: bool
    instead: str
    looks: int

    @property
    def response(self) -> GuardResponse:
        """What the last look came to."""
        return self.guarded.response


class StreamGuard:
    """One text, by one policy.

    Args:
        inputs: what else its judges read, such as what was asked.
    """

    def __init__(
        self,
        judges: LiveJudges,
        policy: Policy,
        stage: Stage,
        inputs: Mapping[str, Any],
        *,
        source: str = "",
        request_id: str = "",
        elsewhere: Elsewhere | None = None,
        longest: int = LONGEST,
    ) -> None:
        self._judges, self._policy, self._stage = judges, policy, stage
        self._terms = policy.streaming if policy.stages.get(stage) and not policy.paused else Streaming(every=1, hold_back=0)  # nobody looks: nothing waits
        self._inputs, self._source, self._request_id, self._longest = dict(inputs), source, request_id, longest
        self._local = policy.model_copy(update={"routing": tuple(one for one in policy.routing if one.judge or one.abstain)})  # others see the whole text
        self._elsewhere, self._growing = elsewhere, Growing()
        self._given = ""  # has gone to the reader
        self._held = ""  # has come, and not gone
        self._looked = 0  # characters of both together that the last look saw
        self._whole = False  # nothing more comes
        self._failure: BaseException | None = None
        self._news = asyncio.Event()
        self._streaks: dict[str, int] = {}
        self._taken: set[str] = set()
        self._looks, self._spent = 0, Spent()

    @property
    def inputs(self) -> dict[str, Any]:
        """What was judged, with all that has been given on as its text."""
        return {**self._inputs, STAGE_FIELDS[self._stage]: self._given + self._held}

    async def run(self, chunks: AsyncIterable[str]) -> AsyncGenerator[Piece | Ending]:
        """What goes on to the reader, and at last how it ended. What writes the text is left as soon as it is stopped.

        Raises:
            What `chunks` raises, once all that came before it is dealt with. RequestTooLarge.
        """
        reading = asyncio.create_task(self._read(chunks))
        try:
            while True:
                await self._enough()
                ending, piece = await self._look()
                if piece:
                    self._given += piece
                    yield Piece(piece)
                if ending is not None:
                    if self._failure is not None and not ending.stopped:
                        raise self._failure
                    yield ending
                    return
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            self._judges.let_go(self._growing)

    async def _read(self, chunks: AsyncIterable[str]) -> None:
        try:
            async for chunk in chunks:
                self._held = _joined(self._held + chunk)
                if len(self._given) + len(self._held) > self._longest:
                    raise RequestTooLarge(f"a text of more than {self._longest:,} characters", hint="guard it in parts")
                self._news.set()
        except Exception as error:  # what writes the text failed: whoever reads it hears of it, after what was fine
            self._failure = error
        finally:
            self._whole = True
            self._news.set()

    async def _enough(self) -> None:
        """Return when there is something to look at."""
        while not self._whole:
            self._news.clear()
            if self._due():
                return
            await self._news.wait()

    def _due(self) -> bool:
        new, terms = (self._given + self._held)[self._looked :], self._terms
        return (terms.sentences and _SENTENCE.search(new) is not None) or len(self._ends(new)) >= terms.every

    def _ends(self, text: str) -> list[int]:
        return self._judges.generalist.rules.tokens.ends(text)

    async def _look(self) -> tuple[Ending | None, str]:
        """Look at all there is: how it ends, if it does, and what goes on."""
        whole, text = self._whole, self._given + self._held
        found = await guard(
            self._judges,
            self._policy if whole else self._local,
            self._stage,
            self.inputs,
            source=self._source,
            request_id=self._request_id,
            growing=self._growing,
            elsewhere=self._elsewhere,
        )
        self._looks += 1
        self._looked = len(text)
        self._spent.join(found.spent)
        response = found.response
        acts = self._acts(response, whole=whole)
        seen = self._held[: len(text) - len(self._given)]
        if acts is None:
            return None, ""
        if acts and not whole and response.action == "redact" and not self._settled(text, response.text or ""):
            return None, ""  # what is taken out may still be being written
        after = self._held[len(seen) :]
        if acts and (response.action != "redact" or response.text is None or not response.text.startswith(self._given)):
            if response.action == "redact":  # a part of it is with the reader already
                response = response.model_copy(update={"action": "block"})
            return self._stopped(response, found), ""
        if acts and response.text is not None:
            seen = response.text[len(self._given) :]
            self._looked = len(self._given) + len(seen)
        self._taken.add(response.action)
        if whole:
            self._held = ""
            strongest = max(self._taken, key=STRENGTH.index)
            told = response.model_copy(update={"action": strongest, "text": self._given + seen})
            return Ending(replace(found, response=told, spent=self._spent), stopped=False, instead="", looks=self._looks), seen
        piece = seen[: self._cut(seen)]
        self._held = seen[len(piece) :] + after
        return None, piece

    def _settled(self, text: str, left: str) -> bool:
        """Whether enough of a text follows what is to be taken out of it."""
        if not left.startswith(self._given):  # a look let that through: what is wrong came after it, and is not whole yet
            return False
        same = next((at for at, (own, other) in enumerate(zip(reversed(text), reversed(left), strict=False)) if own != other), min(len(text), len(left)))
        return len(self._ends(text[len(text) - same :])) >= max(self._terms.hold_back, SETTLED)

    def _cut(self, seen: str) -> int:
        """How much of what was seen need not wait."""
        back = self._terms.hold_back
        if back == 0:
            return len(seen)
        ends = self._ends(seen)
        return ends[-back - 1] if len(ends) > back else 0

    def _acts(self, response: GuardResponse, *, whole: bool) -> bool | None:
        """Whether a look's action is to be taken; None where it has to be seen again first."""
        terms = self._terms
        holding = {one.name for one in response.rulesets if one.taken and one.action in _HOLDING}
        self._streaks = {name: self._streaks.get(name, 0) + 1 for name in holding}
        if not holding:
            return False
        strongest = {one.name for one in response.rulesets if one.taken and one.action == response.action} or holding  # what cannot be redacted is blocked
        if whole or any(self._streaks.get(name, 0) >= terms.agree or self._hard(response, name) for name in strongest):
            return True
        return None

    def _hard(self, response: GuardResponse, ruleset: str) -> bool:
        """Whether a ruleset fired on something that needs no second look."""
        least = self._terms.hard
        sure = {one.judge for one in response.answers if least is not None and one.flagged and (one.score or 0.0) >= least}
        fired = [one for one in response.reasons if one.ruleset == ruleset and one.status == "triggered"]
        return any(not one.judge or not sure.isdisjoint(one.judge.split(", ")) for one in fired)

    def _stopped(self, response: GuardResponse, found: Guarded) -> Ending:
        self._held = ""
        instead = response.text or "" if response.action == "override" else response.message
        told = response.model_copy(update={"text": self._given})
        return Ending(replace(found, response=told, spent=self._spent), stopped=True, instead=instead, looks=self._looks)


def _joined(text: str) -> str:
    """A text whose surrogate pairs came in two parts, put together."""
    if text.isascii() or not _PAIR.search(text):
        return text
    return _PAIR.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
