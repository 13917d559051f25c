"""What reading once costs and saves: a relation between two texts judged by an adapter on the readout, one on every token, and all weights.

    python -m benchmarks.scopes                         groundedness; about an hour on two cores
    python -m benchmarks.scopes --judge tool_selection

The same rows, the same backbone, three scopes of `snapjudge train`. Figures on the test rows and on sets that no training may use; seconds to fit; and the time
of one judgement, and of eight judges' on the same content: a readout adapter shares the reading, the others read for themselves.
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.build_judges import build
from benchmarks.common import DATA, arguments, record, timed
from benchmarks.contenders import told
from benchmarks.judge_data import JudgeData, as_examples
from benchmarks.left_out import examples_of
from benchmarks.quality import UNSEEN, judged
from snapjudge.core.manifest import WHOLE
from snapjudge.core.progress import Silent
from snapjudge.flows.scoring import contents_of
from snapjudge.flows.train_terms import Trained
from snapjudge.judge import Judge
from snapjudge.model.prompt import Content
from snapjudge.model.reading import read_contents

SCOPES: tuple[Trained, ...] = ("readout", "all", "backbone")
_TIMED = 256  # contents
_JUDGES = 8


def main() -> None:
    options = arguments(__doc__ or "", judge="groundedness", backbone="mini")
    data = JudgeData(DATA)
    found = {scope: measured(options.judge, data, options.backbone, scope) for scope in SCOPES}
    record(f"scopes_{options.judge}", {"scopes": found}, f"python -m benchmarks.scopes --judge {options.judge}")


def measured(name: str, data: JudgeData, backbone: str, scope: Trained) -> dict[str, Any]:
    """One scope: trained as the built-in judge is, its figures and its costs."""
    with tempfile.TemporaryDirectory() as folder:
        done = build(name, data, Path(folder), backbone, Silent(), scope=scope)
        judge = Judge.load(done.folder)
        fits = json.loads((done.folder / "run.json").read_text())["fits"]
        test = as_examples(data.parts(name)["test"], judge.metric)
        sets = {file: examples_of(data, name, file, judge.metric) for file in UNSEEN.get(name, ())}
        figures = {"test": told(judged(judge, test), judge.metric), **{file: told(judged(judge, rows), judge.metric) for file, rows in sets.items()}}
        contents = contents_of(test[:_TIMED], judge.metric, judge.backbone)
        best = {count: min(timed(reading(judge, contents, count)) for _ in range(3)) for count in (1, _JUDGES)}
    per_content = {f"ms per content, {count} judges": round(1000 * seconds / len(contents), 2) for count, seconds in best.items()}
    print(scope, figures, per_content, flush=True)
    return {
        "figures": figures,
        "epochs": {one: len(fit["history"]) for one, fit in fits.items()},
        "seconds to train and prove": round(done.seconds),
        **per_content,
    }


def reading(judge: Judge, contents: Sequence[Content], count: int) -> Callable[[], object]:
    """So many judges on the same contents; with all weights of their own each reads for itself, as each has a backbone."""
    if judge.bundle.manifest.scope == WHOLE:
        return lambda: [list(read_contents(judge.backbone, [(content, [judge.question]) for content in contents])) for _ in range(count)]
    return lambda: list(read_contents(judge.backbone, [(content, [judge.question] * count) for content in contents]))


if __name__ == "__main__":
    main()
