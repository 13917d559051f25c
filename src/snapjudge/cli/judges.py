"""snapjudge judges: which judges there are."""

from pathlib import Path
from typing import TYPE_CHECKING

from snapjudge.cli.console import AsJson, output, print_json, shown_errors

if TYPE_CHECKING:
    from snapjudge.flows.listing import Listed

_SHOWN = 3  # limits of a judge


def judges(as_json: AsJson = False) -> None:
    """List the judges that a name finds: built-in ones and your own, with what their proofs say."""
    with shown_errors(as_json=as_json):
        from rich.markup import escape
        from rich.table import Table

        from snapjudge.flows.listing import list_judges
        from snapjudge.prove.plain import limits
        from snapjudge.prove.report import NAMES, show_figure

        found = list_judges()
        if as_json:
            print_json([_as_dict(one) for one in found])
            return
        table = Table(title=f"{len(found)} judges", title_justify="left")
        for column in ("judge", "asks", "reads", "figure on its test, 95 % interval", "flags from", "limits", "where"):
            table.add_column(column, no_wrap=column == "judge")

        def row(one: "Listed") -> tuple[str, ...]:
            if one.bundle is None or one.proof is None:
                return one.name, f"[red]{escape(one.problem)}[/red]", "", "", "", "", _place(one)
            metric, threshold = one.bundle.metric, one.bundle.calibration.threshold
            shown = "-" if one.figure is None else f"{NAMES.get(one.figure[0], one.figure[0])} {show_figure(one.figure[1])}"
            flags = "-" if not metric.positive_labels else f"{threshold.value:.3f}" + (f" ({threshold.rule})" if threshold.guaranteed else "")
            reads = ", ".join(f"{name}?" if name in metric.optional else name for name in metric.ordered_inputs)
            return one.name, escape(metric.question), reads, shown, flags, escape(_shortly(limits(one.proof))), _place(one)

        for one in found:
            table.add_row(*row(one))
        output.print(table)
        output.print("`snapjudge show NAME` tells all of one" if found else "none yet: `snapjudge train` makes one")


def _shortly(limits: list[str]) -> str:
    """The worst few, and how many more there are."""
    more = [f"{len(limits) - _SHOWN} more"] if len(limits) > _SHOWN else []
    return "; ".join([*limits[:_SHOWN], *more]) or "-"


def _place(one: "Listed") -> str:
    return "built in" if one.built_in else str(one.folder.relative_to(Path.cwd()) if one.folder.is_relative_to(Path.cwd()) else one.folder)


def _as_dict(one: "Listed") -> dict[str, object]:
    from snapjudge.prove.plain import where_not_to_use_it

    told: dict[str, object] = {"judge": one.name, "folder": str(one.folder), "built_in": one.built_in}
    if one.bundle is None or one.proof is None:
        return {**told, "problem": one.problem}
    figures = {name: figure.model_dump() for name, figure in one.proof.judge_figures.items()}
    threshold = one.bundle.calibration.threshold.model_dump(mode="json")
    return {
        **told,
        "metric": one.bundle.metric.model_dump(mode="json"),
        "figures": figures,
        "threshold": threshold,
        "labels": one.proof.labels,
        "limits": where_not_to_use_it(one.proof),
    }
