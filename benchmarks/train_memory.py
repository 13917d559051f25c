"""That 50,000 real examples train in under 4 GiB of memory: the whole `snapjudge train`, baselines and report included.

Content states past --cache-gb go to a memory-mapped file. Trains one epoch on rows of the toxicity and sexism sets in a process of its own and
reads that process's peak resident set, file pages included.

    python -m benchmarks.train_memory --rows 50000 --cache-gb 1.0
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import DATA, TOXICITY, arguments, record, toxicity
from snapjudge.core.metric_file import dump_metric
from snapjudge.curate.read import read_examples
from snapjudge.curate.split import deduplicated

SHARES = 0.72  # of the data beside a test file goes to training


def main() -> None:
    options = arguments(__doc__ or "", rows=50_000, cache_gb=1.0)
    everything = deduplicated(toxicity("*") + read_examples(sorted((DATA / "sexism").glob("*.jsonl")), TOXICITY))[0]
    rows, test = everything[: round(options.rows / SHARES)], everything[-500:]
    if len(rows) + len(test) > len(everything):
        print(f"only {len(everything)} rows: {round((len(everything) - 500) * SHARES)} will be trained on")
        rows = everything[:-500]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "m.yaml").write_text(dump_metric(TOXICITY))
        for file, some in (("d.jsonl", rows), ("t.jsonl", test)):
            lines = (json.dumps({"id": e.id, "inputs": e.inputs, "label": ["toxic", "fine"][e.label_index]}) for e in some)
            (folder / file).write_text("\n".join(lines))
        command = [sys.executable, "-m", "snapjudge.cli", "train", "m.yaml", "--data", "d.jsonl", "--test", "t.jsonl", "--scope", "readout", "--epochs", "1"]
        began = time.monotonic()
        done = subprocess.run(
            [*command, "--cache-gb", str(options.cache_gb), "--allow-leak", "--json"], cwd=folder, check=True, stdout=subprocess.PIPE, text=True
        )
        seconds = time.monotonic() - began
        told = json.loads(done.stdout)
        run = json.loads((folder / told["folder"] / "run.json").read_text())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    found = {"splits": run["splits"], "cache_gb": options.cache_gb, "peak_gib": peak, "seconds": seconds}
    record("train_memory", found, f"python -m benchmarks.train_memory --rows {options.rows} --cache-gb {options.cache_gb}")
    if peak >= 4:
        raise SystemExit(f"peak {peak:.2f} GiB is not under 4")


if __name__ == "__main__":
    main()
