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
        from snapjudge.flows.listing import list_judges

        found = list_judges()
        if as_json:
            print_json([_as_dict(one) for one in found])
            return
        for one in found:
            _show(one)
        output.print(f"{len(found)} judges; `snapjudge show NAME` tells all of one" if found else "none yet: `snapjudge train` makes one")


def _show(one: "Listed") -> None:
    """A few lines that fit any terminal: what it asks and reads, its figure, where it flags from, its worst limits."""
    from snapjudge.flows.elsewhere import elsewhere, in_short
    from snapjudge.prove.plain import limits
    from snapjudge.prove.report import NAMES, show_figure

    output.print(f"[bold]{one.name}[/bold]", end="  ")
    if one.bundle is None or one.proof is None:
        output.print(f"{one.problem} ({_place(one)})", style="red", markup=False)
        return
    metric, threshold = one.bundle.metric, one.bundle.calibration.threshold
    output.print(metric.question, markup=False)
    named = [name for name in dict.fromkeys((one.proof.main_figure, "macro_f1")) if name in one.proof.judge_figures]
    told = [", ".join(f"{NAMES.get(name, name)} {show_figure(one.proof.judge_figures[name])}" for name in named) + " on its test"] if named else []
    told += [f"flags from {threshold.value:.3f}" + (f" ({threshold.rule})" if threshold.guaranteed else "")] if metric.positive_labels else ["flags nothing"]
    away = elsewhere(one.bundle)
    found = [f"on data it did not learn from: {in_short(away)}"] if one.built_in or away else []
    lines = [f"reads {metric.inputs_in_words}", "; ".join(told), *found, f"limits: {_shortly(limits(one.proof))}", *([] if one.built_in else [_place(one)])]
    for line in lines:
        output.print(f"  {line}", style="dim", markup=False)


def _shortly(limits: list[str]) -> str:
    """The worst few, and how many more there are."""
    more = [f"{len(limits) - _SHOWN} more"] if len(limits) > _SHOWN else []
    return "; ".join([*limits[:_SHOWN], *more]) or "-"


def _place(one: "Listed") -> str:
    return "built in" if one.built_in else str(one.folder.relative_to(Path.cwd()) if one.folder.is_relative_to(Path.cwd()) else one.folder)


def _as_dict(one: "Listed") -> dict[str, object]:
    from snapjudge.flows.elsewhere import elsewhere
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
        "elsewhere": [found.model_dump(mode="json") for found in elsewhere(one.bundle)],
    }
