"""A judge trained once for all flow tests: small, but whole."""

import json

import pytest

from snapjudge.flows.train_judge import train_judge
from snapjudge.flows.train_terms import TrainConfig, TrainRequest
from snapjudge.testing import make_examples
from snapjudge.train.terms import FitConfig

METRIC_YAML = """\
name: says_buy
version: 2
type: boolean
inputs: [output]
question: Does it say buy?
labels: {bad: ["yes"], fine: ["no"]}
threshold: fpr<=0.3@80%
"""
CONFIG = TrainConfig(scope="readout", probes=10, fit=FitConfig(rank=4, alpha=8, batch=16, epochs=3, cache_gb=0.1))


def as_line(example, **more):
    label = ["bad", "fine"][example.label_index]
    return json.dumps({"id": example.id, "inputs": example.inputs, "label": label, "meta": {"source": "made"}, **more})


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """A folder with a metric, training data, new data and a trained judge."""
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "metric.yaml").write_text(METRIC_YAML)
    (folder / "data.jsonl").write_text("\n".join(as_line(e) for e in make_examples(120)) + "\n")
    (folder / "new.jsonl").write_text("\n".join(as_line(e.model_copy(update={"id": f"n{e.id}"})) for e in make_examples(60, seed=77)) + "\n")
    request = TrainRequest(folder / "metric.yaml", [folder / "data.jsonl"], folder / "judges")
    result = train_judge(request, CONFIG)
    return folder, result
