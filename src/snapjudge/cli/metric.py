"""snapjudge metric: check, scaffold, schema; snapjudge words: which answer words fit a backbone."""

from pathlib import Path
from typing import Annotated

import typer

from snapjudge.cli.console import EXIT_GATE, output, print_json, shown_errors

app = typer.Typer(help="Metric files: check one, scaffold one, print the JSON Schema for editors.", no_args_is_help=True)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="the metric file (YAML)")],
    backbone: Annotated[str | None, typer.Option("--backbone", help="also check the answer words against this backbone")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the resolved metric, or the problems, as JSON")] = False,
) -> None:
    """Check a metric file: every problem at once, with its line, what was found and what would be right."""
    with shown_errors(as_json=as_json):
        from snapjudge.flows.metric_files import read_metric

        metric = read_metric(file)
        if backbone is not None:
            from snapjudge.model.hub import load_backbone
            from snapjudge.model.prompt import render_readout

            render_readout(metric, load_backbone(backbone))
        if as_json:
            print_json(metric.model_dump(mode="json"))
        else:
            labels = ", ".join(f"{name} ({'/'.join(words)})" for name, words in metric.labels.items())
            output.print(
                f"{file}: ok. {metric.name} version {metric.version}, {metric.type}, reads {', '.join(metric.ordered_inputs)}, labels {labels}", markup=False
            )


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="the metric's name: lower case, digits and _")],
    folder: Annotated[Path, typer.Option("--out", help="where to write")] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="print the paths as JSON")] = False,
) -> None:
    """Write a commented metric file and an empty data file to start from."""
    with shown_errors(as_json=as_json):
        from snapjudge.flows.metric_files import new_metric

        metric, data = new_metric(name, folder)
        if as_json:
            print_json({"metric": str(metric), "data": str(data)})
        else:
            output.print(f"wrote {metric} and {data}", markup=False)
            output.print('next: edit the question, policy and labels; add lines {"id": ..., "inputs": {...}, "label": ...}; then:', markup=False)
            output.print(f"      snapjudge train {metric} --data {data}", markup=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of metric files."""
    from snapjudge.flows.metric_files import metric_schema

    typer.echo(metric_schema(), nl=False)


def words(
    words: Annotated[list[str], typer.Argument(help="words to try")],
    backbone: Annotated[str, typer.Option("--backbone", help="mini, a local model folder, or a hub name")] = "mini",
    as_json: Annotated[bool, typer.Option("--json", help="print the findings as JSON")] = False,
) -> None:
    """Tell which words are one token under a backbone, and so can be answer words. Exit status 1 if one is not."""
    with shown_errors(as_json=as_json):
        from snapjudge.flows.words import check_words

        found = check_words(words, backbone)
        if as_json:
            print_json([vars(word) for word in found])
        else:
            for word in found:
                fits = "[green]fits[/green]        " if word.fits else "[red]does not fit[/red]"
                output.print(f"{fits} {word.word!r:<16} {' '.join(word.pieces)}")
        if not all(word.fits for word in found):
            raise typer.Exit(EXIT_GATE)
