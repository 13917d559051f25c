"""Who answers to which name: immutable, so that a request keeps the roster it came with while judges are loaded, unloaded and renamed.

Knows nothing of engines or requests.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from types import MappingProxyType

from snapjudge.core.api import LoadedJudge
from snapjudge.core.calibration import Calibration
from snapjudge.core.metric import Metric
from snapjudge.core.question import OpenQuestion, same_question
from snapjudge.errors import JudgeUnknown, OptionInvalid

_ALIAS = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A judge that answers.

    Args:
        digest: of its bundle; also the key it has in the engines.
        readout: tokens of its readout.
        host: the digest of the backbone whose engines have it.
        languages: that it was proved on; empty where that is not known.
    """

    judge: str
    digest: str
    metric: Metric
    calibration: Calibration
    backbone: str
    scope: str
    readout: int
    host: str
    languages: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name without the version."""
        return self.judge.partition("@")[0]

    @property
    def version(self) -> int:
        """Its version."""
        return int(self.judge.partition("@")[2])

    @property
    def threshold(self) -> float | None:
        """The score from which on it flags; None where it flags nothing."""
        return self.calibration.threshold.value if self.metric.positive_labels else None


@dataclass(frozen=True)
class Roster:
    """Judges by name and version, and aliases. A name without a version is its newest version's; an alias goes before a name."""

    judges: Mapping[str, Loaded] = field(default_factory=lambda: MappingProxyType({}))
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def find(self, name: str) -> Loaded:
        """The judge that answers to a name.

        Raises:
            JudgeUnknown: with names that are near.
        """
        target = self.aliases.get(name, name)
        found = self.judges.get(target) or self._newest.get(target)
        if found is None:
            known = [*self.judges, *self._newest, *self.aliases]
            near = get_close_matches(name, known, 3)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise JudgeUnknown(f"no judge {name!r} is loaded", hint=f"{hint}GET /v1/judges lists those that are; POST /v1/judges loads one", received=name)
        return found

    def trained_for(self, question: OpenQuestion) -> Loaded | None:
        """The judge that a question names, or that was trained for the very question and has an answer for each of its options."""
        named = self.judges.get(question.name) or self._newest.get(question.name) or self.judges.get(self.aliases.get(question.name, ""))
        if named is not None and fits(question, named.metric):
            return named
        return next((one for one in self._by_question.get(same_question(question.instructions), ()) if fits(question, one.metric)), None)

    def names_of(self, judge: Loaded) -> tuple[str, ...]:
        """All that a judge answers to."""
        newest = [judge.name] if self._newest.get(judge.name) is judge and judge.name not in self.aliases else []
        return (judge.judge, *newest, *sorted(alias for alias in self.aliases if self.find(alias) is judge))

    def described(self) -> Iterator[LoadedJudge]:
        """Every judge for people and clients."""
        for one in self.judges.values():
            threshold, metric = one.calibration.threshold, one.metric
            yield LoadedJudge(
                judge=one.judge,
                digest=one.digest,
                type=metric.type,
                question=metric.question,
                inputs=metric.ordered_inputs,
                optional=metric.optional,
                text_field=metric.place_of_text(),
                labels=metric.label_names,
                flags=metric.positive_labels,
                threshold=one.threshold,
                promise=str(threshold.rule) if threshold.rule is not None and threshold.guaranteed else "",
                backbone=one.backbone,
                scope=one.scope,
                names=self.names_of(one),
            )

    def with_judge(self, judge: Loaded) -> "Roster":
        """With a judge more."""
        return replace(self, judges=MappingProxyType({**self.judges, judge.judge: judge}))

    def without(self, judge: Loaded) -> "Roster":
        """Without a judge; aliases that pointed at it are gone, too."""
        judges = {name: one for name, one in self.judges.items() if one is not judge}
        left = replace(self, judges=MappingProxyType(judges))
        return replace(left, aliases=MappingProxyType({alias: to for alias, to in self.aliases.items() if to in judges or to in left._newest}))

    def with_alias(self, alias: str, judge: str) -> "Roster":
        """With a name that points at a judge.

        Raises:
            OptionInvalid: no such name can be given. JudgeUnknown.
        """
        if not _ALIAS.match(alias):
            raise OptionInvalid(f"{alias[:140]!r} is no alias", hint="letters, digits and _ . : - , at most 128 of them", received=alias[:140])
        return replace(self, aliases=MappingProxyType({**self.aliases, alias: self.find(judge).judge}))

    def without_alias(self, alias: str) -> "Roster":
        """Without an alias.

        Raises:
            JudgeUnknown: there is none of that name.
        """
        if alias not in self.aliases:
            raise JudgeUnknown(f"no alias {alias!r}", hint="GET /v1/judges lists them", received=alias)
        return replace(self, aliases=MappingProxyType({name: to for name, to in self.aliases.items() if name != alias}))

    @cached_property
    def _newest(self) -> dict[str, Loaded]:
        found: dict[str, Loaded] = {}
        for one in self.judges.values():
            if one.name not in found or one.version > found[one.name].version:
                found[one.name] = one
        return found

    @cached_property
    def _by_question(self) -> dict[str, list[Loaded]]:
        found: dict[str, list[Loaded]] = {}
        for one in self._newest.values():
            found.setdefault(same_question(one.metric.question), []).append(one)
        return found


def fits(question: OpenQuestion, metric: Metric) -> bool:
    """Whether a metric's labels answer a question: its type is the same, and so are the options where there are any."""
    if question.type != metric.type:
        return False
    return question.type == "boolean" or question.options == metric.label_names
