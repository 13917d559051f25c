"""snapjudge prove: an existing judge on other data."""

from pathlib import Path
from typing import Annotated

import typer

from snapjudge.cli.console import EXIT_GATE, Bars, MappingOption, PrecisionOption, output, print_json, shown_errors
from snapjudge.core.precision import Precision


def prove(
    judge: Annotated[str, typer.Argument(help="a bundle's folder, or a judge's name")],
    data: Annotated[list[Path], typer.Option("--data", help="labelled examples; may be repeated")],
    out: Annotated[Path | None, typer.Option("--out", help="folder for proof.json and report.html")] = None,
    gate: Annotated[list[str] | None, typer.Option("--gate", help="a figure that must be reached, such as f1>=0.9; exit status 1 if not")] = None,
    mapping: MappingOption = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="where the judge's backbone lies, if it has moved")] = None,
    precision: PrecisionOption = Precision.float32,
    probes: Annotated[int, typer.Option("--probes", min=0, help="examples that are probed with noise; 0 for none")] = 100,
    allow_leak: Annotated[bool, typer.Option("--allow-leak", help="go on when the data holds texts the judge was trained on")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the proof as JSON")] = False,
) -> None:
    """Prove a judge on other labelled data; the bundle is never changed."""
    with shown_errors(as_json=as_json):
        from snapjudge.cli.tables import print_proof
        from snapjudge.core.rules import Gate
        from snapjudge.curate.read import parse_map
        from snapjudge.flows.prove_judge import ProveRequest, prove_judge

        gates = [Gate.parse(text) for text in gate or ()]
        with Bars() as bars:
            proof = prove_judge(ProveRequest(judge, data, out, parse_map(mapping or ()), gates, allow_leak, backbone, precision, probes), bars)
        if as_json:
            print_json(proof.model_dump(mode="json"))
        else:
            print_proof(proof)
            if out is not None:
                output.print(f"report {out / 'report.html'}")
        if proof.failed_gates:
            raise typer.Exit(EXIT_GATE)
