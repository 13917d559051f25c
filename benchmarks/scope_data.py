"""Requests under what an assistant is for, told in prose: rows for the judge of off-topic requests."""

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import yaml

from benchmarks.common import METRICS, number_of
from snapjudge.curate.task_rows import Row

INSIDE, OUTSIDE = "False", "True"  # answers to "is it off topic?"
_FIELDS_AT_ONCE = 3
_ODD = "oos"  # what the data set calls requests that are in no field of it


@cache
def _read(file: str) -> dict[str, Any]:
    return dict(yaml.safe_load((METRICS / f"{file}.yaml").read_text(encoding="utf-8")))


def everyday(text: str) -> str:
    """What an assistant for all of CLINC150's fields is for, in one of several wordings."""
    wordings = _read("clinc_fields")["everyday"]
    return str(wordings[number_of(text, "everyday", len(wordings))])


def of_assistants(file: str, half: str, times: int, seed: int) -> list[Row]:
    """Requests under the scope of the assistant that they were written for, so many times each in its wordings; near misses; and as many requests that were
    written for others.

    Args:
        half: the salt by which groups are dealt: a request does not stand in both halves.
    """
    rng = random.Random(f"{seed}:{file}")  # noqa: S311 - reproducible data
    every = _read(file)["assistants"]
    group = {one["name"]: f"{file}:{one['name']}" for one in every}
    side = {name: number_of(value, half, 2) for name, value in group.items()}
    rows: list[Row] = []
    for one in every:
        name = one["name"]
        others = [other for other in every if side[other["name"]] == side[name] and other["name"] not in (name, *one.get("kin", ()))]

        def row(text: str, label: str, category: str, *, own: dict[str, Any] = one) -> Row:
            inputs = {"context": rng.choice(own["scopes"]), "input": text}
            return Row(inputs, label, (category,), f"written/{file}", group[own["name"]], label == OUTSIDE)

        for _ in range(times):
            rows += [row(text, INSIDE, "inside") for text in one["inside"]]
            rows += [row(rng.choice(rng.choice(others)["inside"]), OUTSIDE, "foreign") for _ in one["inside"]]
            rows += [row(text, INSIDE, "general") for text in one["also"]] + [row(text, OUTSIDE, "near") for text in one["near"]]
    return list({str(row.inputs): row for row in rows}.values())


def of_fields(requests: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Requests of CLINC150 under a scope of one to three of its fields that holds them, or does not."""
    rng = random.Random(f"{seed}:fields")  # noqa: S311 - reproducible data
    fields = {field["name"]: field for field in _read("clinc_fields")["fields"]}
    of_intent = {intent: name for name, field in fields.items() for intent in field["intents"]}
    usable = [row for row in requests if row.categories[0] in of_intent or row.categories[0] == _ODD]
    rows: list[Row] = []
    for row in rng.sample(usable, min(count, len(usable))):
        own = of_intent.get(row.categories[0])
        foreign = [name for name in fields if own is None or name not in (own, *fields[own]["kin"])]
        inside = own is not None and rng.random() < 0.5
        chosen = rng.sample(foreign, rng.randint(1, _FIELDS_AT_ONCE))
        if inside and own is not None:
            chosen[rng.randrange(len(chosen))] = own
        answer = INSIDE if inside else OUTSIDE
        inputs = {"context": _scope_of([fields[name] for name in chosen], rng), "input": row.inputs["input"]}
        rows.append(Row(inputs, answer, (own or _ODD,), "made/fields", row.group, not inside))
    return rows


def _scope_of(fields: Sequence[dict[str, Any]], rng: random.Random) -> str:
    """One field in one of its wordings; several as a list."""
    if len(fields) == 1:
        return str(rng.choice(fields[0]["scopes"]))
    names = [str(field["short"]) for field in fields]
    listed = f"{', '.join(names[:-1])} and {names[-1]}"
    return rng.choice(("You are an assistant for {}.", "This bot helps with {}.", "Only answer questions about {}.", "Topics: {}.")).format(listed)
