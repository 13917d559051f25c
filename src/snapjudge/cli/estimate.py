"""snapjudge data next, snapjudge estimate: what to label next, and the true rate in traffic from few labels."""

from pathlib import Path
from typing import Annotated

import typer

from snapjudge.cli.console import AsJson, MetricFile, output, print_json, shown_errors

Scores = Annotated[Path, typer.Argument(metavar="SCORES", help="what `snapjudge score` wrote")]
JudgeName = Annotated[str | None, typer.Option("--judge", help="whose answers, where the file has several")]


def next_(
    scores: Scores,
    out: Annotated[Path, typer.Option("--out", help="the queue to write, one row to label a line")],
    dataset: Annotated[Path | None, typer.Option("--dataset", help="the data set the labels go to; rows labelled there are not chosen again")] = None,
    metric: MetricFile = None,
    count: Annotated[int, typer.Option("--count", min=1, help="rows to choose")] = 100,
    random_share: Annotated[float, typer.Option("--random-share", min=0, max=1, help="of them drawn at random, for unbiased rates")] = 0.3,
    adaptive: Annotated[bool, typer.Option("--adaptive", help="draw the random share where the judge is unsure, with known probability")] = False,
    judge: JudgeName = None,
    other: Annotated[Path | None, typer.Option("--other", help="the same traffic scored by another version or a shadow")] = None,
    traffic: Annotated[Path | None, typer.Option("--traffic", help="the traffic itself, to find kinds of text that labels lack")] = None,
    seed: Annotated[int, typer.Option("--seed", help="of the random share")] = 0,
    as_json: AsJson = False,
) -> None:
    """Choose what to label next: a random share, the unsure, the disputed between versions, and kinds of text that labels lack."""
    with shown_errors(as_json=as_json):
        from snapjudge.errors import OptionInvalid
        from snapjudge.flows.estimating import NextRequest, choose_next
        from snapjudge.flows.labelling import metric_for

        if dataset is None and metric is None:
            raise OptionInvalid("for which metric?", hint="give --dataset or --metric")
        ours = metric_for(dataset or Path(), metric)
        found = choose_next(NextRequest(scores, out, count, ours, dataset, judge, other, traffic, random_share, adaptive, seed))
        if as_json:
            print_json(found)
            return
        reasons = ", ".join(f"{reason} {number}" for reason, number in found["reasons"].items())
        output.print(f"{found['chosen']} rows to label in {found['out']}: {reasons}", markup=False)
        if found["expected_error"] is not None:
            output.print(f"with all of the random share labelled, the rate should be known to about ± {1.96 * found['expected_error']:.3f}")


def estimate(
    scores: Scores,
    labels: Annotated[Path, typer.Option("--labels", help="the data set, or file of label events, with the labels")],
    metric: MetricFile = None,
    queue: Annotated[Path | None, typer.Option("--queue", help="what `snapjudge data next` wrote: which labels were drawn at random")] = None,
    all_random: Annotated[bool, typer.Option("--all-random", help="all labelled rows were drawn at random, each as likely as any other")] = False,
    judge: JudgeName = None,
    proof: Annotated[Path | None, typer.Option("--proof", help="the judge's proof.json, for the rate corrected by its sensitivity and specificity")] = None,
    as_json: AsJson = False,
) -> None:
    """The true rate of the flagged label in traffic, with its interval, from a judge's scores on all of it and labels on a random part."""
    with shown_errors(as_json=as_json):
        from rich.table import Table

        from snapjudge.flows.estimating import EstimateRequest, estimate_rate
        from snapjudge.flows.labelling import metric_for

        found = estimate_rate(EstimateRequest(scores, labels, metric_for(labels, metric), queue, all_random, judge, proof))
        if as_json:
            print_json(found)
            return
        table = Table(title=f"flagged rate in {found['traffic']} rows, {found['labels']} of them labelled at random", title_justify="left")
        for column in ("method", "rate, 95 % interval", "as good as"):
            table.add_column(column)
        for rate in found["rates"]:
            worth = f"{rate['worth']:.0f} labels" if rate["worth"] else "if traffic is like the test"
            table.add_row(rate["method"], f"{rate['value']:.4f} [{rate['low']:.4f}, {rate['high']:.4f}]", worth)
        table.add_row(f"{found['judge']} alone", f"{found['flagged_share']:.4f} flagged, mean score {found['mean_score']:.4f}", "biased by its errors")
        output.print(table)
        for row in found["plan"]:
            output.print(f"with {row['labels']} random labels: about ± {row['uniform']:.4f}; drawn where the judge is unsure ± {row['adaptive']:.4f}")
        if found["abstained"]:
            output.print(f"{found['abstained']} rows the judge abstained from are in none of these figures", style="yellow")
