"""Labelling: adding label events, what examples are called now, and how far labelers agree. Knows no model."""

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from snapjudge.core.metric import Metric
from snapjudge.curate.agreement import agreement, confusion, to_adjudicate, vote_counts
from snapjudge.curate.dataset import Dataset, check_criteria, is_dataset, read_dataset
from snapjudge.curate.journal import read_journal
from snapjudge.curate.labels import LabelEvent, LabelFile, append_labels, current_labels, read_labels, vote_matrix
from snapjudge.errors import InputInvalid, OptionInvalid
from snapjudge.flows.metric_files import read_metric
from snapjudge.flows.splitting import splits_of


def label_file(path: Path) -> Path:
    """The file of label events: the path itself, or the one in a data set's folder."""
    return Dataset(path).labels if path.is_dir() else path


def metric_for(path: Path, metric_file: Path | None) -> Metric:
    """The metric of a file, or of `metric.yaml` in the data set's folder where none is named.

    Raises:
        OptionInvalid: neither is there. StorageFailed, MetricInvalid.
    """
    own = Dataset(path if path.is_dir() or path.suffix != ".jsonl" else path.parent).metric
    if metric_file is None and not own.parent.exists():
        raise OptionInvalid(f"there is no data set {own.parent}", hint="`snapjudge data import FILE DATASET --metric M.yaml` makes one", received=str(path))
    if metric_file is None and not own.exists():
        raise OptionInvalid(f"which metric? there is no {own}", hint="give --metric FILE, or put metric.yaml into the data set's folder", received=str(path))
    return read_metric(metric_file or own)


def add_label(path: Path, metric: Metric, example: str, value: str, labeler: str, **more: Any) -> LabelEvent:
    """Add one event, made now under the metric's version.

    Raises:
        InputInvalid: the metric has no such label, or the data set no such example.
        OptionInvalid: something else about it is wrong.
        CriteriaChanged: the policy is not the one this version's labels were made under.
    """
    if value not in metric.labels:
        raise InputInvalid(f"{metric.name} has no label {value!r}", hint=f"its labels are {', '.join(metric.labels)}", received=value)
    try:
        event = LabelEvent(example=example, label=value, labeler=labeler, time=datetime.now(UTC), criteria_version=metric.version, **more)
    except ValidationError as error:
        told = "; ".join(f"--{item['loc'][0]} {item['input']!r}: {item['msg']}" for item in error.errors())
        raise OptionInvalid(told, hint="`snapjudge data label --help` lists the options") from error
    if is_dataset(path):
        check_criteria(Dataset(path), metric)
        if example not in {one.id for one in read_dataset(Dataset(path), metric)}:
            raise InputInvalid(f"{path} has no example {example!r}", hint="`snapjudge data show` tells what is there", received=example)
    append_labels(label_file(path), [event])
    return event


def summary(path: Path, metric: Metric) -> dict[str, Any]:
    """Counts of what the labels say now, and the disputed examples, most informative first; of a data set, its rows too."""
    file = _read(label_file(path))
    now = current_labels(file.events, metric.version)
    examples, _, votes_NR = vote_matrix(file.events, list(metric.labels))
    order = to_adjudicate(vote_counts(votes_NR, len(metric.labels)))
    disputed = {example for example, current in now.items() if current.state == "disputed"}
    found = {
        "labelled": len(now),
        "events": len(file.events),
        "labelers": sorted({event.labeler for event in file.events}),
        "states": dict(Counter(current.state for current in now.values())),
        "labels": dict(Counter(current.label for current in now.values() if current.label is not None)),
        "sources": dict(Counter(event.source for event in file.events)),
        "stale": sum(current.stale for current in now.values()),
        "criteria_version": metric.version,
        "to_adjudicate": [examples[place] for place in order if examples[place] in disputed],
        "cut": file.cut,
    }
    return found if not is_dataset(path) else {**_rows(Dataset(path), metric, set(now)), **found}


def _rows(dataset: Dataset, metric: Metric, labelled: set[str]) -> dict[str, Any]:
    rows = read_dataset(dataset, metric)
    splits = splits_of(dataset, metric)
    return {
        "examples": len(rows),
        "unlabelled": sum(row.id not in labelled for row in rows),
        "from": dict(Counter(row.provenance.source for row in rows).most_common(20)),
        "splits": dict(Counter(splits.values())),
        "rejected": len(read_journal(dataset.rejected).lines),
    }


def agreement_of(path: Path, metric: Metric) -> dict[str, Any]:
    """All figures of agreement between the labelers of a file, with names.

    Raises:
        InputInvalid: no example has two votes.
    """
    names = list(metric.labels)
    _, labelers, votes_NR = vote_matrix(_read(label_file(path)).events, names)
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
        raise OptionInvalid(
            f"there is no file {labels}", hint="`snapjudge data label` makes it with its first label, `data import` with its first row", received=str(labels)
        )
    return read_labels(labels)


def _level(metric: Metric) -> Any:
    return "ordinal" if metric.type == "score" else "nominal"
