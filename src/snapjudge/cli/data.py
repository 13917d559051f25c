"""snapjudge data: labels as they are made, and how far labelers agree."""

from pathlib import Path
from typing import Annotated

import typer

from snapjudge.cli.console import output, print_json, shown_errors

app = typer.Typer(help="Labels: add one, see what examples are called now, see how far labelers agree.", no_args_is_help=True)

Labels = Annotated[Path, typer.Argument(metavar="LABELS", help="the file of label events (labels.jsonl)")]
MetricFile = Annotated[Path, typer.Option("--metric", help="the metric file (YAML) whose labels and version count")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command()
def label(
    labels: Labels,
    metric: MetricFile,
    example: Annotated[str, typer.Option("--example", help="the example's id")],
    value: Annotated[str, typer.Option("--label", help="what it is called")],
    labeler: Annotated[str, typer.Option("--labeler", help="who says so")],
    rationale: Annotated[str, typer.Option("--rationale", help="why")] = "",
    confidence: Annotated[float | None, typer.Option("--confidence", min=0, max=1, help="how sure, 0 to 1")] = None,
    source: Annotated[str, typer.Option("--source", help="production, synthetic, expert, public or consensus")] = "expert",
    adjudicate: Annotated[bool, typer.Option("--adjudicate", help="settle what the votes left open")] = False,
    as_json: AsJson = False,
) -> None:
    """Add one label to the file. Several people may do so at once; the file only ever grows."""
    with shown_errors(as_json=as_json):
        from snapjudge.flows.labelling import add_label

        event = add_label(labels, metric, example, value, labeler, rationale=rationale, confidence=confidence, source=source, adjudication=adjudicate)
        if as_json:
            print_json(event.model_dump(mode="json"))
        else:
            output.print(f"{labels}: {event.labeler} calls {event.example} {event.label}", markup=False)


@app.command()
def show(labels: Labels, metric: MetricFile, as_json: AsJson = False) -> None:
    """What examples are called now: settled, agreed, single, disputed, and what was labelled under older criteria."""
    with shown_errors(as_json=as_json):
        from snapjudge.flows.labelling import summary

        found = summary(labels, metric)
        if as_json:
            print_json(found)
            return
        output.print(f"{found['examples']} examples, {found['events']} labels by {', '.join(found['labelers']) or 'nobody'}", markup=False)
        for part in ("states", "labels"):
            output.print("  ".join(f"{name} {count}" for name, count in found[part].items()), markup=False)
        output.print(f"{found['stale']} under older criteria than version {found['criteria_version']}", markup=False)
        if found["cut"]:
            output.print(f"the last line was cut short and does not count: {found['cut'][:60]!r}", style="yellow", markup=False)
        if found["to_adjudicate"]:
            output.print(f"to adjudicate first: {', '.join(found['to_adjudicate'][:10])}", markup=False)


@app.command()
def agreement(labels: Labels, metric: MetricFile, as_json: AsJson = False) -> None:
    """How far labelers agree, each figure with a 95 % interval, and where each differs from the others."""
    with shown_errors(as_json=as_json):
        from snapjudge.cli.tables import print_agreement
        from snapjudge.flows.labelling import agreement_of

        found = agreement_of(labels, metric)
        if as_json:
            print_json(found)
        else:
            print_agreement(found)
