"""A proof as a table for terminals."""

from rich.table import Table

from snapjudge.cli.console import output
from snapjudge.prove.proof import Proof
from snapjudge.prove.report import NAMES, show_figure, threshold_text


def print_proof(proof: Proof) -> None:
    """Figures with intervals, the judge beside its baselines; then threshold, gates and notes."""
    tested = ", ".join(f"{name} {count}" for name, count in proof.labels.items())
    table = Table(title=f"{proof.judge} on {sum(proof.labels.values())} test examples ({tested})", title_justify="left")
    table.add_column("figure")
    for one in proof.contenders:
        table.add_column(one.name, style="bold" if one.name == "judge" else "")
    for name in proof.judge_figures:
        table.add_row(NAMES.get(name, name), *(show_figure(one.figures.get(name)) for one in proof.contenders))
    output.print(table)
    output.print(threshold_text(proof))
    for gate in proof.gates:
        output.print(f"gate {gate.gate}: found {gate.found:.4f}, {'[green]met[/green]' if gate.passed else '[red]missed[/red]'}")
