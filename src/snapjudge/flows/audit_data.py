"""Audit a data set or files: read what can be read, look at it, write the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from snapjudge.core.example import Example
from snapjudge.core.metric import INPUT_NAMES, Metric
from snapjudge.core.progress import Progress
from snapjudge.curate.audit import SHORTCUT_ERROR, SHORTCUT_WARNING, AuditData, audit
from snapjudge.curate.dataset import Dataset, labelled
from snapjudge.curate.findings import Audit, Finding, Row
from snapjudge.curate.read import readable, records
from snapjudge.errors import OptionInvalid, Problem, TooFewExamples
from snapjudge.flows.splitting import splits_of
from snapjudge.pages import render_page
from snapjudge.pages.pictures import bars, intervals
from snapjudge.store.files import write_file

_ROWS_ON_THE_PAGE = 25


@dataclass(frozen=True)
class AuditRequest:
    """What is audited; `out` is a folder for audit.json and audit.html. Without a metric, labels and fields are taken from the data."""

    data: Sequence[Path]
    test: Sequence[Path] = ()
    metric: Metric | None = None
    mapping: Mapping[str, str] | None = None
    out: Path | None = None


def audit_data(request: AuditRequest, progress: Progress) -> Audit:
    """Audit files and data sets together. Rows that cannot be read are a finding, not an end.

    Raises:
        TooFewExamples: nothing, or next to nothing, that is labelled. StorageFailed, OptionInvalid.
    """
    metric = request.metric or guess_metric([*request.data, *request.test], request.mapping)
    examples: list[Example] = []
    parts: list[str] = []
    problems: list[Problem] = []
    for part, paths in (("train", request.data), ("test", request.test)):
        for path in paths:
            own, splits = _read(path, metric, request.mapping, problems)
            examples += own
            parts += [splits.get(example.id, part) for example in own]
    if len(examples) < 10:
        found = f"{len(examples)} labelled examples" + (f", and {len(problems)} rows that cannot be read: {problems[0]}" if problems else "")
        raise TooFewExamples("data", [Problem("(data)", found, "at least ten")], hint="label more, or map columns with --map")
    result = audit(AuditData(examples, parts, metric), progress)
    if problems:
        rows = tuple(Row(id="", where=f"{one.path} line {one.line}", label="", text=one.found, note=f"expected {one.expected}") for one in problems[:200])
        unreadable = Finding(
            code="unreadable", severity="error", message=f"{len(problems)} rows cannot be read", advice="correct or drop them", count=len(problems), rows=rows
        )
        result = result.model_copy(update={"findings": (unreadable, *result.findings)})
    if request.out is not None:
        write_file(request.out / "audit.json", result.model_dump_json(indent=1) + "\n")
        write_file(request.out / "audit.html", render_audit(result, ", ".join(path.name for path in request.data)))
    return result


def _read(path: Path, metric: Metric, mapping: Mapping[str, str] | None, problems: list[Problem]) -> tuple[list[Example], Mapping[str, str]]:
    if path.is_dir():
        dataset = Dataset(path)
        return list(labelled(dataset, metric, disputed="shares").examples), splits_of(dataset, metric)
    return [example for _, example in readable(path, metric, mapping, problems) if example.target is not None], {}


def guess_metric(paths: Sequence[Path], mapping: Mapping[str, str] | None) -> Metric:
    """A metric with the labels and fields that occur in some files, good enough to audit them by.

    Raises:
        OptionInvalid: a data set's folder, which needs its metric; or no labels, or more than 255.
    """
    labels: dict[str, None] = {}
    fields: set[str] = set()
    whole: set[str] | None = None
    for path in paths:
        if path.is_dir():
            raise OptionInvalid(f"{path} needs its metric", hint=f"--metric FILE, or put metric.yaml into {path}", received=str(path))
        for record in records(path, mapping):
            data = record.data or {}
            inputs = data.get("inputs")
            own: set[str] = {name for name in INPUT_NAMES if inputs.get(name)} if isinstance(inputs, Mapping) else set()
            if data.get("label") is not None and own:
                labels.setdefault(str(data["label"]).lower() if isinstance(data["label"], bool) else str(data["label"]))
                fields |= own
                whole = own if whole is None else whole & own
    if not 1 <= len(labels) <= 255 or not whole:
        what = f"{len(labels)} labels" if not labels or len(labels) > 255 else "no field that all rows have"
        raise OptionInvalid(f"labels and fields cannot be taken from the data: {what}", hint="give --metric FILE, or map columns with --map")
    names = sorted(labels, reverse=set(labels) <= {"true", "false"})  # true, the question's yes, first
    names = names if len(names) > 1 else [*names, *(name for name in ("true", "false") if name not in names)][:2]
    pair = {"a", "b"} <= whole and set(names) <= {"a", "b", "tie"}
    kind = "pairwise" if pair else "boolean" if set(names) <= {"true", "false"} else "choice"
    inputs_ = [name for name in INPUT_NAMES if name in whole and (pair or name not in ("a", "b"))]
    made = {
        "name": "guessed",
        "version": 1,
        "type": kind,
        "inputs": inputs_,
        "question": "Which label?",
        "labels": {name: (f"w{i}",) for i, name in enumerate(names)},
    }
    return Metric.model_validate(made)


def render_audit(found: Audit, name: str) -> str:
    """audit.html."""
    errors = sum(finding.severity == "error" for finding in found.findings)
    warnings = sum(finding.severity == "warning" for finding in found.findings)
    verdict = (
        f"{errors} error{'s' * (errors != 1)} and {warnings} warning{'s' * (warnings != 1)}: do not train on this before the errors are dealt with."
        if errors
        else f"No errors, {warnings} warning{'s' * (warnings != 1)}."
    )
    rows = [(f"{one.name}", one.auroc, one.low, one.high) for one in found.shortcuts]
    picture = intervals("AUROC of one property alone, 95 % interval", rows, span=(0.4, 1.0), marks=(SHORTCUT_WARNING, SHORTCUT_ERROR))
    return render_page(
        "audit.html.j2",
        audit=found,
        name=name,
        verdict=verdict,
        when=datetime.now(UTC).strftime("%Y-%m-%d"),
        balance=bars("Labels by part", list(found.parts.items())),
        shortcuts=picture,
        shown=_ROWS_ON_THE_PAGE,
    )
