"""snapjudge data show, label, agreement: labels as they are made, and how far labelers agree."""

from pathlib import Path
from typing import Annotated

import typer

from snapjudge.cli.console import AsJson, MetricFile, output, print_json, shown_errors

Labels = Annotated[Path, typer.Argument(metavar="DATASET", help="the data set's folder, or a file of label events")]


def label(
    labels: Labels,
    example: Annotated[str, typer.Option("--example", help="the example's id")],
    value: Annotated[str, typer.Option("--label", help="what it is called")],
    labeler: Annotated[str, typer.Option("--labeler", help="who says so")],
    metric: MetricFile = None,
    rationale: Annotated[str, typer.Option("--rationale", help="why")] = "",
    confidence: Annotated[float | None, typer.Option("--confidence", min=0, max=1, help="how sure, 0 to 1")] = None,
    source: Annotated[str, typer.Option("--source", help="production, synthetic, expert, public or consensus")] = "expert",
    adjudicate: Annotated[bool, typer.Option("--adjudicate", help="settle what the votes left open")] = False,
    as_json: AsJson = False,
) -> None:
    """Add one label. Several people may do so at once; the file only ever grows."""
    with shown_errors(as_json=as_json):
        from snapjudge.flows.labelling import add_label, metric_for

        ours = metric_for(labels, metric)
        event = add_label(labels, ours, example, value, labeler, rationale=rationale, confidence=confidence, source=source, adjudication=adjudicate)
        if as_json:
            print_json(event.model_dump(mode="json"))
        else:
            output.print(f"{labels}: {event.labeler} calls {event.example} {event.label}", markup=False)


def show(labels: Labels, metric: MetricFile = None, as_json: AsJson = False) -> None:
    """What is there and what it is called now: settled, agreed, single, disputed, and what was labelled under older criteria."""
    with shown_errors(as_json=as_json):
        from snapjudge.flows.labelling import metric_for, summary

        found = summary(labels, metric_for(labels, metric))
        if as_json:
            print_json(found)
            return
        if "examples" in found:
            output.print(f"{found['examples']} examples, {found['unlabelled']} without a label, {found['rejected']} rows rejected at import")
        output.print(f"{found['labelled']} labelled, {found['events']} labels by {', '.join(found['labelers']) or 'nobody'}", markup=False)
        for part in ("states", "labels", "sources", "from", "splits"):
            if found.get(part):
                output.print(f"{part:<9}" + "  ".join(f"{name} {count}" for name, count in found[part].items()), markup=False)
        output.print(f"{found['stale']} under older criteria than version {found['criteria_version']}", markup=False)
        if found["cut"]:
            output.print(f"the last line was cut short and does not count: {found['cut'][:60]!r}", style="yellow", markup=False)
        if found["to_adjudicate"]:
            output.print(f"to adjudicate first: {', '.join(found['to_adjudicate'][:10])}", markup=False)


def agreement(labels: Labels, metric: MetricFile = None, as_json: AsJson = False) -> None:
    """How far labelers agree, each figure with a 95 % interval, and where each differs from the others."""
    with shown_errors(as_json=as_json):
        from snapjudge.cli.tables import print_agreement
        from snapjudge.flows.labelling import agreement_of, metric_for

        found = agreement_of(labels, metric_for(labels, metric))
        if as_json:
            print_json(found)
        else:
            print_agreement(found)
