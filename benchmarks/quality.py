"""What the built-in judges reach, and where they miss: the whole table, from the bundles that ship.

    python -m benchmarks.quality                            every judge (resumes; a judge whose bundle has changed is measured again)
    python -m benchmarks.quality --only toxicity --again    one of them, whether or not its bundle has changed

Each judge is measured on the half of the `.dev` rows that neither the backbone, nor the adapter, nor the calibration has seen; on whole data sets that no
training may use; on harmless look-alikes written for this. Beside it stand TF-IDF and frozen-embedding logistic regression as its proof has them, and an
adapter on the untuned `mini`, trained on the same rows with the same noise and scope and calibrated as it is. What is left out of all training is measured
by `benchmarks.left_out`, open questions by `benchmarks.open_questions`; their rows are taken from there. The pages docs/judges.md and README.md take their
tables from here.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.common import DATA, METRICS, RESULTS, ROOT, between, head, record, rounded, rows_of, score_baselines, show
from benchmarks.contenders import SHOWN, adapted, mean_of, noisy, told
from benchmarks.judge_data import JUDGES, PARTS, JudgeData, as_examples
from benchmarks.left_out import TASKS, examples_of
from snapjudge.core.example import Example, length_of
from snapjudge.core.judgement import Judgement
from snapjudge.core.progress import Silent
from snapjudge.core.rules import ThresholdRule
from snapjudge.curate.ranking import auroc
from snapjudge.curate.split import deduplicated, without_near
from snapjudge.flows.calibrating import CalibrationTerms
from snapjudge.flows.elsewhere import FILE, Elsewhere, ElsewhereFile, Measured
from snapjudge.flows.metric_files import read_metric
from snapjudge.flows.record import machine, revision
from snapjudge.flows.scoring import contents_of, raw_scores
from snapjudge.judge import Judge
from snapjudge.model.adapter import Scope
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import load_backbone
from snapjudge.prove.figures import Scored, wilson
from snapjudge.prove.probes import STEADY
from snapjudge.prove.proof import Proof, scored
from snapjudge.prove.report import NAMES
from snapjudge.store.bundles import built_in
from snapjudge.train.terms import FitConfig, LogP

UNSEEN = {
    "unsafe_prompt": ("safety_prompt/refusal_direction_harmless",),
    "prompt_injection": ("prompt_injection/promptshield", "prompt_injection/refusal_direction_benign"),
    "groundedness": ("groundedness/covidfact", "groundedness/fever_rte", "groundedness/sick"),
    "pii_name": ("pii/conll03",),
}
WORDS, EMBEDDED, UNTUNED = "TF-IDF + LR", "embedding of mini + LR", "untuned mini"
BASELINES = {"TF-IDF + LR": WORDS, "embedding + LR": EMBEDDED}  # as proofs call them -> as the tables do
OTHERS = (WORDS, EMBEDDED, UNTUNED)
FOLDS = (WORDS, EMBEDDED, "embedding of untuned mini + LR", UNTUNED)  # of left-out sets
PAGE, README = ROOT / "docs" / "judges.md", ROOT / "README.md"
IN_SHORT = (*TASKS, "tone")  # the kinds are told in docs/judges.md


@dataclass(frozen=True)
class Goal:
    """One line of the table: a figure, where it is measured, and what it is to be."""

    judge: str
    figure: str
    goal: float
    where: str = "test"  # test, left out, look-alikes, or the name of a set
    below: bool = False
    over_tfidf: float = 0.0


GOALS = (
    Goal("toxicity", "auroc", 0.90, "left out", over_tfidf=0.05),
    Goal("unsafe_prompt", "auroc", 0.93, "left out"),
    Goal("unsafe_prompt", "fpr", 0.10, "look-alikes", below=True),
    Goal("prompt_injection", "auroc", 0.95, "left out"),
    Goal("prompt_injection", "recall_at_1_fpr", 0.60, "left out"),
    Goal("groundedness", "balanced_accuracy", 0.72, "left out"),
    Goal("tool_selection", "macro_f1", 0.70, "left out"),
    *(Goal(name, "f1", 0.90) for name in JUDGES if name.startswith("pii_")),
    Goal("tone", "macro_f1", 0.55),
    Goal("sexism", "macro_f1", 0.82),
    Goal("off_topic", "auroc", 0.92),
    Goal("open questions", "auroc", 0.70, "left out"),
    *(Goal(name, "ece", 0.03, below=True) for name in JUDGES),
)

_FEWEST = 20  # rows of a set that figures are told of
_SAME = 0.002  # how far two processors may lie apart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(JUDGES))
    parser.add_argument("--start", default="build/mini-seed", help="the untrained mini, as scripts/build_mini.py writes it")
    parser.add_argument("--only-proved", action="store_true", help="beside the baselines only; a run without this trains the untuned adapters later")
    parser.add_argument("--keep-others", action="store_true", help="a judge proved again on the same rows stands beside what was trained on them before")
    parser.add_argument("--again", action="store_true", help="measure judges again whose bundles have not changed, beside what was trained before")
    options = parser.parse_args()
    data = JudgeData(DATA)
    path = RESULTS / "quality.json"
    for name in options.only:
        judge, before = Judge.load(name), known_figures(path).get(name, {})
        same = before.get("digest") == judge.bundle.digest
        own = before if same and not options.again else {"digest": judge.bundle.digest, **measured(name, judge, data)}
        if UNTUNED in before.get("test", {}) and (same or options.keep_others):
            own = {**own, "test": {**own["test"], UNTUNED: before["test"][UNTUNED]}, "untuned": before["untuned"]}
        if UNTUNED not in own["test"] and not options.only_proved:
            own = {**own, "test": {**own["test"], UNTUNED: untuned_adapter(judge, parts_of(judge, data), load_backbone(options.start))}, "untuned": made()}
        if own != before:
            known = {**known_figures(path), name: own}  # read again: another process may measure other judges
            print(name, json.dumps(own["test"]["judge"]), flush=True)
            record("quality", {"judges": known, "goals": reached(known)}, "python -m benchmarks.quality")
    known = {name: {**own, **of_proof(name, own["test"]), **lookalikes(Judge.load(name)), **of_length(name, data)} for name, own in known_figures(path).items()}
    record("quality", {"judges": known, "goals": reached(known)}, "python -m benchmarks.quality")
    write_page(known, reached(known))


def known_figures(path: Path) -> dict[str, Any]:
    """What has been measured so far, by judge."""
    return dict(json.loads(path.read_text())["judges"]) if path.exists() else {}


def made() -> dict[str, str]:
    """When and on what something was measured, and from which code: judges are measured one by one."""
    return {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "processor": str(machine()["processor"]), "revision": revision()}


def parts_of(judge: Judge, data: JudgeData) -> dict[str, list[Example]]:
    """A judge's rows by part; those to train on as `snapjudge train` takes them, without repeated ones and those near a test row."""
    parts = {part: as_examples(rows, judge.metric) for part, rows in data.parts(judge.metric.name).items() if part in PARTS}
    return {**parts, "train": without_near(deduplicated(parts["train"])[0], parts["test"])[0]}


def measured(name: str, judge: Judge, data: JudgeData) -> dict[str, Any]:
    """All figures of one judge, and of the baselines of its proof."""
    parts = parts_of(judge, data)
    test, log_p = parts["test"], read(judge, parts["test"])
    beside = proved_beside(Proof.model_validate_json((judge.bundle.folder / "proof.json").read_bytes()))
    asked = {goal.figure for goal in GOALS if (goal.judge, goal.where) == (name, "test")}
    if any(figure not in beside[WORDS] for figure in asked):
        beside = baselines_beside(judge, parts)
    return {
        "rows": len(test),
        "groups": len({row.group for row in test}),
        "measured": made(),
        "test": {"judge": told(under(judge, log_p, test), judge.metric), **beside},
        "by set": by_set(judge, log_p, test),
        "unseen": {file: told(judged(judge, examples_of(data, name, file, judge.metric)), judge.metric) for file in UNSEEN.get(name, ())},
    }


@cache
def harmless_texts() -> dict[str, list[str]]:
    """Judge -> look-alikes written for it; under `anybody` statements about who people are."""
    return dict(yaml.safe_load((METRICS / "lookalikes_unseen.yaml").read_text()))


def lookalikes(judge: Judge) -> dict[str, Any]:
    """How many harmless texts with the words of harmful ones a judge flags, where some were written for it; and how many that tell who somebody is."""
    metric, written = judge.metric, harmless_texts()
    place = "input" if "input" in metric.inputs and "input" not in metric.optional else metric.ordered_inputs[-1]
    named = {"look-alikes": written.get(metric.name), "who people are": written["anybody"]}
    if not metric.positive_labels or not set(metric.needed_inputs) <= {place}:
        named.pop("who people are")
    found = {}
    for name, texts in named.items():
        if texts:
            flags = [isinstance(one, Judgement) and one.flagged for one in judge.score_many({place: text} for text in texts)]
            found[name] = {"rows": len(flags), "fpr": [round(value, 4) for value in (sum(flags) / len(flags), *wilson(sum(flags), len(flags)))]}
    return found


def of_length(name: str, data: JudgeData) -> dict[str, Any]:
    """How well the number of letters alone tells what a judge flags on its test: 0.5 where it says nothing, whichever way round."""
    metric = read_metric(METRICS / f"{name}.yaml")
    test = as_examples(data.parts(name)["test"], metric)
    letters = np.array([float(length_of(example.inputs)) for example in test])
    area = auroc(letters, np.array([metric.label_names[example.label_index] in metric.positive_labels for example in test]))
    ends = None if area is None else sorted((area.value, 1 - area.value))
    return {"length alone": None if ends is None else round(ends[1], 4)}


def of_proof(name: str, test: Mapping[str, Any]) -> dict[str, Any]:
    """What the page tells of a judge's proof: its figures with the intervals they have there, verdicts that probes moved, pairs that look alike and have
    different labels, promises.
    """
    proof = Proof.model_validate_json((built_in() / name / "1" / "proof.json").read_bytes())
    stated = {figure: rounded(proof.judge_figures[figure]) for figure in test["judge"] if figure in proof.judge_figures}
    if apart := [figure for figure, found in stated.items() if abs(found[0] - test["judge"][figure][0]) > _SAME]:
        raise SystemExit(f"{name}: the proof and the rows at hand give different figures of {', '.join(apart)}")
    rates = [(probe, [round(value, 4) for value in (probe.rate.value, probe.rate.low, probe.rate.high)]) for probe in proof.probes if probe.rate]
    return {
        "test": {**test, "judge": {**test["judge"], **stated}},
        "probes": {probe.name: rate for probe, rate in rates if probe.expect == "stays"},
        "contrast": next(({"pairs": probe.rows, "both right": rate} for probe, rate in rates if probe.expect == "moves"), None),
        "promises": [promise.model_dump(mode="json") for promise in proof.promises],
    }


def proved_beside(proof: Proof) -> dict[str, dict[str, list[float]]]:
    """The baselines of the judge's own proof: on the same rows, calibrated as it is."""
    stated = {one.name: one.figures for one in proof.contenders}
    return {shown: {figure: rounded(stated[name][figure]) for figure in SHOWN if figure in stated[name]} for name, shown in BASELINES.items()}


def baselines_beside(judge: Judge, parts: Mapping[str, Sequence[Example]]) -> dict[str, dict[str, list[float]]]:
    """The same baselines fitted again, for a figure that a proof does not tell of them."""
    rows = [*parts["calibration"], *parts["test"]]
    found = score_baselines(judge.backbone, parts["train"], parts["validation"], rows, judge.metric)
    raw, at = {name: rows_of(scores) for name, scores in found.items()}, len(parts["calibration"])
    return {shown: calibrated(judge, parts, raw[name][:at], raw[name][at:]) for name, shown in BASELINES.items()}


def untuned_adapter(judge: Judge, parts: Mapping[str, Sequence[Example]], untuned: Backbone) -> dict[str, list[float]]:
    """An adapter of the judge's scope on the untuned `mini`."""
    metric, config = judge.metric, FitConfig(rank=8, alpha=16.0, epochs=3, patience=2)
    sets = {part: parts[part] for part in ("calibration", "test")}
    scope: Scope = "all" if judge.bundle.manifest.scope == "all" else "readout"
    raw = adapted(untuned, noisy(parts["train"], metric, untuned, config), parts["validation"], sets, metric, config, scope)
    return calibrated(judge, parts, raw["calibration"], raw["test"])


def calibrated(judge: Judge, parts: Mapping[str, Sequence[Example]], calibration: LogP, test: LogP) -> dict[str, list[float]]:
    """Figures on the test rows, calibrated and flagged by the judge's own rule."""
    rule = ThresholdRule.parse(judge.metric.threshold) if judge.metric.threshold else None
    terms = CalibrationTerms(judge.metric, parts["calibration"], rule, None, (), "")
    return told(scored(test, terms.calibrate(calibration), judge.metric, parts["test"])[0], judge.metric)


def read(judge: Judge, examples: Sequence[Example]) -> LogP:
    """Raw label log-probabilities under a bundle's own adapter."""
    return raw_scores(judge.backbone, judge.question, contents_of(examples, judge.metric, judge.backbone), Silent(), "")


def under(judge: Judge, log_p: LogP, examples: Sequence[Example]) -> Scored:
    """The same under the bundle's calibration and threshold."""
    return scored(log_p, judge.bundle.calibration, judge.metric, examples)[0]


def judged(judge: Judge, examples: Sequence[Example]) -> Scored:
    """Examples under a bundle's own adapter, calibration and threshold."""
    return under(judge, read(judge, examples), examples)


def by_set(judge: Judge, log_p: LogP, examples: Sequence[Example]) -> dict[str, dict[str, list[float]]]:
    """The figures on each source of the test rows."""
    sources = sorted({example.provenance.source for example in examples})
    sets = {source: [place for place, example in enumerate(examples) if example.provenance.source == source] for source in sources}
    return {
        source: {"rows": [len(own)], **told(under(judge, [log_p[place] for place in own], [examples[place] for place in own]), judge.metric, 200)}
        for source, own in sets.items()
        if len(own) >= _FEWEST
    }


def left_out() -> list[dict[str, Any]]:
    """The rows of every fold that was measured."""
    return [row for path in sorted(RESULTS.glob("left_out_?.json")) for row in json.loads(path.read_text())["rows"]]


def within(own: Mapping[str, Any], figure: str) -> list[float] | None:
    """The mean over the sets of a test that hold every label enough to tell: what is left when no data set gives the label away."""
    found = [figures[figure] for figures in own["by set"].values() if figure in figures]
    return mean_of(found) if found else None


def reached(judges: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table: what each goal asks, what was reached by whom, and whether that is enough."""
    rows, out = [], left_out()
    for goal in GOALS:
        if goal.where == "left out":
            found = over_left_out(out, goal)
        else:
            own = judges.get(goal.judge, {})
            part = own.get(goal.where, {})
            found = {"judge": part.get(goal.figure)} if goal.where == "look-alikes" else {who: figures.get(goal.figure) for who, figures in part.items()}
        found = {who: value for who, value in found.items() if value}
        row: dict[str, Any] = {"judge": goal.judge, "figure": goal.figure, "where": goal.where, "goal": goal.goal, "reached": found}
        value = found.get("judge")
        if value is not None:
            row["met"] = value[0] <= goal.goal if goal.below else value[0] >= goal.goal
            if goal.over_tfidf and WORDS in found:
                row["asked over TF-IDF"] = goal.over_tfidf
                row["over TF-IDF"] = round(value[0] - found[WORDS][0], 4)
                row["met"] = row["met"] and row["over TF-IDF"] >= goal.over_tfidf
        rows.append(row)
    return rows


def over_left_out(rows: Sequence[Mapping[str, Any]], goal: Goal) -> dict[str, list[float]]:
    """Contender -> mean over the left-out sets; of open questions over the tasks that were left out entirely, as `benchmarks.open_questions` has it."""
    if goal.judge == "open questions":
        return {"judge": json.loads((RESULTS / "open_questions.json").read_text())["mean over tasks never seen"]["evidence"]}
    mine = [row["figures"] for row in rows if row["task"] == goal.judge and not row["whole task left out"]]
    names = {name for figures in mine for name in figures}
    found = {name: [figures[name][goal.figure] for figures in mine if goal.figure in figures.get(name, {})] for name in sorted(names)}
    return {name: mean_of(values) for name, values in found.items() if values}


def write_page(judges: Mapping[str, Any], goals: Sequence[Mapping[str, Any]]) -> None:
    """Put the tables into docs/judges.md and README.md."""
    text = PAGE.read_text()
    for mark, rows in (
        ("goals", goal_rows(goals)),
        ("judges", judge_rows(judges)),
        ("probes", probe_rows(judges)),
        ("left-out", left_out_rows()),
        ("written", written_rows(judges)),
        ("unseen", unseen_rows(judges)),
    ):
        text = between(text, mark, "\n" + "\n".join(rows) + "\n")
    PAGE.write_text(text)
    README.write_text(between(README.read_text(), "built-in", "\n" + "\n".join(short_rows(judges)) + "\n"))
    found = ElsewhereFile(judges={f"{name}@1": Measured(digest=own["digest"], sets=away(name, own)) for name, own in judges.items()})
    (built_in() / FILE).write_text(found.model_dump_json(indent=1) + "\n")


def away(name: str, own: Mapping[str, Any]) -> tuple[Elsewhere, ...]:
    """A judge on data sets that it did not learn from: as it ships, and trained again without them."""
    figure = shown_figure(name)
    written = {"look-alikes": "harmless look-alikes", "who people are": "statements about who people are"}
    sets = {**own["unseen"], **{f"{own[one]['rows']} {called}": own[one] for one, called in written.items() if one in own}}
    shipped = [Elsewhere(data=file, retrained=False, figures={one: found[one] for one in (figure, "fpr") if one in found}) for file, found in sets.items()]
    again = [row for row in left_out() if row["task"] == name and figure in row["figures"].get("judge", {})]
    return (*shipped, *(Elsewhere(data=row["set"], retrained=True, figures={figure: row["figures"]["judge"][figure]}) for row in again))


def shown_figure(name: str) -> str:
    """The one figure that a judge is shown by."""
    return "macro_f1" if read_metric(METRICS / f"{name}.yaml").type == "choice" else "auroc"


def short_rows(judges: Mapping[str, Any]) -> list[str]:
    """What a reader of the README should know: how a judge does on texts like its own, and on sets it has never seen anything of."""
    lines = head("judge", "figure", "on its test", "TF-IDF", "on data sets left out of all training", "TF-IDF")
    for name in (name for name in IN_SHORT if name in judges):
        figure = shown_figure(name)
        out = over_left_out(left_out(), Goal(name, figure, 0.0, "left out"))
        told_by = [judges[name]["test"].get(who, {}).get(figure) for who in ("judge", WORDS)] + [out.get(who) for who in ("judge", WORDS)]
        lines.append(f"| `{name}` | {NAMES[figure]} | " + " | ".join(show(value) for value in told_by) + " |")
    return lines


def goal_rows(goals: Sequence[Mapping[str, Any]]) -> list[str]:
    """The goals, as lines of Markdown."""
    lines = head("judge", "figure", "measured on", "goal", "reached", "TF-IDF", "embedding of `mini`", "adapter, untuned", "")
    for row in goals:
        found, sign = row["reached"], "≤" if row["figure"] in ("ece", "fpr") else "≥"
        told_by = " | ".join(show(found.get(name)) for name in ("judge", *OTHERS))
        verdict = {True: "met", False: "**missed**", None: "not measured"}[row.get("met")]
        asked = f"{sign} {row['goal']:g}" + (f", and {row['asked over TF-IDF']:g} over TF-IDF ({row['over TF-IDF']:+.3f})" if "over TF-IDF" in row else "")
        lines.append(f"| {row['judge']} | {row['figure']} | {row['where']} | {asked} | {told_by} | {verdict} |")
    return lines


def judge_rows(judges: Mapping[str, Any]) -> list[str]:
    """Every judge's own figures, as lines of Markdown."""
    lines = head(
        "judge",
        "test rows (groups)",
        "figure",
        "judge",
        "within its sets",
        "TF-IDF",
        "embedding of `mini`",
        "adapter, untuned",
        "ECE",
        "look-alikes, both right",
        "length alone",
    )
    for name in JUDGES:
        if name in judges:
            own = judges[name]
            figure = shown_figure(name)
            cells = " | ".join(
                [show(own["test"]["judge"].get(figure)), show(within(own, figure)), *(show(own["test"].get(who, {}).get(figure)) for who in OTHERS)]
            )
            length = own["length alone"]
            last = " | ".join((show(own["test"]["judge"].get("ece")), show((own["contrast"] or {}).get("both right")), f"{length:.2f}" if length else "-"))
            lines.append(f"| `{name}` | {own['rows']:,} ({own['groups']:,}) | {figure} | {cells} | {last} |")
    return lines


def probe_rows(judges: Mapping[str, Any]) -> list[str]:
    """How many verdicts each probe moved, as lines of Markdown; a probe that moved none of any judge's is left out."""
    names = [name for name in JUDGES if name in judges]
    probes = list(dict.fromkeys(probe for name in names for probe in judges[name]["probes"]))
    moved = [probe for probe in probes if any(judges[name]["probes"].get(probe, [0.0])[0] for name in names)]
    lines = head("judge", *moved)
    for name in names:
        found = [judges[name]["probes"].get(probe) for probe in moved]
        cells = ["-" if one is None else f"{one[0]:.0%}" if one[0] <= STEADY else f"**{one[0]:.0%}** [{one[1]:.0%}, {one[2]:.0%}]" for one in found]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return lines


def left_out_rows() -> list[str]:
    """Every left-out set, as lines of Markdown."""
    lines = head(
        "judge", "left-out set", "rows", "figure", "judge", "asked", "TF-IDF", "embedding of the fold's `mini`", "embedding, untuned", "adapter, untuned"
    )
    for row in left_out():
        figures = row["figures"]
        name = shown_figure(row["task"])
        asked = show(figures.get("asked", {}).get(name)) + (" (of right or not)" if name == "macro_f1" else "")
        cells = " | ".join([show(figures.get("judge", {}).get(name)), asked, *(show(figures.get(who, {}).get(name)) for who in FOLDS)])
        kind = " (task left out)" if row["whole task left out"] else ""
        lines.append(f"| {row['task']}{kind} | {row['set']} | {row['rows']} | {name} | {cells} |")
    return lines


def written_rows(judges: Mapping[str, Any]) -> list[str]:
    """The rows of a test that were written or made for it, as lines of Markdown."""
    lines = head("judge", "rows", "how many", "AUROC", "flagged of what is to be", "flagged of what is not")
    for name, own in judges.items():
        for source, figures in own["by set"].items():
            if source.startswith(("written/", "made/")):
                cells = (show(figures.get(figure)) for figure in ("auroc", "recall", "fpr"))
                lines.append(f"| `{name}` | {source.partition('/')[2]} | {figures['rows'][0]} | {' | '.join(cells)} |")
    return lines


def unseen_rows(judges: Mapping[str, Any]) -> list[str]:
    """Sets no training may use, as lines of Markdown."""
    lines = head("judge", "set", "figures")
    for name, own in judges.items():
        for file, figures in own["unseen"].items():
            shown = ", ".join(
                f"{figure} {show(value)}" for figure, value in figures.items() if figure in ("auroc", "balanced_accuracy", "recall_at_1_fpr", "fpr")
            )
            lines.append(f"| `{name}` | {file} | {shown} |")
        if "look-alikes" in own:
            lines.append(f"| `{name}` | {own['look-alikes']['rows']} look-alikes written for this | fpr {show(own['look-alikes']['fpr'])} |")
        if own.get("who people are", {"fpr": [0.0]})["fpr"][0] > 0:
            lines.append(f"| `{name}` | {own['who people are']['rows']} statements about who people are | fpr {show(own['who people are']['fpr'])} |")
    return lines


if __name__ == "__main__":
    main()
