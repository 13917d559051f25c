"""What all commands share: errors shown with their next step, progress on standard error, results as text or JSON."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column

from snapjudge.core.precision import Precision
from snapjudge.errors import ExtraMissing, Interrupted, SnapjudgeError

errors = Console(stderr=True, highlight=False)
output = Console(highlight=False, soft_wrap=True)
EXIT_GATE, EXIT_ERROR, EXIT_INTERRUPTED = 1, 2, 130
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="of the layers; int8 and bfloat16 are faster on large backbones, and move scores a little")
]
MappingOption = Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN, such as output=text; may be repeated")]
MetricFile = Annotated[Path | None, typer.Option("--metric", help="the metric file (YAML); metric.yaml in the data set's folder unless said")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]

_EXTRAS = {
    "serve": ("fastapi", "starlette", "uvicorn", "httptools", "uvloop", "websockets", "prometheus_client", "limits", "httpx"),
    "local": (
        *("torch", "transformers", "scipy", "sklearn", "jinja2", "markupsafe", "pyarrow", "datasketch", "cleanlab", "py3langid", "openai", "stamina", "faker"),
        *("optuna", "safetensors", "tokenizers"),
    ),
}


@contextmanager
def shown_errors(*, as_json: bool = False) -> Iterator[None]:
    """Show a SnapjudgeError as message and next step, and leave with its exit status."""
    try:
        yield
    except SnapjudgeError as error:
        fail(error, as_json=as_json)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        extra = next((name for name, modules in _EXTRAS.items() if module in modules), None)
        if extra is None:
            raise
        missing = ExtraMissing(f"this command needs the {extra} extra, and {error.name} is not installed", hint=f"pip install 'snapjudge[{extra}]'")
        fail(missing, as_json=as_json)


def fail(error: SnapjudgeError, *, as_json: bool) -> NoReturn:
    """Print an error and leave."""
    if as_json:
        sys.stdout.write(json.dumps({"error": error.as_dict()}, ensure_ascii=False, default=str) + "\n")
    else:
        errors.print("[red]error[/red]", end=" ")
        errors.print(error.message, markup=False)
        if error.hint:
            errors.print("[dim]next:[/dim]", end=" ")
            errors.print(error.hint, markup=False)
    raise typer.Exit(EXIT_INTERRUPTED if isinstance(error, Interrupted) else EXIT_ERROR)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


class Bars:
    """Progress bars with the time left, on standard error; one bar a stage."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(min_width=17, no_wrap=True)),
            BarColumn(14),
            MofNCompleteColumn(table_column=Column(min_width=11, no_wrap=True)),
            TimeElapsedColumn(table_column=Column(min_width=7, no_wrap=True)),
            TimeRemainingColumn(table_column=Column(min_width=7, no_wrap=True)),
            TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=errors,
            expand=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start(self, stage: str, total: int) -> None:
        """A new bar; the one before stays as it is."""
        if self._task is not None:
            self._progress.update(self._task, total=self._progress.tasks[-1].completed)  # early stopping leaves no unfinished bar
            self._progress.stop_task(self._task)
        self._task = self._progress.add_task(stage, total=total or None, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Move the current bar."""
        if self._task is not None:
            self._progress.update(self._task, advance=steps)
            if note:
                self._progress.update(self._task, note=note)

    def say(self, text: str) -> None:
        """A line above the bars."""
        self._progress.console.print(f"[yellow]note[/yellow] {escape(text)}")


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks for a stop at the next safe place; a second one stops at once."""
    asked = False

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        errors.print("[yellow]stopping[/yellow] at the next safe place; Ctrl-C again stops at once")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
