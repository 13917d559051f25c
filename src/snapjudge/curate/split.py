"""Splitting examples by group, and the checks that keep a test honest.

A group never falls on two sides, and neither does a text: groups that share a text are one. Knows nothing of models.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.curate.near import common_shingles, index_of, near_text
from snapjudge.errors import DataInvalid, DataLeak, Problem, TooFewExamples

FEWEST = 20


@dataclass(frozen=True)
class Splits:
    """Training data, the validation that picks the epoch, the calibration split, and the test."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    calibration: tuple[Example, ...]
    test: tuple[Example, ...]


def deduplicated(examples: Sequence[Example]) -> tuple[list[Example], int]:
    """The first of each (text, label); and how many were left out."""
    seen: dict[tuple[str, int], Example] = {}
    for example in examples:
        seen.setdefault((example.content_key, example.label_index), example)
    return list(seen.values()), len(examples) - len(seen)


def contradictory(examples: Sequence[Example]) -> list[list[Example]]:
    """Examples of the same text with different labels, text by text."""
    by_text: dict[str, list[Example]] = {}
    for example in examples:
        by_text.setdefault(example.content_key, []).append(example)
    return [some for some in by_text.values() if len({one.label_index for one in some}) > 1]


def check_enough(examples: Sequence[Example], metric: Metric, source: str) -> None:
    """Refuse data no judge can be trained or proved on.

    Raises:
        TooFewExamples: fewer than twenty examples.
        DataInvalid: one class only.
    """
    if len(examples) < FEWEST:
        raise TooFewExamples(source, [Problem("(data)", f"{len(examples)} examples", f"at least {FEWEST}, better 300")], hint="label more examples first")
    counts = Counter(metric.label_names[example.label_index] for example in examples)
    if len(counts) < 2:
        found = f"{len(examples)} examples, all {next(iter(counts))}"
        raise DataInvalid(source, [Problem("label", found, "at least two of the labels")], hint="add examples of the other label")


def check_leak(train: Sequence[Example], test: Sequence[Example], *, allow: bool) -> int:
    """Texts of the test that are also in the training data; an error unless allowed.

    Raises:
        DataLeak: naming the first pairs.
    """
    known = {example.content_key: example for example in train}
    groups = {example.provenance.group: example for example in train if example.provenance.group}
    pairs = []
    for example in test:
        twin = known.get(example.content_key)
        if twin is None and example.provenance.group:
            twin = groups.get(example.provenance.group)
        if twin is not None:
            pairs.append((example, twin))
    if pairs and not allow:
        problems = [Problem(f"{mine.where}", f"the text or group of {theirs.where}", "test examples that training has not seen") for mine, theirs in pairs[:10]]
        raise DataLeak(
            "test data", problems, more=max(0, len(pairs) - 10), hint="remove them from one side, or pass --allow-leak to go on with a proof that proves less"
        )
    return len(pairs)


def without_near(train: Sequence[Example], test: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Training examples that are near no test example, and those that are."""
    index = index_of(test, common_shingles([near_text(example.inputs) for example in (*test, *train)]))
    kept: list[Example] = []
    near: list[Example] = []
    for example in train:
        (kept if index.near(near_text(example.inputs)) is None else near).append(example)
    return kept, near


def split(examples: Sequence[Example], shares: Mapping[str, float], seed: int) -> dict[str, list[Example]]:
    """Deal whole groups to named parts, stratified by label and source, in a fixed pseudo-random order.

    Every next group goes to the part that is furthest behind its share of the label, source after source.
    """
    strata: dict[tuple[int, str], list[list[Example]]] = defaultdict(list)
    for members in groups_of(examples).values():
        common = Counter((example.label_index, example.provenance.source) for example in members).most_common(1)[0][0]
        strata[common].append(members)
    parts: dict[str, list[Example]] = {name: [] for name in shares}
    behind: dict[int, dict[str, int]] = defaultdict(lambda: dict.fromkeys(shares, 0))
    for key in sorted(strata):
        dealt = behind[key[0]]
        for members in sorted(strata[key], key=lambda m: hashed(m[0].group, seed)):
            part = min(shares, key=lambda name: (dealt[name] + len(members) / 2) / shares[name])
            parts[part] += members
            dealt[part] += len(members)
    return parts


def groups_of(examples: Sequence[Example]) -> dict[str, list[Example]]:
    """Examples by group, with groups that share a text joined (union-find)."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for example in examples:
        parent[root(example.content_key)] = root(example.group)
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        groups[root(example.group)].append(example)
    return groups


def hashed(name: str, salt: str | int) -> str:
    """Where a name stands in the fixed pseudo-random order of a salt."""
    return hashlib.sha256(f"{salt}:{name}".encode()).hexdigest()
