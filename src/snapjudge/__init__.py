"""snapjudge: snap judgements you can trust. `Judge.load("name").score(output="...")` is the front door.

Importing this package loads no torch; the names below are loaded when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snapjudge.core.example import Example as Example
    from snapjudge.core.judgement import Abstention as Abstention
    from snapjudge.core.judgement import Judgement as Judgement
    from snapjudge.core.metric import Metric as Metric
    from snapjudge.core.question import OpenQuestion as OpenQuestion
    from snapjudge.errors import SnapjudgeError as SnapjudgeError
    from snapjudge.generalist import Generalist as Generalist
    from snapjudge.judge import Judge as Judge
    from snapjudge.judge import Panel as Panel

__version__ = "0.1.0"

_HOMES = {
    "Judge": "snapjudge.judge",
    "Panel": "snapjudge.judge",
    "Judgement": "snapjudge.core.judgement",
    "Abstention": "snapjudge.core.judgement",
    "Metric": "snapjudge.core.metric",
    "Example": "snapjudge.core.example",
    "OpenQuestion": "snapjudge.core.question",
    "Generalist": "snapjudge.generalist",
    "SnapjudgeError": "snapjudge.errors",
}
__all__ = ["Abstention", "Example", "Generalist", "Judge", "Judgement", "Metric", "OpenQuestion", "Panel", "SnapjudgeError", "__version__"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'snapjudge' has no attribute {name!r}")
    try:
        return getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name in ("torch", "safetensors", "tokenizers"):
            from snapjudge.errors import ExtraMissing  # noqa: PLC0415 - a bare import stays light

            raise ExtraMissing(f"{name} needs the local models, and {error.name} is not installed", hint="pip install 'snapjudge[local]'") from error
        raise


def __dir__() -> list[str]:
    return sorted(__all__)
