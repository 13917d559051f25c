"""snapjudge train: from a metric file and labelled examples to a proven judge."""

from pathlib import Path
from typing import Annotated

import typer

from snapjudge.cli.console import EXIT_GATE, Bars, MappingOption, output, print_json, shown_errors, stop_on_interrupt


def train(
    metric: Annotated[Path, typer.Argument(help="the metric file (YAML)")],
    data: Annotated[list[Path], typer.Option("--data", help="labelled examples: .jsonl, .csv, .tsv, .parquet; may be repeated")],
    out: Annotated[Path, typer.Option("--out", help="folder for judges; the bundle becomes OUT/NAME/VERSION")] = Path("judges"),
    test: Annotated[list[Path] | None, typer.Option("--test", help="a test file of its own instead of a split of the data; may be repeated")] = None,
    validation: Annotated[list[Path] | None, typer.Option("--validation", help="files that decide when to stop, instead of a part of the data")] = None,
    calibration: Annotated[list[Path] | None, typer.Option("--calibration", help="files to calibrate and choose thresholds on, instead of a part")] = None,
    teacher: Annotated[str, typer.Option("--teacher", help="learn from a judge's probabilities, verdict:NAME or open:BACKBONE, beside the labels")] = "",
    teacher_share: Annotated[
        float | None, typer.Option("--teacher-share", help="how much the teacher counts beside the labels, 0 to 1; 0.5 unless said")
    ] = None,
    temperature: Annotated[float | None, typer.Option("--temperature", help="at which the teacher's probabilities are learned; 2 unless said")] = None,
    unlabelled: Annotated[list[Path] | None, typer.Option("--unlabelled", help="examples that the teacher labels; may be repeated")] = None,
    drop_optional: Annotated[float, typer.Option("--drop-optional", help="share of examples also shown without their optional inputs, 0 to 1")] = 0.0,
    noise: Annotated[float, typer.Option("--noise", help="share of examples also shown with typos, other case, tags, padding, ..., 0 to 1")] = 0.0,
    adapter: Annotated[str, typer.Option("--adapter", help="keep the adapter of a judge: only calibrate and prove it again")] = "",
    backbone: Annotated[str, typer.Option("--backbone", help="mini, a local model folder, or a hub name")] = "mini",
    scope: Annotated[str, typer.Option("--scope", help="auto, readout, all, or backbone: all its weights, kept in the bundle")] = "auto",
    threshold: Annotated[str | None, typer.Option("--threshold", help="threshold rule such as fpr<=0.02@95%, instead of the metric's")] = None,
    escalation: Annotated[str | None, typer.Option("--escalation", help="rule such as agreement>=0.95@95% for what the judge answers itself")] = None,
    prevalence: Annotated[float | None, typer.Option("--prevalence", help="share of the flagged label where the judge will run")] = None,
    gate: Annotated[
        list[str] | None, typer.Option("--gate", help="a figure that must be reached, such as f1>=0.9 or auroc.low>=0.85; exit status 1 if not")
    ] = None,
    suite: Annotated[Path | None, typer.Option("--suite", help="a regression suite whose held rows must not be lost; exit status 1 if one is")] = None,
    mapping: MappingOption = None,
    rate: Annotated[float, typer.Option("--rate", help="peak learning rate to begin with")] = 1e-3,
    rank: Annotated[int, typer.Option("--rank", help="LoRA rank")] = 16,
    epochs: Annotated[int | None, typer.Option("--epochs", help="number of epochs instead of the automatic one")] = None,
    batch: Annotated[int, typer.Option("--batch", help="examples per step")] = 32,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="for splits, batches and initial weights")] = 0,
    cache_gb: Annotated[float, typer.Option("--cache-gb", help="content states kept in the device's memory, GiB; the rest goes to a file")] = 2.0,
    calibrate_by: Annotated[str, typer.Option("--calibrate-by", help="length or source: parts of the traffic with a calibration map of their own")] = "",
    probes: Annotated[int, typer.Option("--probes", min=0, help="test examples that are probed with noise; 0 for none")] = 100,
    texts: Annotated[bool, typer.Option("--texts/--no-texts", help="show the worst errors with their texts, or keep all text out of the bundle")] = True,
    allow_leak: Annotated[bool, typer.Option("--allow-leak", help="go on when test texts are in the training data")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="go on with an interrupted training")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="drop an interrupted training and start over")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Train, calibrate and prove a judge; write its bundle and report."""
    with shown_errors(as_json=as_json):
        from snapjudge.cli.settings import checked_config, needs, said
        from snapjudge.cli.tables import print_proof
        from snapjudge.core.rules import Gate
        from snapjudge.curate.read import parse_map
        from snapjudge.flows.train_judge import train_judge
        from snapjudge.flows.train_terms import TrainConfig, TrainRequest

        needs(bool(teacher), "--teacher", teacher_share=teacher_share, temperature=temperature)
        fit: dict[str, object] = {"rate": rate, "rank": rank, "alpha": 2.0 * rank, "epochs": epochs, "batch": batch, "seed": seed, "cache_gb": cache_gb}
        fit |= said(teacher_share=teacher_share, temperature=temperature)
        config = checked_config(
            TrainConfig,
            "train",
            scope=scope,
            backbone=backbone,
            threshold=threshold,
            escalation=escalation,
            prevalence=prevalence,
            calibrate_by=calibrate_by,
            probes=probes,
            allow_leak=allow_leak,
            texts=texts,
            teacher=teacher,
            drop_optional=drop_optional,
            noise=noise,
            adapter=adapter,
            fit=fit,
        )
        gates = [Gate.parse(text) for text in gate or ()]
        request = TrainRequest(
            metric, data, out, test or (), parse_map(mapping or ()), gates, suite, resume, restart, validation or (), calibration or (), unlabelled or ()
        )
        with stop_on_interrupt() as stop, Bars() as bars:
            result = train_judge(request, config, bars, stop)
        if as_json:
            figures = {name: figure.model_dump() for name, figure in result.proof.judge_figures.items()}
            found = {"judge": result.judge, "folder": str(result.folder), "seconds": round(result.seconds, 1), "figures": figures}
            print_json({**found, "gates": [one.model_dump() for one in result.proof.gates], "notes": list(result.proof.notes)})
        else:
            print_proof(result.proof)
            output.print(f"judge  {result.judge} in {result.folder} ({result.seconds:.0f} s)\nreport {result.folder / 'report.html'}")
        if result.proof.failed_gates:
            raise typer.Exit(EXIT_GATE)
