"""Writing a backbone as a folder that loads again. Knows the two layouts, ours and the Hugging Face one; nothing of training."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import LAYOUT_FILE, OPEN_FILE, RECORD_FILE
from snapjudge.store.files import write_file

_BESIDE = ("*.json", "*.txt", "*.model", "NOTICE", "LICENSE*")


def plain_weights(backbone: Backbone) -> dict[str, Tensor]:
    """Every weight under the name it has without our adapters' wrappers, tied ones once."""
    return {name.replace(".base.", "."): weight.detach() for name, weight in backbone.model.named_parameters()}


def set_weights(backbone: Backbone, weights: Mapping[str, Tensor]) -> None:
    """Put weights, under the names of `plain_weights`, into a backbone."""
    with torch.no_grad():
        for name, weight in backbone.model.named_parameters():
            weight.copy_(weights[name.replace(".base.", ".")])


def folder_files(folder: Path | None) -> dict[str, bytes]:
    """A backbone's folder as files of a bundle: path in the bundle -> content."""
    return {} if folder is None else {f"backbone/{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}


def save_backbone(backbone: Backbone, like: Path, out: Path, *, dtype: torch.dtype = torch.float16, notes: Mapping[str, str] | None = None) -> None:
    """Write the backbone's present weights beside the configuration and tokenizer of the folder it was loaded from.

    Args:
        like: the folder it was loaded from; its files are copied, but the weights and what is said of them; the mask is the backbone's present one.
        notes: further files, name -> text.
    """
    out.mkdir(parents=True, exist_ok=True)
    for pattern in _BESIDE:
        for path in like.glob(pattern):
            if not path.name.endswith((".safetensors.index.json", RECORD_FILE, OPEN_FILE)):
                shutil.copyfile(path, out / path.name)
    layout = out / LAYOUT_FILE
    if layout.exists():
        write_file(layout, json.dumps({**json.loads(layout.read_bytes()), "content_mask": backbone.content_mask}, indent=2) + "\n")
    tensors = {name: weight.to("cpu", dtype).contiguous() for name, weight in plain_weights(backbone).items()}
    write_file(out / "model.safetensors", save(tensors, {"format": "pt"}))
    for name, text in (notes or {}).items():
        write_file(out / name, text)
