"""What a run was made with: package versions, the machine's kind, the code's revision. Names no host, user or path."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("snapjudge", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "scikit-learn", "pydantic")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str | int]:
    """The processor's name, cores and memory, the system's kind, and the accelerator's name where one is used."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(memory / 2**30),
        "system": platform.system(),
        "arch": platform.machine(),
        **_accelerator(),
    }


def _accelerator() -> dict[str, str | int]:
    torch = sys.modules.get("torch")  # what has not loaded it has used none
    return {"accelerator": torch.cuda.get_device_name()} if torch is not None and torch.cuda.is_initialized() else {}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def revision() -> str:
    """The git commit of the code, where it runs from a checkout."""
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)  # noqa: S603, S607
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.strip() if found.returncode == 0 else ""


def made_with(digests: Mapping[str, str], seed: int | None = None, **more: str) -> dict[str, str]:
    """What it takes to make figures again, for people: data by digest, seed, code, versions, machine."""
    own = machine()
    return {
        **more,
        "data": "; ".join(f"{Path(name).name} sha256 {digest[:16]}" for name, digest in digests.items()),
        **({} if seed is None else {"seed": str(seed)}),
        "code": revision() or "not from a checkout",
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
        "machine": f"{own['processor']}, {own['cores']} cores, {own['memory_gib']} GiB, {own['system']} {own['arch']}"
        + (f", {own['accelerator']}" if "accelerator" in own else ""),
    }
