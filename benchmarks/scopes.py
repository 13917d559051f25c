"""What reading once costs and saves: the same question answered by an adapter on the readout, by one on every token, and by all weights.

    python -m benchmarks.scopes --judge toxicity --rows 2000 --scopes readout all backbone
    python -m benchmarks.scopes                         groundedness, more rows, and the built-in judge beside it; hours on one core

The same rows, `mini`, the scopes of `snapjudge train` that are named, and beside them the built-in judge, which learned from more rows. Figures on the test
rows and on sets that no training may use; seconds to fit; and the time of one judgement, and of eight judges' on the same content: a readout adapter shares
the reading, the others read for themselves. What is trained stays in build/scopes, and is not trained again. docs/judges.md takes its table from here.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.build_judges import build
from benchmarks.common import DATA, RESULTS, ROOT, Lines, arguments, between, head, record, show, timed
from benchmarks.contenders import mean_of, told
from benchmarks.judge_data import JudgeData, as_examples
from benchmarks.left_out import examples_of
from benchmarks.quality import GOALS, PAGE, UNSEEN, judged, shown_figure
from snapjudge.flows.scoring import contents_of
from snapjudge.flows.train_terms import Trained
from snapjudge.judge import Judge
from snapjudge.model.prompt import Content
from snapjudge.model.reading import read_contents
from snapjudge.store.bundles import MANIFEST, built_in

SCOPES: tuple[Trained, ...] = ("readout", "all", "backbone")
BUILT_IN = "built-in"
_TIMED = 256  # contents
_JUDGES = 8
COUNTED = ("1 judges", f"{_JUDGES} judges")


def main() -> None:
    options = arguments(__doc__ or "", judge="groundedness", rows=3000, scopes=[*SCOPES, BUILT_IN])
    data, found = JudgeData(DATA), dict[str, Any]()
    for scope in options.scopes:
        folder = built_in() / options.judge / "1" if scope == BUILT_IN else trained(options.judge, data, scope, options.rows)
        found[scope] = measured(folder, data)
        command = f"python -m benchmarks.scopes --judge {options.judge} --rows {options.rows} --scopes {' '.join(options.scopes)}"
        record(f"scopes_{options.judge}", {"scopes": found}, command)
    PAGE.write_text(between(PAGE.read_text(), "scopes", "\n" + "\n".join(rows()) + "\n"))


def rows() -> list[str]:
    """The table of all judges that were measured so, as lines of Markdown."""
    lines = head("judge", "scope", "trained on", "figure", "on its test", "sets not trained on, mean", "ms a content, one judge", f"ms a content, {COUNTED[1]}")
    for path in sorted(RESULTS.glob("scopes_*.json")):
        name = path.stem.removeprefix("scopes_")
        figure = next((goal.figure for goal in GOALS if (goal.judge, goal.where, goal.below) == (name, "test", False)), shown_figure(name))
        for scope, own in json.loads(path.read_text())["scopes"].items():
            test, *others = [found.get(figure) for found in own["figures"].values()]
            unseen = mean_of([value for value in others if value]) if any(others) else None
            costs = " | ".join(f"{own[f'ms per content, {count}']:.0f}" for count in COUNTED)
            lines.append(f"| `{name}` | {scope} | {own['trained on']} | {figure} | {show(test)} | {show(unseen)} | {costs} |")
    return lines


def trained(name: str, data: JudgeData, scope: Trained, rows: int) -> Path:
    """The bundle of one scope, trained on some rows as the built-in judge is on all."""
    out = ROOT / "build" / "scopes" / f"{scope}-{rows}"
    folder = out / name / "1"
    return folder if (folder / MANIFEST).exists() else build(name, data, out, "mini", Lines(), scope=scope, rows=rows).folder


def measured(folder: Path, data: JudgeData) -> dict[str, Any]:
    """A bundle's figures and its costs."""
    judge = Judge.load(folder)
    name, run = judge.metric.name, json.loads((folder / "run.json").read_text())
    test = as_examples(data.parts(name)["test"], judge.metric)
    sets = {file: examples_of(data, name, file, judge.metric) for file in UNSEEN.get(name, ())}
    figures = {"test": told(judged(judge, test), judge.metric), **{file: told(judged(judge, rows), judge.metric) for file, rows in sets.items()}}
    contents = contents_of(test[:_TIMED], judge.metric, judge.backbone)
    best = {count: min(timed(reading(judge, contents, count)) for _ in range(3)) for count in (1, _JUDGES)}
    per_content = {f"ms per content, {count} judges": round(1000 * seconds / len(contents), 2) for count, seconds in best.items()}
    return {
        "figures": figures,
        "epochs": {one: len(fit["history"]) for one, fit in run["fits"].items()},
        "seconds to train and prove": round(run["seconds"]),
        "trained on": f"{sum(run['train_labels'].values())} rows",
        **per_content,
    }


def reading(judge: Judge, contents: Sequence[Content], count: int) -> Callable[[], object]:
    """So many judges on the same contents; with an adapter on every token, or all weights of their own, each reads for itself."""
    if judge.bundle.manifest.scope != "readout":
        return lambda: [list(read_contents(judge.backbone, [(content, [judge.question]) for content in contents])) for _ in range(count)]
    return lambda: list(read_contents(judge.backbone, [(content, [judge.question] * count) for content in contents]))


if __name__ == "__main__":
    main()
