"""Splitting a data set: freezing its test once, and telling where every row belongs."""

import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.curate.dataset import Dataset, labelled, read_dataset
from snapjudge.curate.frozen import FrozenTest, assign, check_frozen, freeze
from snapjudge.errors import TestSetChanged
from snapjudge.store.files import write_file


def read_frozen(dataset: Dataset, examples: list[Example]) -> FrozenTest:
    """The frozen test of a data set, verified against its rows.

    Raises:
        TestSetChanged.
    """
    try:
        test = FrozenTest.model_validate_json(dataset.test.read_bytes())
    except (ValidationError, OSError) as error:
        raise TestSetChanged(f"{dataset.test} cannot be read", hint="restore the file") from error
    check_frozen(test, examples)
    return test


def split_data(dataset: Dataset, metric: Metric, *, size: int, by_time: bool = False, salt: str = "") -> dict[str, Any]:
    """Freeze the test where there is none yet, and count what is where.

    Raises:
        TooFewExamples, TestSetChanged, OptionInvalid.
    """
    everything = read_dataset(dataset, metric)
    own = labelled(dataset, metric)
    frozen_before = dataset.test.exists()
    if frozen_before:
        test = read_frozen(dataset, everything)
    else:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        real = [row for row in own.examples if own.current[row.id].by_people and not row.provenance.method]  # no synthetic row proves anything
        test = freeze(real, metric, size=size, by_time=by_time, salt=salt, created=now)
        write_file(dataset.test, json.dumps(test.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")
    dealt = assign(everything, test)
    counts: dict[str, Counter[str]] = {name: Counter() for name in ("train", "validation", "calibration", "test", "held")}
    labels = {example.id: metric.label_names[example.label_index] for example in own.examples}
    for name, (part, _) in dealt.items():
        counts[part][labels.get(name, "(no label)")] += 1
    held = [{"id": name, "reason": reason} for name, (part, reason) in dealt.items() if part == "held"]
    return {"frozen_before": frozen_before, "digest": test.digest, "created": test.created, "by_time": test.by_time, "splits": counts, "held": held}


def splits_of(dataset: Dataset, metric: Metric) -> dict[str, str]:
    """The split of every row of a data set with a frozen test; empty where there is none."""
    if not dataset.test.exists():
        return {}
    everything = read_dataset(dataset, metric)
    return {name: part for name, (part, _) in assign(everything, read_frozen(dataset, everything)).items()}
