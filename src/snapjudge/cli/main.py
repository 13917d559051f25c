"""The snapjudge command."""

from typing import Annotated

import typer

from snapjudge import __version__
from snapjudge.cli import ask, compare, data, demo, estimate, guard, judges, keys, merge, metric, plan, pretrain, prove, score, serve, show, train

app = typer.Typer(
    name="snapjudge",
    help="Train, prove and use single-token judges: small adapters that answer one question about LLM traffic in one forward pass.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train.train)
app.command()(pretrain.pretrain)
app.command()(merge.merge)
app.command()(prove.prove)
app.command()(show.show)
app.command()(judges.judges)
app.command()(score.score)
app.command()(ask.ask)
app.command()(serve.serve)
app.command()(serve.proxy)
app.command()(metric.words)
app.command()(compare.compare)
app.command()(estimate.estimate)
app.command()(plan.plan)
app.command()(demo.demo)
app.add_typer(metric.app, name="metric")
app.add_typer(data.app, name="data")
app.add_typer(compare.suite, name="suite")
app.add_typer(keys.app, name="keys")
app.add_typer(guard.app, name="guard")


@app.callback(invoke_without_command=True)
def version(show_version: Annotated[bool, typer.Option("--version", help="print the version and leave")] = False) -> None:
    """Options of the command itself."""
    if show_version:
        typer.echo(f"snapjudge {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point; a broken pipe on standard output (`| head`) ends the command quietly."""
    try:
        app()
    except BrokenPipeError:
        raise SystemExit(0) from None
