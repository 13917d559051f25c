"""All benchmarks, one after another (never at once: they would slow each other), each in its own process.

make bench
"""

import subprocess
import sys

from benchmarks.common import DATA

ALWAYS = ("startup", "demo_figures", "prove_speed", "engine", "accelerator")
WITH_DATA = ("audit", "precision", "train_speed", "quality_toxicity", "train_memory")


def main() -> None:
    names = ALWAYS + (WITH_DATA if DATA.exists() else ())
    if not DATA.exists():
        print(f"skipped, for want of the labelled data beside the project: {', '.join(WITH_DATA)}")
    for name in names:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)


if __name__ == "__main__":
    main()
