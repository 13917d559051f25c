"""Backbone, prompt, adapter and readout: from an example to label logits. Knows nothing of files of data or of statistics.

Importing this asks MKL for strict reproducibility on Intel's processors. There its float32 products otherwise share out the sum of a few rows over threads,
so that a row's bits depend on how many rows and threads there are (docs/design/0006); MKL reads the wish at its first product, and it costs nothing that could
be measured. On other processors it would choose slow kernels, and is not needed.
"""

import os
from pathlib import Path


def _intel() -> bool:
    """Whether this is one of Intel's processors, as far as the system tells."""
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return False


if _intel():
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
