"""The state of an interrupted fit, as one safetensors file: tensors beside a JSON record in its metadata.

Knows nothing of what the state means.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from snapjudge.errors import RunConflict
from snapjudge.store.files import write_file


def save_state(path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write atomically: a kill in the middle leaves the state before."""
    write_file(path, save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, {"record": json.dumps(record)}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The saved state, or None where there is none.

    Raises:
        RunConflict: the file is not one of ours.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}, json.loads(file.metadata()["record"])  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise RunConflict(f"{path} cannot be read as training state: {error}", hint="start over with --restart") from error
