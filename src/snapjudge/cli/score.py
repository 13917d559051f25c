"""snapjudge score: a file through one or several judges."""

from pathlib import Path
from typing import Annotated

import typer

from snapjudge.cli.console import EXIT_GATE, Bars, MappingOption, PrecisionOption, errors, print_json, shown_errors, stop_on_interrupt
from snapjudge.core.precision import Precision


def score(
    source: Annotated[str, typer.Argument(metavar="IN", help="records to judge: .jsonl, .csv, .tsv, .parquet, or - for JSON lines on standard input")],
    judge: Annotated[list[str], typer.Option("--judge", help="judges by folder or name, separated by commas; may be repeated")],
    out: Annotated[str, typer.Option("--out", help="JSON lines to write, or - for standard output")] = "-",
    mapping: MappingOption = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="where the judges' backbone lies, if it has moved")] = None,
    precision: PrecisionOption = Precision.float32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an existing output file")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="drop an interrupted output and start over")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print a summary as JSON (with --out FILE)")] = False,
) -> None:
    """Score a file line by line; a line that cannot be judged gets an abstention with its reason. Killed, the same command goes on.

    Exit status 1 where none could be judged.
    """
    with shown_errors(as_json=as_json):
        from snapjudge.cli.settings import named_judges
        from snapjudge.curate.read import parse_map
        from snapjudge.flows.score_file import ScoreRequest, score_file
        from snapjudge.judge import Panel

        names = named_judges(judge)
        request = ScoreRequest(None if source == "-" else Path(source), None if out == "-" else Path(out), parse_map(mapping or ()), overwrite, restart)
        panel = Panel.load(names, backbone=backbone, dtype=precision.value)
        with stop_on_interrupt() as stop, Bars() as bars:
            result = score_file(panel, request, bars, stop)
        if as_json and out != "-":
            print_json({**vars(result), "out": out})
        if result.absent:
            errors.print(f"no record had the column {' or '.join(result.absent)} that --map names", style="yellow", markup=False)
        nothing = result.records and result.abstained == result.records * len(panel.judges)
        if nothing:
            again = "" if out == "-" else "; the corrected command needs --overwrite"
            errors.print(f"none of them could be judged; the first line of {'the output' if out == '-' else out} says why{again}", style="yellow", markup=False)
        if out != "-" and not as_json:
            before = f" ({result.resumed} of them before)" if result.resumed else ""
            errors.print(f"{result.records} records scored{before}, {result.flagged} judgements flagged, {result.abstained} abstained; {out}")
        if nothing:
            raise typer.Exit(EXIT_GATE)
