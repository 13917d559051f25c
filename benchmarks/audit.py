"""`snapjudge data audit` on every labelled set beside the project: train and dev files together, dev as the test; and on 100,000 rows at once.

Writes results/audit.json and the table of docs/audits.md. Names files and figures, never a text.
"""

import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import DATA, ROOT, arguments, record
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Silent
from snapjudge.curate.agreement import agreement, vote_counts
from snapjudge.curate.findings import Audit
from snapjudge.flows.audit_data import AuditRequest, audit_data

_TABLE = ROOT / "docs" / "audits.md"
_MANY = 100_000


def main() -> None:
    """Audit all sets, then the large one."""
    asked = arguments(__doc__ or "", out="")
    found = {}
    for train in sorted(DATA.glob("*/*.train.jsonl")):
        name = f"{train.parent.name}/{train.name.removesuffix('.train.jsonl')}"
        out = Path(asked.out) / name.replace("/", "_") if asked.out else None
        began = time.perf_counter()
        result = audit_data(AuditRequest([train], [train.with_name(train.name.replace(".train.", ".dev."))], out=out), Silent())
        found[name] = {**_figures(result), "seconds": round(time.perf_counter() - began, 1)}
        print(name, found[name]["findings"], flush=True)
    _write_table(found)
    record("audit", {"sets": found, "large": _large()}, "python -m benchmarks.audit")


def _figures(result: Audit) -> dict[str, Any]:
    strongest = result.shortcuts[0] if result.shortcuts else None
    return {
        "examples": result.examples,
        "findings": {finding.code: [finding.severity, finding.count] for finding in result.findings},
        "strongest": None if strongest is None else [strongest.name, strongest.label, strongest.auroc, strongest.low, strongest.high],
        "words": None if result.words_auroc is None else [result.words_auroc.auroc, result.words_auroc.low, result.words_auroc.high],
        "looks_wrong": result.noise,
    }


def _large() -> dict[str, Any]:
    """100,000 rows of several metrics through one audit, and as many votes through agreement: seconds, and the peak memory of this process."""
    rows: list[dict[str, Any]] = []
    for file in sorted(DATA.glob("*/*.train.jsonl")):
        for line in file.open(encoding="utf-8"):
            row = json.loads(line)
            text = row["inputs"].get("output") or row["inputs"].get("input")
            if isinstance(row["label"], bool) and text and text.strip():
                rows.append({"id": str(len(rows)), "inputs": {"output": text}, "label": row["label"], "meta": row["meta"]})
    order = np.random.default_rng(0).permutation(len(rows))[:_MANY]
    path = Path("/tmp") / "snapjudge-audit-large.jsonl"  # noqa: S108 - a scratch file of its own name
    path.write_text("".join(json.dumps(rows[place]) + "\n" for place in order), encoding="utf-8")
    metric = Metric(name="mixed", version=1, type="boolean", inputs=("output",), question="?", labels={"true": ("yes",), "false": ("no",)})
    began = time.perf_counter()
    audit_data(AuditRequest([path], metric=metric), Silent())
    audited = time.perf_counter()
    votes = np.random.default_rng(0).integers(-1, 3, size=(_MANY, 4))
    votes[vote_counts(votes, 3).sum(1) == 0, 0] = 0
    agreement(votes, 3)
    done = time.perf_counter()
    path.unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"rows": len(order), "audit_seconds": round(audited - began, 1), "agreement_seconds": round(done - audited, 1), "peak_gib": round(peak, 2)}


def _write_table(found: dict[str, dict[str, Any]]) -> None:
    head = "| set | rows | errors and warnings | strongest shortcut | bag of words | looks wrong |\n|---|---|---|---|---|---|\n"
    lines = []
    for name, one in found.items():
        bad = ", ".join(f"{code} {count}".removesuffix(" 0") for code, (severity, count) in one["findings"].items() if severity != "info") or "none"
        strongest = "-" if one["strongest"] is None else "{0} {2:.2f} [{3:.2f}, {4:.2f}]".format(*one["strongest"])
        words = "-" if one["words"] is None else "{:.2f} [{:.2f}, {:.2f}]".format(*one["words"])
        wrong = "-" if one["looks_wrong"] is None else f"{one['looks_wrong']:.1%}"
        lines.append(f"| {name} | {one['examples']:,} | {bad} | {strongest} | {words} | {wrong} |\n")
    text = _TABLE.read_text(encoding="utf-8")
    before, _, rest = text.partition("<!-- table -->\n")
    _, _, after = rest.partition("<!-- /table -->")
    _TABLE.write_text(f"{before}<!-- table -->\n{head}{''.join(lines)}<!-- /table -->{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
