"""What a teacher is worth to a judge on another backbone with few labels: adapter to adapter, at several temperatures.

    python -m benchmarks.distilling                    sexism; about ten minutes on one core
    python -m benchmarks.distilling --labels 100

The teacher is the built-in judge on `mini`; the students are adapters on the untrained `mini` (`--student`), which has none of the teacher's tasks: with some
labels alone, with the teacher's probabilities of those rows, with them and rows that the teacher alone labels, and with everybody's labels of all of these
rows. AUROC on the judge's test, which neither has seen.
"""

import time
from typing import Any

from benchmarks.common import DATA, arguments, fit_judge, record, score_judge, table
from benchmarks.contenders import told
from benchmarks.judge_data import JudgeData, as_examples
from benchmarks.quality import judged
from snapjudge.core.example import Example
from snapjudge.core.progress import Silent
from snapjudge.flows.distilling import taught
from snapjudge.judge import Judge
from snapjudge.model.hub import load_backbone
from snapjudge.train.terms import FitConfig

TEMPERATURES = (1.0, 2.0, 4.0)


def main() -> None:
    options = arguments(__doc__ or "", judge="sexism", student="build/mini-seed", labels=300, unlabelled=2000)
    teacher, data, student = Judge.load(options.judge), JudgeData(DATA).parts(options.judge), load_backbone(options.student)
    metric = teacher.metric
    train, held, test = (as_examples(data[part], metric) for part in ("train", "validation", "test"))
    some, more = train[: options.labels], train[options.labels : options.labels + options.unlabelled]
    bare = [example.model_copy(update={"target": None}) for example in more]
    said = taught(options.judge, [*some, *more], metric, Silent()).said
    ways: dict[str, tuple[list[Example], list[tuple[float, ...] | None], FitConfig]] = {f"{len(some)} labels": (some, [], FitConfig(rank=8, alpha=16.0))}
    for heat in TEMPERATURES:
        config = FitConfig(rank=8, alpha=16.0, temperature=heat)
        ways[f"{len(some)} labels, taught at {heat:g}"] = (some, said[: len(some)], config)
        ways[f"{len(some)} labels, taught at {heat:g}, and {len(more)} rows without"] = ([*some, *bare], said, config)
    ways[f"{len(some) + len(more)} labels"] = ([*some, *more], [], FitConfig(rank=8, alpha=16.0))
    found: dict[str, dict[str, Any]] = {f"the teacher, {teacher.name}": told(judged(teacher, test), metric)}
    for name, (rows, lessons, config) in ways.items():
        began = time.perf_counter()
        judge = fit_judge(student, rows, held, "readout", config, metric, teacher=lessons)
        seconds = time.perf_counter() - began
        found[name] = {**told(score_judge(student, judge, test, metric), metric), "seconds": round(seconds, 1)}
        print(name, found[name]["auroc"], flush=True)
    print(table([("way", "AUROC", "seconds"), *((name, str(own["auroc"]), own.get("seconds", "-")) for name, own in found.items())]))
    record(f"distilling_{options.judge}", {"test": len(test), "ways": found}, f"python -m benchmarks.distilling --judge {options.judge}")


if __name__ == "__main__":
    main()
