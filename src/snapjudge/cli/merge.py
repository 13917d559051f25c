"""snapjudge merge: several judges into one adapter."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated, get_args

import typer

from snapjudge.cli.console import Bars, output, print_json, shown_errors, stop_on_interrupt


def merge(
    judges: Annotated[list[str], typer.Argument(help="judges by folder or name, on one backbone")],
    data: Annotated[list[str], typer.Option("--data", help="NAME=FILE: labelled rows that judge NAME has not seen; may be repeated")],
    out: Annotated[Path, typer.Option("--out", help="folder for judges; each measured judge gets its next version there")] = Path("judges"),
    method: Annotated[str, typer.Option("--method", help="auto searches; or linear, task_arithmetic, slerp, ties, dare, dare_ties")] = "auto",
    weights: Annotated[str | None, typer.Option("--weights", help="one for each judge, separated by commas; equal ones unless said")] = None,
    density: Annotated[float | None, typer.Option("--density", help="share of differences that ties and dare keep; 0.5 unless said")] = None,
    scale: Annotated[float | None, typer.Option("--scale", help="of the merged difference, for all but linear and slerp; 1 unless said")] = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", help="of the search: tpe, unless said, or bandit, which looks at a part of the data at a time")
    ] = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="looks of the search; 40 unless said")] = None,
    floor: Annotated[list[str] | None, typer.Option("--floor", help="NAME=0.9: what a judge's main figure must reach; may be repeated")] = None,
    rank: Annotated[int | None, typer.Option("--rank", min=1, max=256, help="of the merged adapter; the largest of the given ones unless said")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="for splits, search and dare")] = 0,
    allow_leak: Annotated[bool, typer.Option("--allow-leak", help="go on when a judge was trained on these rows")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with an interrupted search")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="drop an interrupted search and start over")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Merge judges into one adapter, and calibrate and prove it for every judge that has data."""
    with shown_errors(as_json=as_json):
        from pydantic import ValidationError

        from snapjudge.cli.settings import needs, said
        from snapjudge.curate.read import parse_numbers, parse_pairs
        from snapjudge.errors import OptionInvalid
        from snapjudge.flows.merging import MergeRequest, merge_judges
        from snapjudge.prove.report import NAMES, show_figure
        from snapjudge.train.merge import MergeConfig, Method
        from snapjudge.train.merge_search import SearchConfig

        files: dict[str, list[Path]] = defaultdict(list)
        for pair in data:
            for name, file in parse_pairs([pair], "--data", "toxicity=a.jsonl").items():
                files[name].append(Path(file))
        searched = method == "auto"
        if not searched and method not in get_args(Method):
            raise OptionInvalid(f"an option cannot be read: method {method!r}", hint=f"--method auto, {', '.join(get_args(Method))}", received=method)
        needs(searched, "--method auto", strategy=strategy, trials=trials, floor=floor, resume=resume, restart=restart)
        needs(not searched, "a --method of its own", weights=weights)
        needs(method in ("ties", "dare", "dare_ties"), "--method ties, dare or dare_ties", density=density)
        needs(method not in ("auto", "linear", "slerp"), "--method task_arithmetic, ties, dare or dare_ties", scale=scale)
        try:
            floors = parse_numbers(floor or (), "--floor")
            shares = _shares(weights, len(judges))
            search = SearchConfig.model_validate({"floors": floors, "seed": seed, **said(strategy=strategy, trials=trials)})
            fixed = None
            if not searched:
                fixed = MergeConfig.model_validate({"method": method, "weights": shares, "seed": seed, **said(density=density, scale=scale)})
        except (ValidationError, ValueError) as error:
            reason = f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}" if isinstance(error, ValidationError) else str(error)
            raise OptionInvalid(f"an option cannot be read: {reason}", hint="snapjudge merge --help") from error
        request = MergeRequest(judges, files, out, search, fixed, rank, allow_leak, resume, restart)
        with stop_on_interrupt() as stop, Bars() as bars:
            result = merge_judges(request, bars, stop)
        if as_json:
            told = {proof.judge: {name: one.model_dump() for name, one in proof.judge_figures.items()} for proof in result.proofs}
            print_json({"config": result.config.model_dump(mode="json"), "error": result.error, "folders": list(map(str, result.folders)), "figures": told})
            return
        for proof, folder in zip(result.proofs, result.folders, strict=True):
            before = proof.contenders[1]
            name = proof.main_figure
            output.print(f"[bold]{proof.judge}[/bold]  {NAMES.get(name, name)} {show_figure(proof.judge_figures.get(name))}", end="  ")
            output.print(f"({before.name}: {show_figure(before.figures.get(name))})  {folder}", markup=False)
        output.print(f"merged by {result.config.method}, weights {', '.join(f'{one:.3g}' for one in result.config.weights)}")


def _shares(weights: str | None, judges: int) -> tuple[float, ...]:
    """The weights of the option, one for each judge; equal ones where none are given."""
    from snapjudge.errors import OptionInvalid

    if weights is None:
        return (1.0,) * max(2, judges)  # of one judge the merge itself says what is missing
    try:
        shares = tuple(float(part) for part in weights.split(","))
    except ValueError:
        shares = ()
    if len(shares) != judges:
        hint = "--weights " + ",".join(["1"] * judges)
        raise OptionInvalid(f"--weights {weights!r}: one number for each of the {judges} judges, separated by commas", hint=hint, received=weights)
    return shares
