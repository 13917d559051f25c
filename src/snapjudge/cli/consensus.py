"""snapjudge data consensus: prompted judges vote, after their agreement with people is known."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from snapjudge.cli.console import EXIT_GATE, AsJson, Bars, MetricFile, output, print_json, shown_errors, stop_on_interrupt

if TYPE_CHECKING:
    from snapjudge.flows.consensus import ConsensusResult


def consensus(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="the data set's folder")],
    endpoints: Annotated[Path, typer.Option("--endpoints", help="YAML: a list of {name, base_url, model, key_env, price, repeats, weight, ...}")],
    metric: MetricFile = None,
    method: Annotated[Literal["majority", "weighted", "dawid_skene"], typer.Option("--method", help="how votes become a label")] = "majority",
    check: Annotated[int, typer.Option("--check", min=0, help="human-labelled examples on which agreement is measured first")] = 100,
    bulk: Annotated[bool, typer.Option("--bulk", help="then label what has no label")] = False,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="rows labelled at most")] = None,
    share: Annotated[float, typer.Option("--share", min=0.5, max=1, help="of the votes a label needs; other rows go to review.jsonl")] = 2 / 3,
    fewest_kappa: Annotated[float, typer.Option("--min-kappa", help="of the consensus with people, below which nothing is labelled in bulk")] = 0.6,
    max_cost: Annotated[float | None, typer.Option("--max-cost", min=0, help="dollars this run may cost")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="tell how much would be asked and about what it would cost, and ask nothing")] = False,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="label in bulk without knowing whether people would agree")] = False,
    as_json: AsJson = False,
) -> None:
    """Let prompted judges vote. Without --bulk only their agreement with people is measured. Interrupted, the same command goes on."""
    with shown_errors(as_json=as_json):
        from snapjudge.curate.dataset import Dataset
        from snapjudge.flows.consensus import ConsensusRequest, plan_consensus, run_consensus
        from snapjudge.flows.labelling import metric_for
        from snapjudge.llm.endpoints import read_endpoints
        from snapjudge.llm.memory import Memory

        ours, asked = metric_for(dataset, metric), read_endpoints(endpoints)
        request = ConsensusRequest(Dataset(dataset), ours, asked, method, check, bulk, limit, share, fewest_kappa, max_cost, unchecked)
        with Memory(dataset / "answers.sqlite") as memory, stop_on_interrupt() as stop:
            if dry_run:
                found = plan_consensus(request, memory)
            else:
                with Bars() as bars:
                    found = run_consensus(request, memory, bars, stop)
        if as_json:
            print_json(vars(found))
        else:
            _print(found, bulk=bulk, dry_run=dry_run)
        if found.stopped or found.waiting:
            raise typer.Exit(EXIT_GATE)


def _print(found: "ConsensusResult", *, bulk: bool, dry_run: bool) -> None:
    if dry_run:
        output.print(
            f"{found.questions} questions on {found.check} checked and {found.bulk} unlabelled examples; {found.remembered} are answered already; "
            f"the rest may cost about ${found.expected_cost:.2f}"
        )
        return
    table = Table(title=f"agreement with people on {found.check} examples, 95 % intervals", title_justify="left")
    for column in ("judge", "usable", "equal labels", "Cohen's kappa"):
        table.add_column(column)
    for name, one in found.agreement.items():
        equal = "-" if one["equal"] is None else "{value:.3f} [{low:.3f}, {high:.3f}]".format(**one["equal"])
        kappa = "-" if one["kappa"]["low"] is None else "{value:.3f} [{low:.3f}, {high:.3f}]".format(**one["kappa"])
        table.add_row(name, f"{one['usable']}/{one['examples']}", equal, kappa)
    output.print(table)
    for name, counts in found.ended.items():
        output.print(f"{name}: " + ", ".join(f"{kind} {count}" for kind, count in counts.items()), markup=False)
    output.print(f"cost ${found.spent:.4f}")
    if found.stopped:
        output.print(found.stopped, style="red", markup=False)
    elif bulk:
        output.print(f"{found.labelled} rows labelled, {found.review} to review, {found.without_vote} without a usable vote", markup=False)
        if found.waiting:
            output.print(f"{found.waiting} rows wait: the budget is spent, or an endpoint did not answer; the same command goes on", style="yellow")
    else:
        output.print("nothing was labelled; --bulk labels what has no label", markup=False)
