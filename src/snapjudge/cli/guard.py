"""`snapjudge guard`: policies checked, and tried on what was recorded."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from snapjudge.cli.console import AsJson, Bars, MappingOption, PrecisionOption, output, print_json, shown_errors
from snapjudge.core.precision import Precision

app = typer.Typer(help="Guard policies: rules over judges that end in an action.", no_args_is_help=True)
PolicyFile = Annotated[Path, typer.Argument(help="the policy (YAML)")]
MOST = 20  # changed rows that are shown


@app.command()
def check(policy: PolicyFile, as_json: AsJson = False) -> None:
    """Read a policy and tell what it looks at, or every problem with its line."""
    with shown_errors(as_json=as_json):
        from snapjudge.guard.policies import state_of
        from snapjudge.guard.policy_file import read_policy

        read = read_policy(policy)
        if as_json:
            print_json(state_of(read).model_dump(mode="json"))
            return
        output.print(f"[bold]{read.signature}[/bold]  fails {read.fail}, rules wait {read.deadline_ms:g} ms unless they say{'; paused' if read.paused else ''}")
        for route in read.routing:
            whose = f" of {', '.join(route.judges)}" if route.judges else ""
            unsure = f" below {route.below:g}" if route.below is not None else ""
            output.print(f"routing  {', '.join(route.when)}{unsure}{whose} -> {route.to} {route.judge or route.llm or route.person}".rstrip(), markup=False)
        for stage in read.stages:
            for one in read.rulesets(stage):
                paused = "  (paused)" if one.paused else ""
                output.print(f"{stage}  {one.priority:>4}  {one.name}: {one.rule} -> {one.action.type}{paused}", markup=False)


@app.command(name="test")
def try_policy(
    policy: PolicyFile,
    on: Annotated[Path, typer.Option("--on", help="recorded traffic: .jsonl, .csv or .parquet; - reads standard input")],
    against: Annotated[Path | None, typer.Option(help="another policy; without one, what the records say was done in `action`")] = None,
    stage: Annotated[str | None, typer.Option(help="of records that name none: input, output, tool_call or retrieval")] = None,
    mapping: MappingOption = None,
    out: Annotated[Path | None, typer.Option(help="file for every record with what would be done, as JSON lines")] = None,
    precision: PrecisionOption = Precision.float32,
    as_json: AsJson = False,
) -> None:
    """What a policy would do with recorded traffic, and what that changes. Nothing is acted on, and nobody is called."""
    with shown_errors(as_json=as_json):
        from snapjudge.curate.read import parse_map
        from snapjudge.flows.guard_dry_run import DryRunRequest, checked_stage, dry_run
        from snapjudge.guard.policy_file import read_policy
        from snapjudge.store.files import write_file

        request = DryRunRequest(
            read_policy(policy),
            None if str(on) == "-" else on,
            None if against is None else read_policy(against),
            checked_stage(stage),
            parse_map(mapping or []),
            precision,
        )
        with Bars() as bars:
            found = dry_run(request, bars)
        if out is not None:
            write_file(out, "".join(json.dumps(vars(row), ensure_ascii=False) + "\n" for row in found.rows))
        if as_json:
            counts = [{"before": before, "after": after, "rows": rows} for (before, after), rows in sorted(found.counts.items())]
            changed = [vars(row) for row in found.changed]
            unread = [str(one) for one in found.problems]
            print_json({"policy": found.policy, "against": found.against, "rows": len(found.rows), "counts": counts, "changed": changed, "unread": unread})
            return
        known = any(row.before is not None for row in found.rows)
        output.print(f"[bold]{found.policy}[/bold] on {len(found.rows)} records: " + ", ".join(f"{name} {rows}" for name, rows in found.after.items()))
        if known:
            table = Table(title=f"against {found.against}", title_justify="left")
            after = list(found.after)
            for column in ("before", *after):
                table.add_column(column, justify="left" if column == "before" else "right")
            for before in sorted({pair[0] for pair in found.counts}):
                table.add_row(before, *(str(found.counts.get((before, name), "")) for name in after))
            output.print(table)
            output.print(f"{len(found.changed)} would change")
        for row in (found.changed if known else [one for one in found.rows if one.after != "allow"])[:MOST]:
            output.print(f"{row.id}: {f'{row.before} -> ' if row.before else ''}{row.after}  {'; '.join(row.why)}", markup=False)
            output.print(f"  {row.text}", style="dim", markup=False)
        for problem in found.problems[:MOST]:
            output.print(f"not read: {problem}", style="yellow", markup=False)
