"""The worker threads of matrix products, which a thread keeps after its first one: given back, so that another thread's can spin.

GNU's OpenMP wakes workers in microseconds as long as a process has no more of them than cores; once a second thread has computed anything there are more,
each product then waits for the kernel to wake its workers, and a step of small products takes a third longer (docs/log.md, 2026-11-21).
Knows nothing of what is computed.
"""

import ctypes
from functools import cache
from pathlib import Path

import torch

_SOFT = 1  # omp_pause_soft of OpenMP 5.0: workers end, settings stay


def use_threads(count: int) -> None:
    """Compute with so many threads from now on; 0 leaves it to torch."""
    if count:
        torch.set_num_threads(count)


def give_back_workers() -> None:
    """End the calling thread's idle workers; its next product starts new ones. Does nothing where torch has no OpenMP of its own."""
    library = _openmp()
    if library is not None:
        library.omp_pause_resource_all(_SOFT)


@cache
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP library that torch brings along and has loaded."""
    if "OpenMP" not in torch.__config__.parallel_info():
        return None
    for path in sorted((Path(torch.__file__).parent / "lib").glob("lib*omp*.so*")):
        library = ctypes.CDLL(str(path))
        if hasattr(library, "omp_pause_resource_all"):
            return library
    return None
