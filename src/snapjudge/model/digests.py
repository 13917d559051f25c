"""The identity of a backbone: one digest over its configuration, tokenizer and weights.

Large files are hashed once; their digests are remembered beside size and modification time. Knows nothing of loading.
"""

import hashlib
import json
import os
from pathlib import Path

_PATTERNS = (
    "config.json",
    "snapjudge.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.safetensors",
)
_REMEMBER_FROM = 64 << 20  # bytes


def folder_digest(folder: Path) -> str:
    """sha256 over the names and contents of a model folder's files that decide its outputs."""
    paths = sorted({path for pattern in _PATTERNS for path in folder.glob(pattern) if path.is_file()})
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.name}\0{_file_digest(path)}\n".encode())
    return total.hexdigest()


def _file_digest(path: Path) -> str:
    stat = path.stat()
    if stat.st_size < _REMEMBER_FROM:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    store = _cache_folder() / "digests.json"
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    try:
        known: dict[str, str] = json.loads(store.read_bytes())
    except (OSError, ValueError):
        known = {}
    if key not in known:
        with path.open("rb") as file:
            known[key] = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            store.parent.mkdir(parents=True, exist_ok=True)
            store.write_text(json.dumps(known))
        except OSError:  # a read-only home only costs time
            return known[key]
    return known[key]


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snapjudge"
