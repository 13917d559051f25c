"""snapjudge data synthesise, verify: synthetic rows, and the person who must look at a sample of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snapjudge.cli.console import EXIT_GATE, AsJson, Bars, MetricFile, output, print_json, shown_errors, stop_on_interrupt

if TYPE_CHECKING:
    from snapjudge.curate.batches import Batch
    from snapjudge.curate.perturb.rows import Kind
    from snapjudge.flows.synthesis import SynthesisResult

Folder = Annotated[Path, typer.Argument(metavar="DATASET", help="the data set's folder")]


def synthesise(
    dataset: Folder,
    metric: MetricFile = None,
    perturb: Annotated[
        str | None, typer.Option("--perturb", help="without any endpoint, from real rows: grounding, injection, harmless, tools, personal or noise")
    ] = None,
    of: Annotated[str | None, typer.Option("--of", help="perturb rows of this label")] = None,
    label: Annotated[str | None, typer.Option("--label", help="what a perturbed row is; noise keeps its label")] = None,
    endpoints: Annotated[Path | None, typer.Option("--endpoints", help="YAML: the first writes rows, all judge them")] = None,
    plan: Annotated[Path | None, typer.Option("--plan", help="YAML: topics, styles, languages, lengths, pair_share, out_of_domain_share")] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="rows, about")] = 200,
    name: Annotated[str, typer.Option("--name", help="of the batch")] = "",
    sample: Annotated[int, typer.Option("--sample", min=1, help="rows a person must verify before the rest is used")] = 40,
    seed: Annotated[int, typer.Option("--seed", help="another seed gives other rows")] = 0,
    max_cost: Annotated[float | None, typer.Option("--max-cost", min=0, help="dollars this run may cost")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="tell about what it would cost, and ask nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a batch of synthetic rows: perturbed from real ones, or written by a language model. They wait for `data verify`."""
    with shown_errors(as_json=as_json):
        from snapjudge.curate.dataset import Dataset
        from snapjudge.errors import OptionInvalid
        from snapjudge.flows.labelling import metric_for
        from snapjudge.flows.synthesis import PerturbRequest, perturb_data

        if (perturb is None) == (endpoints is None):
            raise OptionInvalid("perturb real rows, or let a model write?", hint="give either --perturb KIND or --endpoints FILE")
        ours, known = metric_for(dataset, metric), Dataset(dataset)
        if perturb is not None:
            found = perturb_data(PerturbRequest(known, ours, _kind(perturb), name or f"{perturb}-{seed}", of, label, count, seed, sample))
            _told(found, as_json=as_json)
            return
        from snapjudge.flows.synthesis import WriteRequest, expected_cost, write_data
        from snapjudge.llm.endpoints import read_endpoints
        from snapjudge.llm.generating import read_plan
        from snapjudge.llm.memory import Memory

        writer, *judges = read_endpoints(endpoints or Path())
        request = WriteRequest(known, ours, writer, judges, read_plan(plan), name or f"written-{seed}", count, seed, sample, max_cost)
        if dry_run:
            cost = expected_cost(request)
            if as_json:
                print_json({"expected_cost": cost})
            else:
                output.print(f"about ${cost:.2f} for {count} rows")
            return
        with Memory(dataset / "answers.sqlite") as memory, stop_on_interrupt() as stop, Bars() as bars:
            written = write_data(request, memory, bars, stop)
        _told(written, as_json=as_json)


def _kind(name: str) -> "Kind":
    from snapjudge.curate.perturb.rows import KINDS
    from snapjudge.errors import OptionInvalid

    for kind in KINDS:
        if kind == name:
            return kind
    told = "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
    raise OptionInvalid(f"there is no perturbation {name!r}", hint=told, received=name)


def _told(found: "SynthesisResult", *, as_json: bool) -> None:
    if as_json:
        print_json(vars(found))
        return
    for what, counts in (("labels", found.labels), ("methods", found.methods), ("on the way", found.counts)):
        if counts:
            output.print(f"{what:<11}" + ", ".join(f"{name} {count}" for name, count in counts.items()), markup=False)
    output.print(f"{found.rows} rows wait in batch {found.batch}" + (f"; cost ${found.spent:.4f}" if found.spent else ""), markup=False)
    output.print(f"next: snapjudge data verify DATASET {found.batch} --labeler YOU ({found.sample} rows to look at)", markup=False)


def verify(
    dataset: Folder,
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="the batch's name")],
    labeler: Annotated[str, typer.Option("--labeler", help="who looks")],
    metric: MetricFile = None,
    fewest: Annotated[float, typer.Option("--min-acceptance", min=0, max=1, help="lower end of the acceptance's interval that opens the batch")] = 0.75,
    as_json: AsJson = False,
) -> None:
    """Look at a batch's sample, row by row (y right, n wrong, q later); then the batch is used, or not. Exit status 1 if not."""
    with shown_errors(as_json=as_json):
        from snapjudge.curate.batches import batch_of
        from snapjudge.curate.dataset import Dataset
        from snapjudge.flows.labelling import metric_for
        from snapjudge.flows.synthesis import accept

        known, ours = Dataset(dataset), metric_for(dataset, metric)
        waiting = batch_of(known, batch)
        if not _look(waiting, ours.question, labeler):
            return
        found = accept(known, ours, waiting, fewest=fewest)
        if as_json:
            print_json(vars(found))
        else:
            output.print(f"{found.right} of {found.verified} right: acceptance between {found.low:.2f} and {found.high:.2f} (95 %)")
            told = (
                f"{found.added} rows are in the data set"
                if found.opens
                else f"below {fewest:g}: the batch stays out; mend the plan, or try another kind or seed"
            )
            output.print(told, style="green" if found.opens else "red")
        if not found.opens:
            raise typer.Exit(EXIT_GATE)


def _look(batch: "Batch", question: str, labeler: str) -> bool:
    """Ask about every open row of the sample; False when the person leaves before the end."""
    from snapjudge.core.example import texts_of
    from snapjudge.curate.batches import add_verdict, open_sample

    rows = open_sample(batch)
    for number, row in enumerate(rows, 1):
        output.print(f"[bold]{number} of {len(rows)}[/bold]  {row['meta'].get('method', '')}", highlight=False)
        for name, text in texts_of(row["inputs"]).items():
            output.print(f"{name}: {text}", markup=False)
        said = ""
        while said not in ("y", "n", "q"):
            try:
                said = typer.prompt(f"{question} -> {row['label']}. Right? y/n/q").strip().lower()[:1]
            except typer.Abort:
                said = "q"
        if said == "q":
            output.print("what was said is kept; the same command goes on")
            return False
        add_verdict(batch, row["id"], right=said == "y", by=labeler)
    return True
