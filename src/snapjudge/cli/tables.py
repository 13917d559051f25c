"""A proof as a table for terminals."""

from typing import Any

from rich.markup import escape
from rich.table import Table

from snapjudge.cli.console import output
from snapjudge.core.judgement import Judgement
from snapjudge.judge import Judge
from snapjudge.prove.proof import Proof
from snapjudge.prove.report import NAMES, show_figure, threshold_text


def print_proof(proof: Proof) -> None:
    """The judge's figures with intervals, its baselines beside them (their intervals are in the report); then threshold and gates."""
    tested = ", ".join(f"{name} {count}" for name, count in proof.labels.items())
    table = Table(title=f"{proof.judge} on {sum(proof.labels.values())} test examples ({tested})", title_justify="left")
    table.add_column("figure", min_width=14)
    table.add_column("judge, 95 % interval", style="bold", no_wrap=True)
    for one in proof.contenders[1:]:
        table.add_column(one.name, justify="right")
    for name, figure in proof.judge_figures.items():
        others = (one.figures.get(name) for one in proof.contenders[1:])
        table.add_row(NAMES.get(name, name), show_figure(figure), *("-" if other is None else f"{other.value:.3f}" for other in others))
    output.print(table)
    output.print(threshold_text(proof))
    for gate in proof.gates:
        found = "nothing" if gate.found is None else f"{gate.found:.4f}"
        output.print(f"gate {gate.gate}: found {found}, {'[green]met[/green]' if gate.passed else '[red]missed[/red]'}")


def verdict(judge: Judge, found: Judgement) -> str:
    """A judgement in a few words: flagged or not, the most likely label, the score and the threshold it was held against."""
    if not judge.metric.positive_labels:
        return f"{escape(found.label)}  score {found.score:.3f}"
    flag, label = "[red]flagged[/red]" if found.flagged else "[green]not flagged[/green]", found.label
    if found.flagged and label not in judge.metric.positive_labels:  # no kind is likelier than none, all together are
        kind = max(judge.metric.positive_labels, key=lambda one: found.probabilities[one])
        label = f"{kind} or another kind"
    return f"{flag}  {escape(label)}  score {found.score:.3f} (flagged from {judge.bundle.calibration.threshold.value:.3f})"


def print_agreement(found: dict[str, Any]) -> None:
    """Figures of agreement with intervals, by label and by pair of labelers, and where each labeler differs from the others."""
    table = Table(title=f"agreement on {found['items']} examples with two labels or more ({found['single']} with one)", title_justify="left")
    table.add_column("figure", min_width=14)
    table.add_column("95 % interval", style="bold", no_wrap=True)
    names = {"raw": "agreeing pairs", "fleiss": "Fleiss' kappa", "alpha": f"Krippendorff's alpha ({found['level']})", "ac1": "Gwet's AC1"}
    for name, title in names.items():
        table.add_row(title, _estimate(found["figures"][name]))
    for label, figure in found["per_label"].items():
        table.add_row(f"kappa of {escape(label)}", _estimate(figure))
    for pair in found["pairs"]:
        table.add_row(f"Cohen's kappa {escape(pair['first'])}, {escape(pair['second'])} ({pair['items']})", _estimate(pair["cohen"]))
    output.print(table)
    for labeler, counts in found["confusion"].items():
        apart = sorted(
            ((count, most, own) for most, row in enumerate(counts) for own, count in enumerate(row) if own != most and count), key=lambda one: -one[0]
        )
        if apart:
            told = ", ".join(f"{found['labels'][own]} where most others say {found['labels'][most]}: {count}" for count, most, own in apart[:3])
            output.print(f"{labeler} says {told}", markup=False)


def _estimate(figure: dict[str, float | None]) -> str:
    if figure["value"] is None:
        return "not defined: only one label was given"
    ends = "" if figure["low"] is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]"
    return f"{figure['value']:.3f}{ends}"
