"""The demo: `investment_advice`, trained on the examples that ship with the package."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path

from snapjudge.core.progress import Progress
from snapjudge.flows.train_judge import train_judge
from snapjudge.flows.train_terms import TrainConfig, TrainRequest, TrainResult


def example_folder() -> Path:
    """The shipped metric, its training and test files, and its labelling criteria."""
    return Path(str(resources.files("snapjudge") / "examples" / "investment_advice"))


def train_demo(out: Path, progress: Progress, stop: Callable[[], bool], *, restart: bool = False) -> TrainResult:
    """Train and prove the demo judge; an interrupted demo goes on where it stopped."""
    folder = example_folder()
    request = TrainRequest(folder / "metric.yaml", [folder / "train.jsonl"], out, test=[folder / "test.jsonl"], resume=True, restart=restart)
    return train_judge(request, TrainConfig(scope="readout"), progress, stop)
