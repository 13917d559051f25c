"""snapjudge ask: one question on the command line."""

from typing import Annotated, Any

import typer

from snapjudge.cli.console import PrecisionOption, output, print_json, shown_errors
from snapjudge.core.precision import Precision


def ask(
    text: Annotated[str | None, typer.Argument(help="the text to judge: the judge's output field, or its only field")] = None,
    judge: Annotated[list[str] | None, typer.Option("--judge", help="judges by folder or name, separated by commas; may be repeated")] = None,
    field: Annotated[list[str] | None, typer.Option("--field", help="FIELD=TEXT for metrics that read several fields; may be repeated")] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="where the judges' backbone lies, if it has moved")] = None,
    precision: PrecisionOption = Precision.float32,
    as_json: Annotated[bool, typer.Option("--json", help="print the judgements as JSON")] = False,
) -> None:
    """Judge one text: `snapjudge ask --judge tone "Thanks, that helped!"`."""
    with shown_errors(as_json=as_json):
        from snapjudge.cli.tables import verdict
        from snapjudge.errors import OptionInvalid
        from snapjudge.judge import Panel

        names = [name for part in judge or () for name in part.split(",") if name]
        if not names:
            raise OptionInvalid("no judge was named", hint='snapjudge ask --judge judges/NAME "text"')
        panel = Panel.load(names, backbone=backbone, dtype=precision.value)
        inputs: dict[str, Any] = _fields(field or ())
        if text is not None:
            wanted = next(iter(panel.judges.values())).metric.ordered_inputs
            inputs["output" if "output" in wanted else wanted[-1]] = text
        answers = panel.score(**inputs)
        if as_json:
            print_json({name: answer.model_dump(mode="json") for name, answer in answers.items()})
            return
        for name, answer in answers.items():
            metric = panel.judges[name].metric
            shares = ", ".join(f"{label} {p:.3f}" for label, p in sorted(answer.probabilities.items(), key=lambda pair: -pair[1])[:5])
            output.print(f"[bold]{name}[/bold]  {verdict(panel.judges[name], answer)}  confidence {answer.confidence:.3f}  ({shares})")
            output.print(f"{metric.question}{f' Read in {answer.windows} windows.' if answer.windows > 1 else ''}", style="dim", markup=False)


def _fields(pairs: list[str] | tuple[()]) -> dict[str, object]:
    import json

    from snapjudge.core.metric import INPUT_NAMES
    from snapjudge.errors import OptionInvalid

    found: dict[str, object] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or name not in INPUT_NAMES:
            raise OptionInvalid(f"--field {pair!r} cannot be read", hint=f"FIELD=TEXT with a field among {', '.join(INPUT_NAMES)}", received=pair)
        try:
            found[name] = json.loads(value) if name in ("messages", "tools") else value
        except json.JSONDecodeError:
            found[name] = value
    return found
