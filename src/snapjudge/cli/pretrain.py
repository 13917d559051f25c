"""snapjudge pretrain: all weights of a backbone on many tasks."""

from pathlib import Path
from typing import Annotated

import typer

from snapjudge.cli.console import Bars, output, print_json, shown_errors, stop_on_interrupt


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="the recipe (YAML): tasks, files, wordings")],
    data: Annotated[Path, typer.Option("--data", help="folder of the recipe's files, TASK/SET.train.jsonl")],
    out: Annotated[Path, typer.Option("--out", help="folder of the trained backbone")],
    start: Annotated[str, typer.Option("--start", help="the backbone to begin with: mini, a local folder, or a hub name")] = "mini",
    without: Annotated[list[str] | None, typer.Option("--without", help="a task or file to leave out altogether; may be repeated")] = None,
    weight: Annotated[list[str] | None, typer.Option("--weight", help="TASK=NUMBER, instead of the recipe's; may be repeated")] = None,
    anchor: Annotated[str, typer.Option("--anchor", help="a backbone whose embeddings are kept, so that what no task asks for is not forgotten")] = "",
    anchor_weight: Annotated[float | None, typer.Option("--anchor-weight", min=0, help="how much they are held to; 8 unless said")] = None,
    share: Annotated[float, typer.Option("--share", help="how much of the rows is used")] = 1.0,
    instructions: Annotated[bool, typer.Option("--instructions/--no-instructions", help="ask in words, or by the task's name alone")] = True,
    content_mask: Annotated[str | None, typer.Option("--content-mask", help="causal or bidirectional, instead of the starting backbone's")] = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="updates")] = 2000,
    batch: Annotated[int, typer.Option("--batch", min=1, help="contents in a step")] = 64,
    rate: Annotated[float, typer.Option("--rate", help="peak learning rate")] = 1.5e-4,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="for rows, wordings and batches")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="go on with an interrupted training")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="drop an interrupted training and start over")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Train all weights of a backbone on a recipe's tasks; the folder it writes is used with --backbone."""
    with shown_errors(as_json=as_json):
        from snapjudge.cli.settings import checked_config, needs, said
        from snapjudge.curate.read import parse_numbers
        from snapjudge.flows.pretrain import PretrainRequest, pretrain
        from snapjudge.train.multitask import WholeConfig

        needs(bool(anchor), "--anchor", anchor_weight=anchor_weight)
        weights = parse_numbers(weight or (), "--weight")
        request = PretrainRequest(recipe, data, out, start, tuple(without or ()), share, instructions, content_mask, weights, anchor, resume, restart)
        config = checked_config(WholeConfig, "pretrain", steps=steps, batch=batch, rate=rate, seed=seed, **said(anchor_weight=anchor_weight))
        with stop_on_interrupt() as stop, Bars() as bars:
            result = pretrain(request, config, bars, stop)
        figures = result.history[-1]["figures"] if result.history else {}
        if as_json:
            print_json({"folder": str(out), "tokens": result.tokens, "questions": result.questions, "seconds": round(result.seconds, 1), "figures": figures})
            return
        for name, value in figures.items():
            output.print(f"{name:20} AUROC {value:.3f} on held-back rows")
        if not figures:
            output.print("not measured: no task has held-back rows of both answers")
        output.print(f"backbone {out} ({result.seconds:.0f} s, {result.tokens:,} tokens)")
