"""Shared fixtures: offline hubs, the shared models and data where they lie beside the project."""

import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("SNAPJUDGE_DEVICE", "cpu")  # tests of the kernels name their device
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # kernels run in Triton's interpreter

import pytest

pytest_plugins = ["tests.workshop"]

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def mini():
    from snapjudge.judge import shared_backbone

    return shared_backbone("mini")


@pytest.fixture(autouse=True)
def _no_user_folders(monkeypatch, tmp_path):
    """Tests see no judges or caches of the person who runs them."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SNAPJUDGE_JUDGES", raising=False)


def shared(path: str) -> Path:
    """A file or folder beside the project; the test is skipped, visibly, where it is missing."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"needs ../shared/{path}")
    return found
