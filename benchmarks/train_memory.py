"""That 50,000 real examples train in under 4 GiB of memory: content states past --cache-gb go to a memory-mapped file.

Trains one epoch on rows of the toxicity and sexism sets with a one-GiB cache, and reads the process's peak resident set, file pages included.

    python -m benchmarks.train_memory --rows 50000 --cache-gb 1.0
"""

import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import DATA, TOXICITY, arguments, record, toxicity
from snapjudge.core.progress import Silent
from snapjudge.curate.read import read_examples
from snapjudge.curate.split import deduplicated
from snapjudge.flows.scoring import contents_of
from snapjudge.model.hub import load_backbone
from snapjudge.model.prompt import render_readout
from snapjudge.train.fit import fit
from snapjudge.train.terms import FitConfig, FitData, Validation


class Watch(Silent):
    """Prints stages, and keeps the last note of the encoder: bytes in memory and on disk."""

    def __init__(self) -> None:
        self.note = ""
        self.stage = ""

    def start(self, stage: str, total: int) -> None:
        """Print it."""
        self.stage = stage
        print(stage, total, flush=True)

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Keep the encoder's last note."""
        del steps
        if self.stage == "encode":
            self.note = note


def main() -> None:
    options = arguments(__doc__ or "", rows=50_000, cache_gb=1.0)
    sets = toxicity("*") + read_examples(sorted((DATA / "sexism").glob("*.jsonl")), TOXICITY)
    examples = deduplicated(sets)[0]
    train, validation = examples[: options.rows], examples[options.rows : options.rows + 200]
    if len(train) < options.rows:
        raise SystemExit(f"only {len(train)} rows")
    backbone, watch = load_backbone(), Watch()
    readout = render_readout(TOXICITY, backbone)
    data = FitData(contents_of(train, TOXICITY, backbone), [example.target or () for example in train], contents_of(validation, TOXICITY, backbone))

    def validate(log_p: Sequence[tuple[float, ...]]) -> Validation:
        return Validation(0.9, "auroc", float(-log_p[0][0]), 0.5, 0.01)

    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        config = FitConfig(epochs=1, cache_gb=options.cache_gb, balanced=False)
        result = fit(backbone, TOXICITY, readout, data, "readout", config, validate=validate, folder=Path(folder), progress=watch)
        seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    tokens = sum(content.tokens for content in data.contents)
    found = {"rows": len(train), "tokens": tokens, "states": watch.note, "peak_gib": peak, "seconds": seconds, "encode_seconds": result.encode_seconds}
    record("train_memory", found, f"python -m benchmarks.train_memory --rows {options.rows} --cache-gb {options.cache_gb}")
    if peak >= 4:
        raise SystemExit(f"peak {peak:.2f} GiB is not under 4")


if __name__ == "__main__":
    main()
