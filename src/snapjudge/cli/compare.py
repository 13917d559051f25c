"""snapjudge compare, suite: whether a new version is better, and whether it lost what was won."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from snapjudge.cli.console import EXIT_GATE, AsJson, Bars, MappingOption, output, print_json, shown_errors

suite = typer.Typer(help="Regression suites: rows that no version may lose again.", no_args_is_help=True)
SuiteFile = Annotated[Path, typer.Argument(metavar="SUITE", help="the suite's file (.jsonl)")]
JudgeName = Annotated[str, typer.Option("--judge", help="a bundle's folder, or a judge's name")]


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="the judge there is: a bundle's folder, or a name")],
    second: Annotated[str, typer.Argument(metavar="B", help="the one to take its place")],
    data: Annotated[list[Path], typer.Option("--data", help="labelled examples neither has seen; files or data sets; may be repeated")],
    out: Annotated[Path | None, typer.Option("--out", help="folder for compare.json and compare.html")] = None,
    mapping: MappingOption = None,
    regressions: Annotated[Path | None, typer.Option("--suite", help="a regression suite that B must not lose")] = None,
    allow_leak: Annotated[bool, typer.Option("--allow-leak", help="go on when the data holds texts one of them was trained on")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two judges: paired differences, McNemar's test, rows fixed and broken. Exit status 1 if B is clearly worse or loses suite rows."""
    with shown_errors(as_json=as_json):
        from snapjudge.curate.read import parse_map
        from snapjudge.flows.compare_judges import CompareRequest, check_suite
        from snapjudge.flows.compare_judges import compare as run
        from snapjudge.prove.report import NAMES

        with Bars() as bars:
            found = run(CompareRequest(first, second, data, out, parse_map(mapping or ()), allow_leak), bars)
            held = check_suite(second, regressions, bars, update=False) if regressions is not None else None
        lost = list(held.lost) if held else []
        if as_json:
            print_json({**found.model_dump(mode="json"), "suite_lost": lost})
        else:
            table = Table(title=f"{found.second} against {found.first} on {found.examples} examples", title_justify="left")
            for column in ("figure", found.first, found.second, "difference, 95 % interval"):
                table.add_column(column)
            for one in found.differences:
                cells = ["-" if side is None else f"{side.value:.3f}" for side in (one.first, one.second)]
                gap = f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"
                table.add_row(NAMES.get(one.name, one.name), *cells, f"[bold]{gap}[/bold]" if one.clear else gap)
            output.print(table)
            output.print(found.verdict, markup=False)
            for note in found.notes:
                output.print(note, style="yellow", markup=False)
            if lost:
                output.print(f"lost from the suite: {', '.join(lost[:10])}", style="red", markup=False)
            if out is not None:
                output.print(f"page {out / 'compare.html'}", markup=False)
        if found.is_worse or lost:
            raise typer.Exit(EXIT_GATE)


@suite.command()
def grow(
    suite_file: SuiteFile,
    dataset: Annotated[Path, typer.Option("--dataset", help="a data set with adjudicated labels")],
    judge: JudgeName,
    as_json: AsJson = False,
) -> None:
    """Add the adjudicated rows that a judge gets wrong."""
    with shown_errors(as_json=as_json):
        from snapjudge.flows.compare_judges import grow_suite

        with Bars() as bars:
            wrong, added = grow_suite(judge, dataset, suite_file, bars)
        if as_json:
            print_json({"wrong": wrong, "added": added})
        else:
            output.print(f"{wrong} adjudicated rows are wrong under {judge}; {added} of them are new in {suite_file}", markup=False)


@suite.command()
def check(suite_file: SuiteFile, judge: JudgeName, as_json: AsJson = False) -> None:
    """Judge the suite's rows. Rows a judge gets right for the first time are held from then on. Exit status 1 if a held row is lost."""
    with shown_errors(as_json=as_json):
        from snapjudge.flows.compare_judges import check_suite

        with Bars() as bars:
            found = check_suite(judge, suite_file, bars, update=True)
        if as_json:
            print_json({**vars(found), "passed": found.passed})
        else:
            output.print(f"{found.judge}: {found.rows} rows, {len(found.lost)} lost, {len(found.won)} won, {found.open} still open", markup=False)
            for name in found.lost[:20]:
                output.print(f"lost: {name}", style="red", markup=False)
        if not found.passed:
            raise typer.Exit(EXIT_GATE)
