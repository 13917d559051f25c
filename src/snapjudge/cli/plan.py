"""snapjudge plan: LLM judge, small judge or both?"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from snapjudge.cli.console import AsJson, output, print_json, shown_errors


def plan(
    volume: Annotated[float, typer.Option("--volume", help="texts a day that should be checked")],
    tokens: Annotated[float, typer.Option("--tokens", help="of one text with its context")] = 500,
    prompt_tokens: Annotated[float, typer.Option("--prompt-tokens", help="of the LLM judge's instructions")] = 400,
    answer_tokens: Annotated[float, typer.Option("--answer-tokens", help="of its answer")] = 60,
    input_price: Annotated[float, typer.Option("--input-price", help="dollars per million input tokens")] = 2.5,
    output_price: Annotated[float, typer.Option("--output-price", help="dollars per million output tokens")] = 10.0,
    llm_seconds: Annotated[float, typer.Option("--llm-seconds", help="for one verdict of the LLM judge")] = 1.5,
    milliseconds: Annotated[float, typer.Option("--milliseconds", help="of one machine for one text with the small judge")] = 40.0,
    machine: Annotated[float, typer.Option("--machine", help="dollars a month for one")] = 80.0,
    labels: Annotated[int, typer.Option("--labels", help="examples labelled by people under today's criteria")] = 0,
    label_price: Annotated[float, typer.Option("--label-price", help="dollars for one label")] = 0.6,
    labels_wanted: Annotated[int, typer.Option("--labels-wanted", help="labels that can be paid for each time the criteria change")] = 800,
    changes: Annotated[float, typer.Option("--changes", help="of the criteria a year")] = 1.0,
    latency: Annotated[float | None, typer.Option("--latency", help="milliseconds within which a verdict is needed")] = None,
    escalated: Annotated[float, typer.Option("--escalated", help="share that the small judge leaves to the LLM judge")] = 0.1,
    out: Annotated[Path | None, typer.Option("--out", help="a page to write (.html)")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the cost of an LLM judge, a small judge, and both, and say which fits; every default is to be replaced by your own number."""
    with shown_errors(as_json=as_json):
        given: dict[str, Any] = {key: value for key, value in locals().items() if key not in ("out", "as_json", "given")}
        from pydantic import ValidationError

        from snapjudge.errors import OptionInvalid
        from snapjudge.flows.planning import Terms, advise, render_advice
        from snapjudge.store.files import write_file

        try:
            terms = Terms.model_validate(given)
        except ValidationError as error:
            told = "; ".join(f"--{str(item['loc'][0]).replace('_', '-')} {item['input']!r}: {item['msg']}" for item in error.errors())
            raise OptionInvalid(told, hint="`snapjudge plan --help` lists the options") from error
        advice = advise(terms)
        if out is not None:
            write_file(out, render_advice(advice))
        if as_json:
            print_json(advice.model_dump(mode="json"))
            return
        table = Table(title=f"dollars a month for {volume:,.0f} texts a day", title_justify="left")
        for column in ("option", "dollars", "made of", "against it"):
            table.add_column(column)
        for one in advice.choices:
            parts = ", ".join(f"{name} {money:,.0f}" for name, money in one.parts.items())
            name = f"[bold]{one.option}[/bold]" if one.option == advice.advised else one.option
            table.add_row(name, f"{one.month:,.0f}", parts, "; ".join(one.against) + (" (ruled out)" if one.ruled_out else ""))
        output.print(table)
        output.print(f"advised: {advice.advised}. {advice.why}", markup=False)
        if advice.break_even is not None:
            output.print(f"a small judge is cheaper than the LLM judge from about {advice.break_even:,.0f} texts a day", markup=False)
        if out is not None:
            output.print(f"page {out}", markup=False)
