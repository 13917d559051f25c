"""What the demo's judge reaches: trains it as `make demo` does and records its figures; --write puts the table into the README.

python -m benchmarks.demo_figures --write 1
"""

import tempfile
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.common import ROOT, arguments, between, record
from snapjudge.core.progress import Silent
from snapjudge.flows.demo import train_demo
from snapjudge.prove.report import NAMES, show_figure, threshold_text

SHOWN = ("auroc", "auprc", "f1", "precision", "recall", "fpr", "brier", "ece")


def main() -> None:
    options = arguments(__doc__ or "", write=0)
    with tempfile.TemporaryDirectory() as folder:
        result = train_demo(Path(folder), Silent(), lambda: False)
    proof = result.proof
    figures = {one.name: {name: figure.model_dump() for name, figure in one.figures.items()} for one in proof.contenders}
    record("demo", {"seconds": result.seconds, "threshold": threshold_text(proof), "figures": figures}, "python -m benchmarks.demo_figures")
    if options.write:
        write_readme([one for one in proof.contenders if one.name != "majority"], threshold_text(proof))


def write_readme(contenders: list[object], threshold: str) -> None:
    """The table between the README's marks."""
    head = "| figure, 95 % interval | " + " | ".join(getattr(one, "name", "") for one in contenders) + " |\n|---|" + "---|" * len(contenders)
    rows = [f"| {NAMES[name]} | " + " | ".join(show_figure(getattr(one, "figures", {}).get(name)) for one in contenders) + " |" for name in SHOWN]
    text = (ROOT / "README.md").read_text()
    text = between(text, "demo-table", "\n" + "\n".join([head, *rows, "", threshold]) + "\n")
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    (ROOT / "README.md").write_text(between(text, "demo-date", date))


if __name__ == "__main__":
    main()
