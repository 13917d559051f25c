"""Build the judges that come with the package: adapters on `mini`, calibrated and proved on rows neither it nor they have seen.

    python -m benchmarks.build_judges --only toxicity sexism --out build/judges

Each bundle keeps its figures and no text of the data. With --backbone and --without, the same is done on a backbone that left data sets out.
"""

import argparse
import os
import random
import tempfile
from pathlib import Path

from benchmarks.common import DATA, METRICS
from benchmarks.judge_data import JUDGES, NOISE, JudgeData, write_parts
from snapjudge.core.progress import Progress, Silent
from snapjudge.flows.train_judge import train_judge
from snapjudge.flows.train_terms import TrainConfig, Trained, TrainRequest, TrainResult
from snapjudge.store.bundles import MANIFEST, built_in
from snapjudge.train.terms import FitConfig

RANK = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(JUDGES))
    parser.add_argument("--out", type=Path, default=built_in())
    parser.add_argument("--backbone", default="mini")
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--keep-adapters", action="store_true", help="only calibrate and prove again the adapters that the package has")
    options = parser.parse_args()
    data, backbone = JudgeData(DATA, without=options.without), str(Path(options.backbone).resolve()) if Path(options.backbone).is_dir() else options.backbone
    for name in options.only:
        if (options.out / name / "1" / MANIFEST).exists():
            print(f"{name} is there", flush=True)
            continue
        result = build(name, data, options.out.resolve(), backbone, adapter=name if options.keep_adapters else "")
        shown = ", ".join(f"{key} {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]" for key, figure in list(result.proof.judge_figures.items())[:6])
        print(f"{result.judge}: {shown} ({result.seconds:.0f} s)", flush=True)


def build(
    name: str, data: JudgeData, out: Path, backbone: str, progress: Progress | None = None, scope: Trained | None = None, rows: int = 0, adapter: str = ""
) -> TrainResult:
    """Train, calibrate and prove one built-in judge; to compare, with another scope than its own, on some of its rows; or with an adapter that is there."""
    judge = JUDGES[name]
    config = TrainConfig(backbone=backbone, texts=False, probes=100, adapter=adapter)
    if not adapter:
        fit = FitConfig(rank=RANK, alpha=2.0 * RANK, epochs=judge.epochs, patience=2)
        config = config.model_copy(update={"scope": scope or judge.scope, "noise": NOISE, "fit": fit})
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # so that the record of the run names files, not folders of this machine
        try:
            parts = data.parts(name)
            if rows:
                parts["train"] = random.Random(0).sample(parts["train"], min(rows, len(parts["train"])))  # noqa: S311 - reproducible data
            paths = write_parts(parts, Path("data"))
            validation, calibration, test = ([paths[part]] for part in ("validation", "calibration", "test"))
            request = TrainRequest(METRICS / f"{name}.yaml", [paths["train"]], out, test, validation=validation, calibration=calibration, resume=True)
            return train_judge(request, config, progress or Silent())
        finally:
            os.chdir(before)


if __name__ == "__main__":
    main()
