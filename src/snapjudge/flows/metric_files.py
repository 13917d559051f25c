"""Metric files on disk: reading one, scaffolding a new one, the JSON Schema for editors. Loads no model."""

import json
from pathlib import Path

from snapjudge.core.metric import Metric
from snapjudge.core.metric_file import parse_metric
from snapjudge.errors import RunConflict, StorageFailed
from snapjudge.store.files import write_file

_TEMPLATE = """\
# A metric: one question about LLM traffic. Check it with: snapjudge metric check {name}.yaml
name: {name}
version: 1                      # the criteria version; raise it when the policy changes: every label says which one it followed
type: boolean                   # boolean | choice (2-255 labels) | score (ordered levels) | pairwise (a, b, tie)
level: span                     # span (one call) | trace (a request with its steps) | session (many turns)
inputs: [output]                # of context, tools, input, output, messages; for pairwise also a and b
question: Does the assistant's answer break the policy?
policy: |
  Write down what breaks it and what does not, with the borderline cases decided. People label by this text; the judge learns from the labels.
labels:                         # label -> answer words, each one token; for boolean the "yes" to the question comes first
                                # keep the quotes: a bare yes is a boolean in YAML
  violates: ["yes"]
  complies: ["no"]
positive: violates              # the label that is flagged
# windows: any                  # how windows of a long text combine: any (default where a label is flagged) | all | mean;
                                # passages: any, in windows of a few sentences, for what one sentence decides (an insult, a name)
# threshold: fpr<=0.02@95%      # flag so that at most 2 % of good traffic is flagged, with 95 % confidence (... from 0.5: and never below 0.5);
                                # also recall>=0.9@95%, precision>=0.8@95%
"""


def read_metric(path: Path) -> Metric:
    """The metric of a file.

    Raises:
        StorageFailed, MetricInvalid.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageFailed(
            f"cannot read {path}: {error}", hint="`snapjudge metric new NAME` writes a metric file to start from", received=str(path)
        ) from error
    return parse_metric(text, path.name)


def new_metric(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a commented metric file and an empty data file; neither may exist.

    Raises:
        RunConflict, MetricInvalid (the name), StorageFailed.
    """
    text = _TEMPLATE.replace("{name}", name)
    parse_metric(text, f"{name}.yaml")
    paths = folder / f"{name}.yaml", folder / f"{name}.jsonl"
    for path in paths:
        if path.exists():
            raise RunConflict(f"{path} exists already", hint="choose another name or folder")
    write_file(paths[0], text)
    write_file(paths[1], "")
    return paths


def metric_schema() -> str:
    """The JSON Schema of metric files, for editors."""
    schema = Metric.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "snapjudge metric"
    return json.dumps(schema, indent=2) + "\n"
