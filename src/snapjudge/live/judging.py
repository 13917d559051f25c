"""From inputs to answers: rendered once for all judges that read the same, asked of the engines, calibrated, signed.

The same bits as `judge.Panel` gives: the same rendering, readings and calibration (DESIGN.md, "one path to a number"). Knows nothing of HTTP.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from snapjudge.core.api import Answer, Item, ItemAnswers, Usage
from snapjudge.core.calibration import softmax
from snapjudge.core.example import check_inputs, length_of
from snapjudge.core.judgement import Abstention, judge_of
from snapjudge.core.metric import INPUT_NAMES, Metric
from snapjudge.core.question import OpenQuestion
from snapjudge.errors import ContentTooLong, EngineBusy, EngineClosed, EngineFailed, SnapjudgeError
from snapjudge.generalist import open_judgement, signature
from snapjudge.live.backing import Backing
from snapjudge.live.host import Host
from snapjudge.live.messages import Found
from snapjudge.live.roster import Loaded
from snapjudge.model.prompt import Content, closing_tokens, content_windows, render_content
from snapjudge.model.prompt_rules import PromptRules

T = TypeVar("T")
LARGE = 50_000  # characters from which on a content is rendered on a thread of its own
_WHOLE = (EngineBusy, EngineClosed, EngineFailed)  # what ends a request as a whole, rather than one answer of it


InputsOf = Callable[[Item, Metric | None], Mapping[str, Any]]


def as_given(item: Item, _: Metric | None) -> Mapping[str, Any]:
    """The item's fields, for everybody."""
    return item.inputs


@dataclass(frozen=True)
class Asked:
    """Whom a request asks: judges with the names they were asked by, and open questions that no judge answers, each at its place among the answers."""

    judges: tuple[tuple[int, str, Loaded], ...]
    questions: tuple[tuple[int, OpenQuestion], ...] = ()

    @property
    def count(self) -> int:
        """How many answers there are for each item."""
        return len(self.judges) + len(self.questions)


@dataclass
class Spent:
    """What a request took of the engines."""

    tokens: int = 0
    cached: int = 0
    waited: float = 0.0
    seconds: float = 0.0

    def join(self, other: "Spent | Found") -> None:
        """Note what ran at the same time: its tokens count, its time does not twice."""
        self.tokens += other.tokens
        self.cached += other.cached
        self.waited = max(self.waited, other.waited)
        self.seconds = max(self.seconds, other.seconds)

    @property
    def usage(self) -> Usage:
        """For the caller."""
        return Usage(tokens=self.tokens, cached_tokens=self.cached)


@dataclass
class Growing:
    """Contents that grow, by what is read of them: the number that an engine session has for each, and with whom."""

    numbers: dict[object, tuple[Host, int]] = field(default_factory=dict)

    def number(self, key: object, host: Host) -> int:
        """The engine session of one of them."""
        if key not in self.numbers:
            self.numbers[key] = host, host.new_session()
        return self.numbers[key][1]


@dataclass
class _Group:
    """What is asked about one content of one backbone in one go."""

    backing: Backing
    content: Content
    fields: tuple[str, ...]
    judges: list[tuple[int, str, Loaded, str]] = field(default_factory=list)  # place, asked name, judge, part of the traffic
    questions: list[tuple[int, OpenQuestion]] = field(default_factory=list)


class Rendered:
    """One item's checked inputs and contents, each made once for all who read the same.

    Args:
        inputs_of: the fields that a metric's judge is given of an item, those that open questions are put about where there is no metric; the same for metrics
            of the same inputs.
    """

    def __init__(self, item: Item, inputs_of: "InputsOf") -> None:
        self._item, self._inputs_of = item, inputs_of
        self._checked: dict[object, dict[str, Any] | SnapjudgeError] = {}
        self._lengths: dict[object, int] = {}
        self._contents: dict[object, Content | SnapjudgeError] = {}

    def content(self, judge: Loaded, rules: PromptRules) -> tuple[Content, str]:
        """What a judge reads of the item, and the part of the traffic that its calibration sees in it.

        Raises:
            InputInvalid.
        """
        metric = judge.metric
        key = metric.inputs, metric.optional
        own = self._inputs(key, metric)
        if key not in self._lengths:
            self._lengths[key] = length_of(own)
        place = judge.host, tuple(own), metric.by_passages, metric.type == "pairwise"
        return self._content(place, own, metric, rules), judge.calibration.part_of(self._lengths[key], self._item.source)

    def fields(self, judge: Loaded) -> tuple[str, ...]:
        """The fields of the item that a judge reads."""
        return tuple(_or_raised(self._checked[judge.metric.inputs, judge.metric.optional]))

    def open_content(self, host: str, rules: PromptRules) -> Content:
        """What open questions read: everything there is.

        Raises:
            InputInvalid.
        """
        key = INPUT_NAMES, INPUT_NAMES
        if key not in self._checked:
            self._checked[key] = _caught(lambda: check_inputs(self._inputs_of(self._item, None), *key))
        own = _or_raised(self._checked[key])
        place = host, "open"
        if place not in self._contents:
            self._contents[place] = _caught(lambda: Content(content_windows(own, rules)))
        return _or_raised(self._contents[place])

    def _inputs(self, key: tuple[tuple[str, ...], tuple[str, ...]], metric: Metric) -> dict[str, Any]:
        if key not in self._checked:
            self._checked[key] = _caught(lambda: check_inputs(self._inputs_of(self._item, metric), metric.ordered_inputs, metric.optional))
        return _or_raised(self._checked[key])

    def _content(self, place: object, own: Mapping[str, Any], metric: Metric, rules: PromptRules) -> Content:
        if place not in self._contents:
            self._contents[place] = _caught(lambda: render_content(own, metric, rules))
        return _or_raised(self._contents[place])


async def judge_items(
    items: Sequence[Item],
    asked: Asked,
    backings: Mapping[str, Backing],
    generalist: str,
    *,
    deadline: float | None = None,
    growing: Growing | None = None,
    inputs_of: InputsOf = as_given,
) -> tuple[list[ItemAnswers], Spent]:
    """The answers about some items, in order; an input that a judge cannot read is that answer's abstention.

    Args:
        backings: by the digests of their backbones.
        generalist: the digest of the backbone that open questions are put to.
        deadline: on the monotonic clock.
        growing: the one item is a content that grows, and this is what is known of it from before.
        inputs_of: as `Rendered` says.

    Raises:
        EngineBusy, DeadlineMissed, EngineDown, EngineFailed: of the request as a whole.
    """
    spent = Spent()
    answers: list[list[Answer | None]] = [[None] * asked.count for _ in items]
    found: list[tuple[_Group, list[Answer | None]]] = []
    for item, own in zip(items, answers, strict=True):
        rendered = Rendered(item, inputs_of)
        if _characters(item.inputs) > LARGE:  # others' requests must not wait for its tokens
            some = await asyncio.to_thread(_groups, rendered, asked, own, backings, generalist)
        else:
            some = _groups(rendered, asked, own, backings, generalist)
        found += [(group, own) for group in some]
    groups = [_answered(group, own, spent, deadline, growing) for group, own in found]
    if len(groups) == 1:
        await groups[0]
    else:
        await _together(groups)
    return [ItemAnswers(id=item.id, answers=tuple(one for one in own if one is not None)) for item, own in zip(items, answers, strict=True)], spent


def _groups(rendered: Rendered, asked: Asked, answers: list[Answer | None], backings: Mapping[str, Backing], generalist: str) -> list[_Group]:
    """What is asked about an item, content by content; the abstentions of inputs that cannot be read are put down already."""
    groups: dict[tuple[str, Content], _Group] = {}
    for place, name, judge in asked.judges:
        backing = backings[judge.host]
        try:
            content, part = rendered.content(judge, backing.rules)
            _check_length(content, backing)
        except SnapjudgeError as error:
            answers[place] = Answer.of(name, judge.digest, Abstention.of(judge.judge, error))
            continue
        groups.setdefault((judge.host, content), _Group(backing, content, rendered.fields(judge))).judges.append((place, name, judge, part))
    for place, question in asked.questions:
        backing = backings[generalist]
        try:
            content = rendered.open_content(generalist, backing.rules)
            _check_length(content, backing)
        except SnapjudgeError as error:
            answers[place] = Answer.of(question.name or question.instructions, generalist, Abstention.of(signature(backing.name), error))
            continue
        groups.setdefault((generalist, content), _Group(backing, content, ())).questions.append((place, question))
    return list(groups.values())


def _characters(value: Any) -> int:
    """About how long a value's texts are together."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 0


def _check_length(content: Content, backing: Backing) -> None:
    """See that a content is no longer than may be.

    Raises:
        ContentTooLong.
    """
    most = backing.host.terms.longest
    if content.tokens > most:
        raise ContentTooLong(f"a content of {content.tokens:,} tokens, and {most:,} may be", hint="send it in parts, or start the server with --max-tokens")


async def _answered(group: _Group, answers: list[Answer | None], spent: Spent, deadline: float | None, growing: Growing | None) -> None:
    """Ask about one content and put the answers down; an error that is one content's own becomes the abstention of all who read it."""
    backing, content = group.backing, group.content
    wordings = list(dict.fromkeys(wording for _, question in group.questions for some in question.wordings for wording in some))
    cost = content.tokens + len(content.windows) * (sum(judge.readout for _, _, judge, _ in group.judges) + sum(len(wording) // 4 + 4 for wording in wordings))
    try:
        keys = [judge.digest for _, _, judge, _ in group.judges]
        if growing is not None and len(content.windows) == 1 and not group.questions:
            found = await _grown(group, keys, cost, deadline, growing)
        else:
            found = await backing.host.ask(content, keys, wordings, cost=cost, deadline=deadline)
    except _WHOLE:
        raise
    except SnapjudgeError as error:
        for place, name, judge, _ in group.judges:
            answers[place] = Answer.of(name, judge.digest, Abstention.of(judge.judge, error))
        for place, question in group.questions:
            answers[place] = Answer.of(question.name or question.instructions, backing.host.digest, Abstention.of(signature(backing.name), error))
        return
    spent.join(found)
    for log_p, strange, (place, name, judge, part) in zip(found.log_p, found.strange, group.judges, strict=True):
        judgement = judge_of(judge.judge, judge.metric, judge.calibration, log_p, len(content.windows) // content.orders, part)
        raw = dict(zip(judge.metric.labels, softmax(log_p), strict=True))
        answers[place] = Answer.of(name, judge.digest, judgement, raw=raw, threshold=judge.threshold, out_of_distribution=strange)
    if not group.questions:
        return
    windows = [dict(zip(wordings, one, strict=True)) for one in found.windows]
    nearest = dict(zip(wordings, found.nearest, strict=True))
    for place, question in group.questions:
        judgement = open_judgement(signature(backing.name), question, windows, backing.evidence)
        near = nearest[question.wordings[0][0]]
        answers[place] = Answer.of(question.name or question.instructions, backing.host.digest, judgement, raw=judgement.probabilities, nearest=near)


async def _grown(group: _Group, keys: Sequence[str], cost: int, deadline: float | None, growing: Growing) -> Found:
    """The same of a content that grows: what closes its last field is not part of what stays at hand."""
    (window,), host = group.content.windows, group.backing.host
    end = len(window) - closing_tokens(group.fields[-1], group.backing.rules)
    session = growing.number((host, group.fields), host)
    return await host.ask(Content((window[:end],)), keys, cost=cost, deadline=deadline, session=session, tail=window[end:])


async def read_ahead(item: Item, asked: Asked, backings: Mapping[str, Backing], growing: Growing, *, deadline: float | None) -> Spent:
    """Read a growing content without asking anything, where what is read now need not be read again."""
    spent = Spent()
    rendered = Rendered(item, as_given)
    for host, judges in {judge.host: judge for _, _, judge in asked.judges}.items():
        backing = backings[host]
        content, _ = rendered.content(judges, backing.rules)
        if backing.rules.content_mask == "causal" and len(content.windows) == 1:
            group = _Group(backing, content, rendered.fields(judges))
            spent.join(await _grown(group, (), content.tokens, deadline, growing))
    return spent


async def _together(groups: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all at once; the first that fails ends the others."""
    tasks = [asyncio.ensure_future(one) for one in groups]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION) if tasks else (set(), set())
    finally:
        for task in tasks:
            task.cancel()
    for task in done:
        task.result()


def _caught(make: Callable[[], T]) -> T | SnapjudgeError:
    """What is made, or the error that kept it from being made."""
    try:
        return make()
    except SnapjudgeError as error:
        return error


def _or_raised(found: T | SnapjudgeError) -> T:
    if isinstance(found, SnapjudgeError):
        raise found
    return found
