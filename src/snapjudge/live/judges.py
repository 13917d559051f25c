"""The judges that answer live traffic: loaded, unloaded and renamed while it flows, and asked.

    judges = await LiveJudges.start(HostTerms(), ["toxicity", "tone"])
    found, spent = await judges.ask([Item(inputs={"output": "..."})], ["toxicity"])

A request keeps the roster it came with; a judge that is unloaded finishes what it was asked. Knows nothing of HTTP.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from snapjudge.core.api import Item, ItemAnswers
from snapjudge.core.manifest import OWN_BACKBONE
from snapjudge.core.question import OpenQuestion
from snapjudge.errors import BundleInvalid, JudgeUnknown
from snapjudge.live.backing import Backing
from snapjudge.live.host import HostTerms
from snapjudge.live.judging import Asked, Growing, InputsOf, Spent, as_given, judge_items, read_ahead
from snapjudge.live.roster import Loaded, Roster
from snapjudge.store.bundles import Bundle, find_bundle, load_bundle

_log = logging.getLogger(__name__)


class LiveJudges:
    """Made by `LiveJudges.start`. For one event loop.

    Attributes:
        roster: who answers to which name just now.
        backings: by the digests of their backbones.
    """

    def __init__(self, terms: HostTerms, first: Backing) -> None:
        self.roster = Roster()
        self.backings: dict[str, Backing] = {first.host.digest: first}
        self._terms, self._generalist = terms, first.host.digest
        self._changing = asyncio.Lock()
        self._users: Counter[str] = Counter()  # requests on their way, by judge's digest
        self._unused: dict[str, asyncio.Event] = {}

    @classmethod
    async def start(cls, terms: HostTerms, judges: Sequence[str] = ()) -> "LiveJudges":
        """Start the engines of a backbone, which also answers open questions, and load judges.

        Raises:
            BackboneNotFound, BackboneUnsupported, EngineDown; BundleNotFound, BundleInvalid, BackboneMismatch.
        """
        own = cls(terms, await Backing.start(terms))
        try:
            for name in judges:
                await own.load(name)
        except BaseException:
            await own.close()
            raise
        return own

    @property
    def generalist(self) -> Backing:
        """The backbone that open questions are put to."""
        return self.backings[self._generalist]

    @property
    def ready(self) -> bool:
        """Whether every backbone has an engine that runs."""
        return all(one.host.ready for one in self.backings.values())

    async def load(self, name: str | Path) -> Loaded:
        """Load a judge by name or folder; one that is loaded already stays as it is.

        Raises:
            BundleNotFound, BundleInvalid, PickleRefused, BackboneNotFound, BackboneMismatch, AdapterInvalid; BundleInvalid: another bundle answers to the same
            name and version.
        """
        bundle = await asyncio.to_thread(lambda: load_bundle(find_bundle(name)))
        async with self._changing:
            known = self.roster.judges.get(bundle.manifest.judge)
            if known is not None:
                if known.digest == bundle.digest:
                    return known
                raise BundleInvalid(
                    f"{known.judge} is loaded already, from another bundle ({known.digest[:12]}, not {bundle.digest[:12]})",
                    hint="versions never change: unload the one that is there first, or give the new one another version",
                )
            host = await self._backing_of(bundle)
            size = await self.backings[host].host.load(bundle.digest, str(bundle.folder), bundle.digest)
            own = bundle.manifest
            loaded = Loaded(own.judge, bundle.digest, bundle.metric, bundle.calibration, own.backbone.name, own.scope, size, host, bundle.languages)
            self.roster = self.roster.with_judge(loaded)
        _log.info("loaded %s", loaded.judge)
        return loaded

    async def unload(self, name: str) -> Loaded:
        """Take a judge out of the roster; what it was asked is answered first.

        Raises:
            JudgeUnknown.
        """
        async with self._changing:
            judge = self.roster.find(name)
            self.roster = self.roster.without(judge)
            if self._users[judge.digest]:
                self._unused[judge.digest] = asyncio.Event()
                await self._unused[judge.digest].wait()
                del self._unused[judge.digest]
            await self.backings[judge.host].host.unload(judge.digest)
            if judge.host != self._generalist and not any(one.host == judge.host for one in self.roster.judges.values()):
                await self.backings.pop(judge.host).host.close()
        _log.info("unloaded %s", judge.judge)
        return judge

    async def point(self, alias: str, judge: str | None) -> None:
        """Point an alias at a judge, or take it away.

        Raises:
            JudgeUnknown, OptionInvalid.
        """
        async with self._changing:
            self.roster = self.roster.without_alias(alias) if judge is None else self.roster.with_alias(alias, judge)

    def asked(self, judges: Sequence[str], questions: Sequence[OpenQuestion] = ()) -> Asked:
        """Whom a request asks: questions that a loaded judge was trained for go to it.

        Raises:
            JudgeUnknown.
        """
        roster = self.roster
        named = [(place, name, roster.find(name)) for place, name in enumerate(judges)]
        open_ones: list[tuple[int, OpenQuestion]] = []
        for place, question in enumerate(questions, len(judges)):
            trained = roster.trained_for(question)
            if trained is None:
                open_ones.append((place, question))
            else:
                named.append((place, question.name or question.instructions, trained))
        return Asked(tuple(named), tuple(open_ones))

    async def ask(
        self, items: Sequence[Item], judges: Sequence[str], questions: Sequence[OpenQuestion] = (), *, deadline: float | None = None
    ) -> tuple[list[ItemAnswers], Spent]:
        """Answers about some items: of judges by name, then to questions; see `judging.judge_items`.

        Raises:
            JudgeUnknown, EngineBusy, DeadlineMissed, EngineDown, EngineFailed.
        """
        return await self.answer(items, self.asked(judges, questions), deadline=deadline)

    async def answer(
        self, items: Sequence[Item], asked: Asked, *, deadline: float | None = None, inputs_of: InputsOf = as_given, growing: Growing | None = None
    ) -> tuple[list[ItemAnswers], Spent]:
        """The same of those whom `asked` has found; one item may be a content that grows (see `ask_again`)."""
        with self.held(asked):
            return await judge_items(items, asked, self.backings, self._generalist, deadline=deadline, inputs_of=inputs_of, growing=growing)

    async def ask_again(
        self, item: Item, asked: Asked, growing: Growing, *, only_read: bool = False, deadline: float | None = None
    ) -> tuple[ItemAnswers, Spent]:
        """Answers about a content that grows, by whom it was asked before; it stays at hand until `let_go`.

        Args:
            only_read: ask nobody; what is read now need not be read later (causal backbones).

        Raises:
            JudgeUnknown: one of them was unloaded. EngineBusy, DeadlineMissed, EngineDown, EngineFailed; with `only_read` InputInvalid.
        """
        for _, name, judge in asked.judges:
            if judge.host not in self.backings or self.roster.judges.get(judge.judge) is not judge:
                raise JudgeUnknown(f"{judge.judge} was unloaded", hint="open a new session with a judge that is loaded", received=name)
        if only_read:
            with self.held(asked):
                return ItemAnswers(answers=()), await read_ahead(item, asked, self.backings, growing, deadline=deadline)
        (found,), spent = await self.answer([item], asked, deadline=deadline, growing=growing)
        return found, spent

    def let_go(self, growing: Growing) -> None:
        """Forget a content that grew."""
        for host, number in growing.numbers.values():
            host.close_session(number)
        growing.numbers.clear()

    @contextmanager
    def held(self, asked: Asked) -> Iterator[None]:
        """Keep the judges of a request in the engines for as long as it runs."""
        digests = [judge.digest for _, _, judge in asked.judges]
        self._users.update(digests)
        try:
            yield
        finally:
            self._users.subtract(digests)
            for digest in digests:
                if not self._users[digest]:
                    del self._users[digest]
                    if digest in self._unused:
                        self._unused[digest].set()

    async def close(self) -> None:
        """End all engines."""
        backings, self.backings = list(self.backings.values()), {}
        await asyncio.gather(*(one.host.close() for one in backings))

    async def _backing_of(self, bundle: Bundle) -> str:
        """The digest of the backbone a bundle is for, its engines started if they are not there."""
        stated = bundle.manifest.backbone
        if stated.digest not in self.backings:
            name = str(bundle.folder / "backbone") if stated.name == OWN_BACKBONE else stated.name
            backing = await Backing.start(self._terms.model_copy(update={"backbone": name, "open_questions": False}))
            if backing.host.digest != stated.digest:
                await backing.host.close()
                raise BundleInvalid(
                    f"{bundle.manifest.judge} was trained on {name} ({stated.digest[:12]}); what is there now is {backing.host.digest[:12]}",
                    hint="restore the backbone it was trained on, or train it again",
                )
            self.backings[stated.digest] = backing
        return stated.digest
