"""Prove an existing judge on other data: a separate report that names the bundle's digest and never changes it."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example
from snapjudge.core.precision import Precision
from snapjudge.core.progress import Progress, Silent
from snapjudge.core.rules import Gate
from snapjudge.curate.split import check_enough
from snapjudge.errors import DataLeak, OptionInvalid, Problem
from snapjudge.flows.bundling import now
from snapjudge.flows.probing import probe_judge
from snapjudge.flows.record import made_with
from snapjudge.flows.scoring import contents_of, raw_scores
from snapjudge.flows.training_data import data_digests, distinct, read_unseen
from snapjudge.judge import Judge
from snapjudge.prove.probes import ROWS
from snapjudge.prove.proof import Contestant, Header, Proof, check_gates, prove
from snapjudge.prove.report import render_report
from snapjudge.store.bundles import Bundle
from snapjudge.store.files import check_writable, write_file


@dataclass(frozen=True)
class ProveRequest:
    """Which judge, on which files; `out` is a folder for proof.json and report.html, or None to write nothing."""

    judge: str
    data: Sequence[Path]
    out: Path | None = None
    mapping: Mapping[str, str] | None = None
    gates: Sequence[Gate] = ()
    allow_leak: bool = False
    backbone: str | None = None
    precision: Precision = Precision.float32
    probes: int = ROWS


def prove_judge(request: ProveRequest, progress: Progress | None = None) -> Proof:
    """Score the data with the judge's own calibration and threshold, and report.

    Raises:
        DataLeak: the data holds texts the judge was trained or calibrated on.
        any other SnapjudgeError of loading or reading.
    """
    progress = progress or Silent()
    judge = Judge.load(request.judge, backbone=request.backbone, dtype=request.precision)
    check_gates(request.gates, judge.metric)
    if request.out is not None and request.out.resolve().is_relative_to(judge.bundle.folder.resolve()):
        raise OptionInvalid(f"{request.out} lies in the bundle, which never changes", hint="choose a folder of its own for this report")
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        progress.say(text)

    examples = distinct(read_unseen(request.data, judge.metric, request.mapping, note), note)
    check_enough(examples, judge.metric, "data")
    for text in check_unseen(judge, examples, allow=request.allow_leak):
        note(text)
    if request.precision is not Precision.float32:
        note(f"scored in {request.precision}; the judge was calibrated in float32")
    if request.out is not None:
        check_writable(request.out)
    began = time.perf_counter()
    log_p = raw_scores(judge.backbone, judge.question, contents_of(examples, judge.metric, judge.backbone), progress, "score")
    seconds = (time.perf_counter() - began) / len(examples)
    header = Header(
        judge.name,
        judge.backbone.name,
        judge.bundle.manifest.scope,
        {"test": len(examples)},
        notes,
        bundle_digest=judge.bundle.digest,
        created=now(),
        probes=probe_judge(judge.backbone, judge.question, judge.bundle.calibration, examples, request.probes, progress) if request.probes else (),
        made_with=made_with(data_digests(request.data), backbone=f"{judge.backbone.name} {judge.backbone.digest[:16]}", judge=judge.bundle.digest),
        seconds=seconds,
    )
    contestants = [Contestant("judge", log_p, judge.bundle.calibration), _majority(judge.bundle, len(examples))]
    proof = prove(judge.metric, examples, contestants, header, request.gates)
    if request.out is not None:
        write_file(request.out / "proof.json", proof.model_dump_json(indent=2) + "\n")
        write_file(request.out / "report.html", render_report(proof))
    return proof


def check_unseen(judge: Judge, examples: Sequence[Example], *, allow: bool) -> list[str]:
    """Refuse texts that a judge was trained or calibrated on; or, if allowed, a note that says so.

    Raises:
        DataLeak.
    """
    leaked = _seen(judge.bundle, examples)
    if leaked and not allow:
        problems = [Problem(example.where, f"a text {judge.name} was trained on", "test examples that training has not seen") for example in leaked[:10]]
        raise DataLeak("data", problems, more=max(0, len(leaked) - 10), hint="remove them, or pass --allow-leak for figures that prove less")
    return [f"{len(leaked)} of these texts were in the training data of {judge.name} (--allow-leak): the figures are too good"] if leaked else []


def _seen(bundle: Bundle, examples: Sequence[Example]) -> list[Example]:
    """Examples whose text the bundle's training data held."""
    path = bundle.folder / "seen.json"
    known = set(json.loads(path.read_bytes())) if path.exists() else set()
    digits = len(next(iter(known), ""))
    return [example for example in examples if example.content_key[:digits] in known]


def _majority(bundle: Bundle, count: int) -> Contestant:
    """The training shares of the labels, for every example: the only baseline that needs no training data."""
    run = json.loads((bundle.folder / "run.json").read_bytes())
    shares = np.array([run["train_labels"].get(name, 0) for name in bundle.metric.labels], dtype=float) + 1e-6
    row = tuple(float(value) for value in np.log(shares / shares.sum()))
    return Contestant("majority", [row] * count, Calibration())
