"""Labelling: adding label events, what examples are called now, and how far labelers agree. Knows no model."""

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from snapjudge.core.metric import Metric
from snapjudge.curate.agreement import agreement, confusion, to_adjudicate, vote_counts
from snapjudge.curate.labels import LabelEvent, LabelFile, append_labels, current_labels, read_labels, vote_matrix
from snapjudge.errors import InputInvalid, OptionInvalid
from snapjudge.flows.metric_files import read_metric


def add_label(labels: Path, metric_file: Path, example: str, value: str, labeler: str, **more: Any) -> LabelEvent:
    """Add one event, made now under the metric's version.

    Raises:
        InputInvalid: the metric has no such label.
        OptionInvalid: something else about it is wrong.
    """
    metric = read_metric(metric_file)
    if value not in metric.labels:
        raise InputInvalid(f"{metric.name} has no label {value!r}", hint=f"its labels are {', '.join(metric.labels)}", received=value)
    try:
        event = LabelEvent(example=example, label=value, labeler=labeler, time=datetime.now(UTC), criteria_version=metric.version, **more)
    except ValidationError as error:
        told = "; ".join(f"--{item['loc'][0]} {item['input']!r}: {item['msg']}" for item in error.errors())
        raise OptionInvalid(told, hint="`snapjudge data label --help` lists the options") from error
    append_labels(labels, [event])
    return event


def summary(labels: Path, metric_file: Path) -> dict[str, Any]:
    """Counts of what a file of labels says now, and the disputed examples, most informative first."""
    metric = read_metric(metric_file)
    file = _read(labels)
    now = current_labels(file.events, metric.version)
    examples, _, votes_NR = vote_matrix(file.events, list(metric.labels))
    order = to_adjudicate(vote_counts(votes_NR, len(metric.labels)))
    disputed = {example for example, current in now.items() if current.state == "disputed"}
    return {
        "examples": len(now),
        "events": len(file.events),
        "labelers": sorted({event.labeler for event in file.events}),
        "states": dict(Counter(current.state for current in now.values())),
        "labels": dict(Counter(current.label for current in now.values() if current.label is not None)),
        "stale": sum(current.stale for current in now.values()),
        "criteria_version": metric.version,
        "to_adjudicate": [examples[place] for place in order if examples[place] in disputed],
        "cut": file.cut,
    }


def agreement_of(labels: Path, metric_file: Path) -> dict[str, Any]:
    """All figures of agreement between the labelers of a file, with names.

    Raises:
        InputInvalid: no example has two votes.
    """
    metric = read_metric(metric_file)
    names = list(metric.labels)
    _, labelers, votes_NR = vote_matrix(_read(labels).events, names)
    found = agreement(votes_NR, len(names), level=_level(metric))
    figures = {name: asdict(getattr(found, name)) for name in ("raw", "fleiss", "alpha", "ac1")}
    return {
        "items": found.items,
        "single": found.single,
        "level": _level(metric),
        "figures": figures,
        "per_label": {name: asdict(estimate) for name, estimate in zip(names, found.per_label, strict=True)},
        "pairs": [{"first": labelers[a], "second": labelers[b], "items": both, "cohen": asdict(kappa)} for a, b, both, kappa in found.pairs],
        "confusion": {name: confusion(votes_NR, len(names), place).tolist() for place, name in enumerate(labelers)},
        "labels": names,
    }


def _read(labels: Path) -> LabelFile:
    if not labels.exists():
        raise OptionInvalid(f"there is no file {labels}", hint="`snapjudge data label` makes it with its first label", received=str(labels))
    return read_labels(labels)


def _level(metric: Metric) -> Any:
    return "ordinal" if metric.type == "score" else "nominal"
