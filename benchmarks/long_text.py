"""What a page of harmless text around a text does to the verdict on it: found alone, found amid, and raised where nothing was.

    python -m benchmarks.long_text                    every built-in judge that flags something; one to three minutes each
    python -m benchmarks.long_text --only toxicity --judges build/judges

300 rows of each judge's test, alone and in the middle of 4,000 letters that say nothing, as the probe of a proof has them. AUROC, recall and false alarms at
the threshold that ships. A judge of a relation gets the pages around its context.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.common import DATA, RESULTS, between, head, record, show
from benchmarks.contenders import told
from benchmarks.judge_data import JUDGES, JudgeData, as_examples
from benchmarks.quality import PAGE, judged, known_figures
from snapjudge.judge import Judge
from snapjudge.prove.probes import amid_pages, chosen
from snapjudge.store.bundles import built_in

ROWS = 300
FIGURES = ("auroc", "recall", "fpr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(JUDGES))
    parser.add_argument("--judges", type=Path, default=built_in(), help="the folder of the bundles")
    options = parser.parse_args()
    data, known = JudgeData(DATA), known_figures(RESULTS / "long_text.json")
    for name in options.only:
        judge = Judge.load(options.judges / name / "1")
        if judge.metric.positive_labels and known.get(name, {}).get("digest") != judge.bundle.digest:
            known[name] = {"digest": judge.bundle.digest, **measured(judge, data)}
            print(name, json.dumps(known[name]), flush=True)
            record("long_text", {"judges": known}, "python -m benchmarks.long_text")
    PAGE.write_text(between(PAGE.read_text(), "long-text", "\n" + "\n".join(rows(known)) + "\n"))


def measured(judge: Judge, data: JudgeData) -> dict[str, Any]:
    """The figures on some test rows, alone and amid pages."""
    metric = judge.metric
    alone = chosen(as_examples(data.parts(metric.name)["test"], metric), ROWS)
    amid = [row.model_copy(update={"inputs": amid_pages(row.inputs)}) for row in alone]
    found = {where: told(judged(judge, examples), metric) for where, examples in (("alone", alone), ("amid", amid))}
    return {"rows": len(alone), "read by": metric.windows, **{where: {name: own[name] for name in FIGURES if name in own} for where, own in found.items()}}


def rows(known: dict[str, Any]) -> list[str]:
    """The table, as lines of Markdown."""
    lines = head("judge", "windows", *(f"{name}, {where}" for name in FIGURES for where in ("alone", "amid")))
    for name in (name for name in JUDGES if name in known):
        own = known[name]
        cells = [show(own[where].get(figure)) for figure in FIGURES for where in ("alone", "amid")]
        lines.append(f"| `{name}` | {own['read by']} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
