"""A language model as a writer of examples: what it is asked for, and its answer read strictly. Knows nothing of networks or files.

After UniGuard (arXiv 2504.19333): positives, negatives and borderline pairs of the same surface form and opposite labels, in and out of the domain, by
topic, style, language and length.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from snapjudge.core.example import check_inputs, texts_of
from snapjudge.core.frozen import Frozen
from snapjudge.core.metric import Metric
from snapjudge.errors import InputInvalid, OptionInvalid
from snapjudge.llm.judging import unfenced

Shape = Literal["plain", "pair"]
PER_QUESTION = 4


class Plan(Frozen):
    """What is written: every question draws one of each."""

    topics: tuple[str, ...] = Field(default=("whatever the policy is about",), min_length=1)
    styles: tuple[str, ...] = Field(default=("plain", "chatty", "terse", "formal"), min_length=1)
    languages: tuple[str, ...] = Field(default=("English",), min_length=1)
    lengths: tuple[str, ...] = Field(default=("one sentence", "two or three sentences", "a long paragraph"), min_length=1)
    pair_share: float = Field(default=0.4, ge=0, le=1, description="share of questions that ask for borderline pairs")
    out_of_domain_share: float = Field(default=0.15, ge=0, le=1, description="share of questions that leave the topics")


@dataclass(frozen=True)
class Wish:
    """One question to the writer: a cell of the plan, and the label where it asks for plain examples."""

    shape: Shape
    label: str
    topic: str
    style: str
    language: str
    length: str
    in_domain: bool

    @property
    def told(self) -> str:
        """The cell in a few words, kept with every row."""
        domain = self.topic if self.in_domain else "out of domain"
        return f"{self.shape}; {domain}; {self.style}; {self.language}; {self.length}"


@dataclass(frozen=True)
class Written:
    """One example the writer gave: inputs, the label it claims, and which of the answer's pairs it belongs to."""

    inputs: dict[str, Any]
    label: str
    pair: int | None


def read_plan(path: Path | None) -> Plan:
    """A plan from YAML; the default one without a file.

    Raises:
        OptionInvalid: with every problem.
    """
    if path is None:
        return Plan()
    try:
        return Plan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionInvalid(f"cannot read {path}: {str(error).splitlines()[0]}", hint="a YAML file with topics, styles, languages, lengths") from error
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise OptionInvalid(f"{path}: {told}", hint=f"keys are {', '.join(Plan.model_fields)}") from error


def wishes(plan: Plan, metric: Metric, count: int, seed: int) -> list[Wish]:
    """Questions that together ask for about `count` examples, labels and cells in turn."""
    rng = random.Random(seed)  # noqa: S311 - reproducible data, no secret
    cells = list(product(plan.topics, plan.styles, plan.languages, plan.lengths))
    rng.shuffle(cells)
    labels = list(metric.labels)
    found: list[Wish] = []
    for number in range(-(-count // PER_QUESTION)):
        topic, style, language, length = cells[number % len(cells)]
        shape: Shape = "pair" if rng.random() < plan.pair_share else "plain"
        found.append(Wish(shape, labels[number % len(labels)], topic, style, language, length, rng.random() >= plan.out_of_domain_share))
    return found


def writing_prompt(metric: Metric, wish: Wish, seeds: Sequence[tuple[Mapping[str, Any], str]], number: int) -> tuple[dict[str, str], ...]:
    """Messages that ask for a few examples as JSON.

    Args:
        seeds: a few examples with their labels, to show the form; not to be repeated.
        number: of the question, so that the same wish asked again is another question.
    """
    fields = ", ".join(f"{name} (may be left out)" if name in metric.optional else name for name in metric.ordered_inputs)
    names = ", ".join(json.dumps(name, ensure_ascii=False) for name in metric.labels)
    shown = "\n".join(json.dumps({"inputs": texts_of(inputs), "label": label}, ensure_ascii=False) for inputs, label in seeds)
    where = f"about {wish.topic}" if wish.in_domain else f"about something other than {wish.topic}, as it may turn up in the same traffic"
    if wish.shape == "pair":
        what = (
            f"Write {PER_QUESTION // 2} borderline pairs {where}. The two of a pair look alike in wording, length and topic, "
            'yet the policy gives them different labels. Number the pairs: "pair": 1, 1, 2, 2.'
        )
    else:
        what = f"Write {PER_QUESTION} different examples {where} whose label is {json.dumps(wish.label, ensure_ascii=False)}; half of them hard to tell."
    system = (
        f"You write realistic examples for a data set that teaches one question: {metric.question}\n"
        f"Policy:\n{metric.policy.strip() or '(the question says it all)'}\n"
        f"Labels: {names}. Each example has the fields {fields}, as texts. Do not name the policy or the label in the text."
    )
    user = (
        f"{what} Style: {wish.style}. Language: {wish.language}. Length: {wish.length}. Question {number}.\n"
        + (f"Examples of the form, not to be repeated:\n{shown}\n" if shown else "")
        + 'Answer with one JSON object and nothing else: {"examples": [{"inputs": {"<field>": "..."}, "label": "<label>", "pair": <number or null>}]}'
    )
    return {"role": "system", "content": system}, {"role": "user", "content": user}


def read_examples(text: str, metric: Metric) -> tuple[list[Written], int]:
    """The usable examples of an answer, and how many were not: of an unknown label, or with fields the metric cannot read. All of it is, if it is no JSON."""
    try:
        data = json.loads(unfenced(text))
    except (ValueError, RecursionError):
        return [], 1
    rows = data.get("examples") if isinstance(data, dict) else None
    if not isinstance(rows, list):
        return [], 1
    found, bad = [], 0
    for row in rows[:50]:
        label, pair = (row.get("label"), row.get("pair")) if isinstance(row, dict) else (None, None)
        try:
            inputs = check_inputs(row.get("inputs") if isinstance(row, dict) else None, metric.ordered_inputs, metric.optional)
        except InputInvalid:
            bad += 1
            continue
        if not isinstance(label, str) or label not in metric.labels:
            bad += 1
        else:
            found.append(Written(inputs, label, pair if isinstance(pair, int) and not isinstance(pair, bool) else None))
    return found, bad
