"""snapjudge data audit: what is wrong with labelled data, as a table, a page and an exit status."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from snapjudge.cli.console import EXIT_GATE, AsJson, Bars, MappingOption, MetricFile, output, print_json, shown_errors

if TYPE_CHECKING:
    from snapjudge.curate.findings import Audit


def audit(
    data: Annotated[list[Path], typer.Argument(metavar="DATA...", help="data sets, or files: .jsonl, .csv, .tsv, .parquet")],
    test: Annotated[list[Path] | None, typer.Option("--test", help="a file that is the test; may be repeated")] = None,
    metric: MetricFile = None,
    mapping: MappingOption = None,
    out: Annotated[Path | None, typer.Option("--out", help="folder for audit.json and audit.html")] = None,
    fail_on: Annotated[Literal["error", "warning", "never"], typer.Option("--fail-on", help="which findings make the exit status 1")] = "error",
    as_json: AsJson = False,
) -> None:
    """Look for what would make a judge or its proof wrong: duplicates, leaks, wrong labels, shortcuts, holes. Files need no metric."""
    with shown_errors(as_json=as_json):
        from snapjudge.curate.read import parse_map
        from snapjudge.flows.audit_data import AuditRequest, audit_data
        from snapjudge.flows.labelling import metric_for

        ours = metric_for(data[0], metric) if metric is not None or data[0].is_dir() else None
        with Bars() as progress:
            found = audit_data(AuditRequest(data, test or (), ours, parse_map(mapping or ()), out), progress)
        if as_json:
            print_json(found.model_dump(mode="json"))
        else:
            _print(found)
            if out is not None:
                output.print(f"page {out / 'audit.html'}", markup=False)
        if found.failed(fail_on):
            raise typer.Exit(EXIT_GATE)


def _print(found: "Audit") -> None:
    """Findings, worst first, and the shortcuts with their intervals."""
    parts = ", ".join(f"{name} {sum(labels.values())}" for name, labels in found.parts.items())
    output.print(f"{found.examples} labelled examples ({parts})", markup=False)
    colours = {"error": "red", "warning": "yellow", "info": "green"}
    for finding in found.findings:
        output.print(f"[{colours[finding.severity]}]{finding.severity:<8}[/{colours[finding.severity]}]", end="")
        output.print(finding.message, markup=False)
        if finding.advice and finding.severity != "info":
            output.print(f"        {finding.advice}", style="dim", markup=False)
    if not found.findings:
        output.print("no findings")
    table = Table(title="what one property alone tells (0.5 is chance)", title_justify="left")
    for column in ("property", "AUROC, 95 % interval", "of"):
        table.add_column(column)
    for one in found.shortcuts[:6]:
        table.add_row(escape(one.name), f"{one.auroc:.3f} [{one.low:.3f}, {one.high:.3f}]", escape(f"{one.label} ({one.detail})"))
    output.print(table)
