"""The splits of a data set that grows: the test is taken first and frozen; every other row's split follows from the hash of its group.

Rows are looked at in the order they were added, so what came later never moves what was there. A row that belongs with two splits (its group with one, its
text with another) or lies near the test is held out, and told. Knows nothing of files.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import Field

from snapjudge.core.example import Example
from snapjudge.core.frozen import Frozen
from snapjudge.core.metric import Metric
from snapjudge.curate.near import NearIndex, common_shingles, index_of, near_text
from snapjudge.curate.split import groups_of, hashed
from snapjudge.curate.times import moment
from snapjudge.errors import OptionInvalid, Problem, TestSetChanged, TooFewExamples

SplitName = Literal["train", "validation", "calibration", "test", "held"]
SHARES: Mapping[SplitName, float] = {"validation": 0.12, "calibration": 0.22}  # of what is not the test; the rest is training
PER_CLASS = 100


class FrozenTest(Frozen):
    """test.json: which rows are the test, by digest of their text, and how they were chosen."""

    format: int = 1
    metric: str
    criteria_version: int
    salt: str = Field(description="what the hashes begin with; another salt gives other splits")
    by_time: bool = False
    starts: str = Field(default="", description="by time: when the test begins; rows from then on are no training data")
    members: dict[str, str] = Field(description="example id -> digest of its text")
    labels: dict[str, int] = Field(description="examples by label when it was frozen")
    created: str
    digest: str = ""

    def sealed(self) -> "FrozenTest":
        """The same with its own digest."""
        body = self.model_copy(update={"digest": ""}).model_dump(mode="json")
        return self.model_copy(update={"digest": hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()})


def freeze(examples: Sequence[Example], metric: Metric, *, size: int, by_time: bool = False, salt: str = "", created: str = "") -> FrozenTest:
    """Choose a test of about `size` labelled examples: whole groups, stratified by label with at least 100 of each where there are enough,
    in the order of their hashes; or, by time, the newest.

    Raises:
        TooFewExamples: the test would take more than half of the examples.
        OptionInvalid: by time, and more than one in ten has no date.
    """
    if len(examples) < 2 * size:
        raise TooFewExamples(
            "data set",
            [Problem("(data)", f"{len(examples)} examples labelled by people", f"at least {2 * size} for a test of {size}")],
            hint="label more, or pass --test SIZE",
        )
    groups = list(groups_of(examples).values())
    chosen, starts = _newest(groups, size) if by_time else (_stratified(groups, size, salt), "")
    members = [example for group in chosen for example in group]
    labels = Counter(metric.label_names[example.label_index] for example in members)
    return FrozenTest(
        metric=metric.name,
        criteria_version=metric.version,
        salt=salt,
        by_time=by_time,
        starts=starts,
        members={example.id: example.content_key for example in members},
        labels={name: labels.get(name, 0) for name in metric.labels},
        created=created,
    ).sealed()


def check_frozen(test: FrozenTest, examples: Sequence[Example]) -> None:
    """Refuse a frozen test whose file or rows have changed.

    Raises:
        TestSetChanged.
    """
    if test.sealed().digest != test.digest:
        raise TestSetChanged(
            "test.json does not match its digest", hint="restore the file; or remove it and freeze a new test, which earlier proofs do not know"
        )
    known = {example.id: example.content_key for example in examples}
    changed = [name for name, key in test.members.items() if known.get(name) != key]
    if changed:
        raise TestSetChanged(
            f"{len(changed)} rows of the frozen test are missing or have another text, such as {changed[0]}",
            hint="restore examples.jsonl; a test that changes proves nothing",
        )


def assign(examples: Sequence[Example], test: FrozenTest | None, shares: Mapping[SplitName, float] = SHARES) -> dict[str, tuple[SplitName, str]]:
    """The split of every example by id, with the reason where it is held out.

    Args:
        examples: all of the data set, labelled or not, in the order they were added.
        shares: of validation and calibration; the rest is training.
    """
    found: dict[str, tuple[SplitName, str]] = {}
    by_group: dict[str, SplitName] = {}
    by_text: dict[str, SplitName] = {}
    salt = test.salt if test else ""
    members = test.members if test else {}
    tested = [example for example in examples if example.id in members]
    by_group |= dict.fromkeys((example.group for example in tested), "test")
    by_text |= dict.fromkeys((example.content_key for example in tested), "test")
    index = index_of(tested, common_shingles([near_text(example.inputs) for example in examples])) if test else None
    for example in examples:
        if example.id in members:
            found[example.id] = "test", ""
            continue
        group, text = by_group.get(example.group), by_text.get(example.content_key)
        reason = _reason(example, test, index, group, text)
        split = "held" if reason else group or text or _dealt(example.group, shares, salt)
        if not reason:
            by_group[example.group] = by_text[example.content_key] = split
        found[example.id] = split, reason
    return found


def _reason(example: Example, test: FrozenTest | None, index: NearIndex | None, group: SplitName | None, text: SplitName | None) -> str:
    """Why an example that is not in the test is held out of the other splits; empty where it is not."""
    if test is None or index is None:
        return _torn(group, text)
    if text == "test" or group == "test":
        return "the text of a test row" if text == "test" else "the group of a test row"
    when = moment(example.provenance.date)
    if test.starts and (when is None or when.isoformat() >= test.starts):
        return "not older than the test" if when else "without a date"
    near = index.near(near_text(example.inputs))
    return f"near test row {near[0]} ({near[1]:.2f})" if near else _torn(group, text)


def _torn(group: SplitName | None, text: SplitName | None) -> str:
    return f"its group is in {group}, its text in {text}" if group and text and group != text else ""


def _dealt(group: str, shares: Mapping[SplitName, float], salt: str) -> SplitName:
    """A split by the hash of the group: a number in [0, 1) against the shares."""
    place = int(hashed(group, f"split {salt}")[:15], 16) / 16**15  # not the order the test was taken in
    for name, share in shares.items():
        if place < share:
            return name
        place -= share
    return "train"


def _stratified(groups: Sequence[list[Example]], size: int, salt: str) -> Iterator[list[Example]]:
    """Groups in hash order, each to the label most of it has, until every label has its quota."""
    strata: dict[int, list[list[Example]]] = defaultdict(list)
    for members in groups:
        strata[Counter(example.label_index for example in members).most_common(1)[0][0]].append(members)
    counts = {label: sum(map(len, some)) for label, some in strata.items()}
    total = sum(counts.values())
    for label, some in sorted(strata.items()):
        quota = max(round(size * counts[label] / total), min(PER_CLASS, size // len(strata), counts[label] // 2))
        taken = 0
        for members in sorted(some, key=lambda group: hashed(group[0].group, salt)):
            if taken >= quota:
                break
            taken += len(members)
            yield members


def _newest(groups: Sequence[list[Example]], size: int) -> tuple[list[list[Example]], str]:
    """Groups that lie wholly in the newest part, and when that begins."""
    times = {example.id: moment(example.provenance.date) for members in groups for example in members}
    known = sorted(when for when in times.values() if when is not None)
    if len(known) < 0.9 * len(times):
        raise OptionInvalid(
            f"{len(times) - len(known)} of {len(times)} examples have no date", hint="split without --by-time, or import with --map date=COLUMN"
        )
    starts = known[-size]
    chosen = [members for members in groups if all((when := times[example.id]) is not None and when >= starts for example in members)]
    return chosen, starts.isoformat()
