"""What all benchmarks share: the labelled data beside the project, the machine's ceiling, and the record of a result."""

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Silent
from snapjudge.curate.read import read_examples
from snapjudge.curate.split import deduplicated, hashed
from snapjudge.flows.record import machine, revision, versions
from snapjudge.flows.scoring import baseline_data, contents_of, raw_scores
from snapjudge.model.adapter import Scope
from snapjudge.model.backbone import Backbone
from snapjudge.model.prompt import render_readout
from snapjudge.model.reading import Question
from snapjudge.prove import baselines
from snapjudge.prove.figures import Figure, Scored, figures, main_figure
from snapjudge.prove.proof import scored
from snapjudge.train.fit import fit
from snapjudge.train.terms import FitConfig, FitData, FitResult, Validation

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
METRICS = ROOT / "recipes" / "judges"
RESULTS = Path(__file__).parent / "results"

TOXICITY = Metric(
    name="toxicity",
    version=1,
    type="boolean",
    inputs=("output",),
    question="Is the text toxic?",
    labels={"toxic": ("yes",), "fine": ("no",)},
)


def number_of(group: str, salt: str, parts: int) -> int:
    """Which of some parts a group belongs to."""
    return int(hashed(group, salt)[:8], 16) % parts


def arguments(description: str, **options: Any) -> argparse.Namespace:
    """Command-line options with these defaults."""
    parser = argparse.ArgumentParser(description=description)
    for name, default in options.items():
        kind = type(default[0]) if isinstance(default, list) else type(default)
        parser.add_argument(f"--{name.replace('_', '-')}", default=default, type=kind, nargs="+" if isinstance(default, list) else None)
    return parser.parse_args()


def toxicity(*names: str) -> list[Example]:
    """Distinct examples of some toxicity sets, train and dev files together or one of them (`davidson`, `toxigen.dev`)."""
    paths = [path for name in names for path in sorted((DATA / "toxicity").glob(f"{name}.*jsonl" if "." not in name else f"{name}.jsonl"))]
    if not paths:
        raise SystemExit(f"needs the labelled data: {DATA}/toxicity is missing")
    return deduplicated(read_examples(paths, TOXICITY))[0]


def balanced(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """`count` examples, half of them of each label, in random order."""
    rng = random.Random(seed)  # noqa: S311 - sampling, no secret
    parts = [[example for example in examples if example.label_index == label] for label in (0, 1)]
    chosen = [example for part in parts for example in rng.sample(part, min(len(part), count // 2))]
    rng.shuffle(chosen)
    return chosen


def fit_judge(
    backbone: Backbone,
    train: Sequence[Example],
    validation: Sequence[Example],
    scope: Scope,
    config: FitConfig,
    metric: Metric = TOXICITY,
    judged_as: Metric | None = None,
    teacher: Sequence[tuple[float, ...] | None] = (),
) -> FitResult:
    """Fit an adapter as `train` does; the epoch is picked by the metric's main figure (or that of `judged_as`) on the validation examples.

    Args:
        teacher: probabilities for each training example, of which those without a label learn from them alone.
    """
    judged_as = judged_as or metric
    readout, name = render_readout(metric, backbone), main_figure(judged_as)
    data = FitData(contents_of(train, metric, backbone), [example.target for example in train], contents_of(validation, metric, backbone), teacher)

    def validate(log_p: Sequence[tuple[float, ...]]) -> Validation:
        found = figures(scored(log_p, Calibration(), judged_as, validation)[0], judged_as, draws=50)
        return Validation(found[name].value, name, found["log_loss"].value, 0.0 if name == "pearson" else 0.5, 0.03)

    with tempfile.TemporaryDirectory() as folder:
        return fit(backbone, [Question(metric, readout)], data, scope, config, validate=validate, folder=Path(folder), progress=Silent())


def score_judge(backbone: Backbone, result: FitResult, test: Sequence[Example], metric: Metric = TOXICITY) -> Scored:
    """The test examples under a fitted adapter, uncalibrated."""
    question = Question(metric, render_readout(metric, backbone), result.adapter)
    log_p = raw_scores(backbone, question, contents_of(test, metric, backbone), Silent(), "test")
    return scored(log_p, Calibration(), metric, test)[0]


def score_baselines(
    backbone: Backbone,
    train: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
    metric: Metric = TOXICITY,
    wanted: Sequence[str] = ("TF-IDF + LR", "embedding + LR"),
) -> dict[str, Scored]:
    """The test examples under the baselines, or some of them, uncalibrated."""
    data, labels = [baseline_data(backbone, part, metric, Silent(), "") for part in (train, validation, test)], len(metric.labels)
    made = {"TF-IDF + LR": baselines.tfidf, "embedding + LR": baselines.embedding}
    found = {name: made[name](data[0], data[1], [data[2]], labels)[0] for name in wanted}
    return {name: scored([tuple(row) for row in log_p.tolist()], Calibration(), metric, test)[0] for name, log_p in found.items()}


def rows_of(scores: Scored) -> list[tuple[float, ...]]:
    """Log-probabilities by row."""
    return [tuple(math.log(max(value, 1e-12)) for value in row) for row in scores.probabilities.tolist()]


def rounded(figure: Figure) -> list[float]:
    """A figure's value and the ends of its interval, as results keep them."""
    return [round(value, 4) for value in (figure.value, figure.low, figure.high)]


def triple(found: Scored, name: str, metric: Metric = TOXICITY) -> list[float]:
    """A figure's value and the ends of its interval."""
    figure = figures(found, metric)[name]
    return [figure.value, figure.low, figure.high]


def ceiling(dtype: torch.dtype = torch.float32, size: int = 2048) -> float:
    """The machine's measured rate for a large matrix product, FLOP/s: the best of ten."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2 * size**3 / min(timed(lambda: a @ b) for _ in range(10))


def timed(work: Callable[[], Any]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


class Lines(Silent):
    """Progress as lines of a log: what is said, and twice a minute how far it is."""

    def __init__(self) -> None:
        self._at, self._shown, self._stage, self._total = 0, time.monotonic(), "", 0

    def start(self, stage: str, total: int) -> None:
        """A stage of `total` steps begins."""
        self._stage, self._total, self._at = stage, total, 0

    def advance(self, steps: int = 1, note: str = "") -> None:
        """`steps` of the current stage are done."""
        self._at += steps
        if time.monotonic() - self._shown > 30:
            self._shown = time.monotonic()
            print(f"{self._stage}: {self._at} of {self._total}  {note}", flush=True)

    def say(self, text: str) -> None:
        """A line of its own."""
        print(text, flush=True)


def record(name: str, result: dict[str, Any], command: str) -> dict[str, Any]:
    """Write a result with the machine, the date and the command that gives it; print it too; all that was written."""
    RESULTS.mkdir(exist_ok=True)
    head = {"command": command, "date": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine(), "threads": torch.get_num_threads()}
    whole = {**head, "versions": versions(), "revision": revision(), **result}
    text = json.dumps(whole, indent=2) + "\n"
    (RESULTS / f"{name}.json").write_text(text)
    print(text)
    return whole


def between(text: str, mark: str, new: str) -> str:
    """The text with what stands between `<!-- mark -->` and `<!-- /mark -->` replaced."""
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    head, _, rest = text.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise SystemExit(f"the page has no {begin} ... {end}")
    return head + begin + new + end + tail


def show(value: Sequence[float] | None) -> str:
    """A figure with its interval, as the pages print it."""
    return "-" if not value else f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"


def head(*columns: str) -> list[str]:
    """The first two lines of a table of Markdown."""
    return ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]


def table(rows: Iterable[Sequence[object]]) -> str:
    """Rows as aligned text."""
    cells = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(cells[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
