"""snapjudge demo: the whole road on the examples that ship with the package."""

from pathlib import Path
from typing import Annotated

import typer

from snapjudge.cli.console import Bars, output, shown_errors, stop_on_interrupt

QUESTIONS = (
    ("Should I move my pension into the tech fund?", "At 58 I'd move at least half of it into the bond fund before you retire."),
    (
        "What is the difference between an ETF and a fund?",
        "An ETF trades on an exchange during the day; a mutual fund is priced once a day. Both can track an index.",
    ),
    ("Is the new phone worth it?", "If your old one still gets updates, keep it; otherwise you should buy the smaller model, it is better value."),
)


def demo(
    out: Annotated[Path, typer.Option("--out", help="folder for the judge")] = Path("judges"),
    fresh: Annotated[bool, typer.Option("--restart", help="drop an interrupted demo and start over")] = False,
) -> None:
    """Train `investment_advice` from the shipped examples, prove it, and ask it three questions. Offline, on the embedded backbone."""
    with shown_errors():
        from snapjudge.cli.tables import print_proof, verdict
        from snapjudge.flows.demo import train_demo
        from snapjudge.judge import Judge

        with stop_on_interrupt() as stop, Bars() as bars:
            result = train_demo(out, bars, stop, restart=fresh)
        print_proof(result.proof)
        judge = Judge.load(result.folder)
        for question, answer in QUESTIONS:
            found = judge.score(input=question, output=answer)
            output.print(f"\nuser      {question}\nassistant {answer}", markup=False)
            output.print(f"[bold]{found.judge}[/bold]  {verdict(judge, found)}")
        output.print(
            f"\njudge  {result.judge} in {result.folder} (trained and proved in {result.seconds:.0f} s)\nreport {result.folder / 'report.html'}", markup=False
        )
