"""snapjudge data: a data set's rows in, shown, split and out. Its labels and its audit have files of their own."""

from pathlib import Path
from typing import Annotated

import typer

from snapjudge.cli import audit, consensus, estimate, labelling, synthesise
from snapjudge.cli.console import EXIT_GATE, AsJson, Bars, MappingOption, MetricFile, errors, output, print_json, shown_errors, stop_on_interrupt

app = typer.Typer(help="Data sets: import, show, label, audit, split, agreement, export.", no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(metavar="DATASET", help="the data set's folder")]


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="a file, or a Hugging Face datasets folder")],
    dataset: Folder,
    metric: MetricFile = None,
    kind: Annotated[str, typer.Option("--format", help="auto, records, messages, datasets, spans, decisions, systemone, label_studio or argilla")] = "auto",
    mapping: MappingOption = None,
    label: Annotated[list[str] | None, typer.Option("--label", help="THEIRS=OURS, how a label is called there; may be repeated")] = None,
    question: Annotated[str | None, typer.Option("--question", help="which of the file's questions is meant, by name; the metric's own unless said")] = None,
    labeler: Annotated[str, typer.Option("--labeler", help="who made the labels, where the rows do not say")] = "",
    source_kind: Annotated[str, typer.Option("--source", help="of the labels: production, synthetic, expert, public or consensus")] = "expert",
    criteria_version: Annotated[
        int | None, typer.Option("--criteria-version", min=1, help="under which the labels were made; the metric's unless said")
    ] = None,
    redact: Annotated[bool, typer.Option("--redact", help="replace personal data before anything is stored")] = False,
    as_json: AsJson = False,
) -> None:
    """Import rows and their labels. The same import again adds nothing; killed, the same command goes on. Exit status 1 if rows were rejected."""
    with shown_errors(as_json=as_json):
        from snapjudge.curate.dataset import Dataset
        from snapjudge.curate.labels import source_named
        from snapjudge.curate.read import parse_map, parse_pairs
        from snapjudge.flows.importing import ImportRequest, import_data
        from snapjudge.flows.labelling import metric_for
        from snapjudge.store.files import write_file

        request = ImportRequest(
            source,
            Dataset(dataset),
            metric_for(dataset, metric),
            kind,
            parse_map(mapping or ()),
            parse_pairs(label or (), "--label"),
            question,
            source_named(source_kind),
            labeler,
            criteria_version,
            redact,
        )
        with stop_on_interrupt() as stop, Bars() as progress:
            found = import_data(request, progress, stop)
        own = Dataset(dataset).metric
        if metric is not None and not own.exists():
            write_file(own, metric.read_bytes())
            errors.print(f"{own} is a copy of {metric}: commands on this data set use it where no --metric is given", markup=False)
        if as_json:
            print_json(vars(found))
        else:
            told = (
                f"{found.read} rows read as {found.format}: {found.added} new, {found.known} known, {len(found.rejected)} rejected; {found.labels} new labels"
            )
            output.print(told + (f"; personal data replaced in {found.redacted}" if redact else ""), markup=False)
            for problem in found.rejected[:10]:
                output.print(f"  {problem}", markup=False)
            if found.rejected:
                output.print(f"rejected rows are listed in {Dataset(dataset).rejected}", markup=False)
        if found.rejected:
            raise typer.Exit(EXIT_GATE)


@app.command()
def split(
    dataset: Folder,
    metric: MetricFile = None,
    size: Annotated[int, typer.Option("--test", min=20, help="examples in the test, about")] = 400,
    by_time: Annotated[bool, typer.Option("--by-time", help="the newest examples are the test")] = False,
    salt: Annotated[str, typer.Option("--salt", help="another word gives other splits")] = "",
    as_json: AsJson = False,
) -> None:
    """Freeze the test, once, and tell which split every row belongs to. Rows added later never move those that are there."""
    with shown_errors(as_json=as_json):
        from snapjudge.curate.dataset import Dataset
        from snapjudge.flows.labelling import metric_for
        from snapjudge.flows.splitting import split_data

        found = split_data(Dataset(dataset), metric_for(dataset, metric), size=size, by_time=by_time, salt=salt)
        if as_json:
            print_json(found)
            return
        output.print(f"the test {'was frozen' if found['frozen_before'] else 'is frozen now'}: {found['created']}, digest {found['digest'][:16]}")
        for name, counts in found["splits"].items():
            told = ", ".join(f"{label} {count}" for label, count in sorted(counts.items()))
            output.print(f"[dim]{name:<12}[/dim]{sum(counts.values()):>7}  {told}", markup=True)
        for one in found["held"][:5]:
            output.print(f"held out: {one['id']}, {one['reason']}", markup=False)


@app.command()
def export(
    dataset: Folder,
    out: Annotated[Path, typer.Option("--out", help="the file to write: .jsonl, .csv or .parquet")],
    metric: MetricFile = None,
    disputed: Annotated[bool, typer.Option("--disputed", help="keep disputed examples, with the shares of their votes as a soft label")] = False,
    current: Annotated[bool, typer.Option("--current", help="leave out what was labelled under older criteria")] = False,
    part: Annotated[str | None, typer.Option("--split", help="only train, validation, calibration, test or held")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the labelled examples as one file, each with its split where the test is frozen."""
    with shown_errors(as_json=as_json):
        from snapjudge.curate.dataset import Dataset, labelled
        from snapjudge.errors import OptionInvalid
        from snapjudge.flows.exporting import export_data
        from snapjudge.flows.labelling import metric_for
        from snapjudge.flows.splitting import splits_of

        known, ours = Dataset(dataset), metric_for(dataset, metric)
        found, splits = labelled(known, ours, disputed="shares" if disputed else "leave", leave_stale=current), splits_of(known, ours)
        if part is not None and part not in set(splits.values()):
            raise OptionInvalid(
                f"there is no split {part!r}", hint=f"one of {', '.join(sorted(set(splits.values())))}" if splits else "`snapjudge data split` first"
            )
        written = export_data([example for example in found.examples if part in (None, splits.get(example.id))], ours, splits, out)
        told = {"written": written, "unlabelled": found.unlabelled, "disputed": found.disputed, "stale": found.stale, "out": str(out)}
        if as_json:
            print_json(told)
        else:
            left = f"{found.unlabelled} unlabelled, {found.disputed} disputed, {found.stale} stale"
            output.print(f"{written} examples in {out}; left out: {left}", markup=False)


app.command()(labelling.show)
app.command()(labelling.label)
app.command()(labelling.agreement)
app.command()(audit.audit)
app.command()(consensus.consensus)
app.command()(synthesise.synthesise)
app.command()(synthesise.verify)
app.command("next")(estimate.next_)
