"""Where a judge's map, threshold and promises come from: which half, at which prevalence, and for which part of the traffic."""

import numpy as np
import pytest

from snapjudge.core.calibration import Calibration, CalibrationMap
from snapjudge.core.example import Example, Provenance
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Silent
from snapjudge.core.rules import ThresholdRule
from snapjudge.errors import OptionInvalid
from snapjudge.flows import compare_judges as comparing
from snapjudge.flows.calibrating import CalibrationTerms
from snapjudge.flows.probing import probe_judge
from snapjudge.judge import Judge
from snapjudge.prove.probes import ROWS

BOOLEAN = Metric(name="m", version=1, type="boolean", inputs=("output",), question="?", labels={"bad": ("yes",), "fine": ("no",)})
CHOICE = Metric(name="m", version=1, type="choice", inputs=("output",), question="?", labels={"x": ("x",), "y": ("y",), "z": ("z",)}, positive="x")


def world(metric, count=600, seed=0):
    rng = np.random.default_rng(seed)
    names, examples, log_p = metric.label_names, [], []
    for n in range(count):
        label = int(rng.integers(len(names)))
        logits = rng.normal(0, 1, len(names)) + 2.5 * (np.arange(len(names)) == label)
        log_p.append(tuple((logits - np.log(np.exp(logits).sum())).tolist()))
        examples.append(Example(id=str(n), inputs={"output": f"t{n}"}, target=metric.target(names[label]), provenance=Provenance(group=f"g{n}")))
    return examples, log_p


def terms(metric, examples, rule=None, escalation=None, prevalence=()):
    return CalibrationTerms(metric, examples, rule, escalation, prevalence, "")


def test_agreement_is_promised_from_a_half_and_not_at_another_prevalence():
    examples, log_p = world(BOOLEAN)
    plain = terms(BOOLEAN, examples).calibrate_and_promise(log_p)[1]
    agreeing = [promise for promise in plain if promise.rule.figure == "agreement"]
    assert len(agreeing) == 3
    assert all(promise.counted <= 300 for promise in agreeing)
    assert any(promise.counted > 250 for promise in plain if promise.rule.figure == "fpr"), "a map of two labels keeps the order: all negatives count"
    moved = terms(BOOLEAN, examples, prevalence=(0.01, 0.99)).calibrate_and_promise(log_p)[1]
    assert {promise.rule.figure for promise in moved} == {"fpr", "recall"}


def test_a_map_that_leaves_no_answer_is_noticed():
    """Where the calibration rows contradict the fit the temperature runs away, and every label is as likely as every other."""
    examples, log_p = world(CHOICE)
    against = terms(CHOICE, examples)
    assert not against.all_but_even(log_p, against.calibrate(log_p))
    contrary = [tuple(sorted(row, reverse=True)) for row in log_p]  # says the same of every text
    assert against.all_but_even(contrary, against.calibrate(contrary))


def test_a_map_that_may_reorder_scores_gives_promises_from_the_other_half():
    examples, log_p = world(CHOICE)
    found = terms(CHOICE, examples).calibrate_and_promise(log_p)[1]
    assert all(promise.counted < 260 for promise in found if promise.rule.figure == "fpr"), "about 200 of 400 negatives"
    rule = ThresholdRule.parse("fpr<=0.2@90%")
    assert terms(CHOICE, examples, rule).calibrate(log_p).examples < 350
    assert terms(BOOLEAN, *world(BOOLEAN)[:1], rule).calibrate(world(BOOLEAN)[1]).examples == 600
    few, scores = world(BOOLEAN, 10)
    assert terms(BOOLEAN, few).calibrate_and_promise(scores)[1] == []


@pytest.mark.flow
def test_probes_judge_a_text_with_the_map_of_its_source(workshop):
    _, result = workshop
    judge = Judge.load(result.folder)
    web = Provenance(source="web")
    rows = [Example(id=str(n), inputs={"output": f"please {('sell', 'buy')[n % 2]} {n}"}, target=(1.0, 0.0), provenance=web) for n in range(12)]
    turned = Calibration(by="source", parts={"web": CalibrationMap(kind="platt", parameters=(0.001, 30.0))})  # everything of the web is flagged for sure
    probes = {probe.name: probe for probe in probe_judge(judge.backbone, judge.question, turned, rows, ROWS, Silent())}
    assert probes["typos"].rate.value == 0
    assert abs(probes["typos"].shift) < 1e-6
    assert next(judge.score_many([{"output": "x"}], ["web"])).score == judge.score(output="x", source="web").score


@pytest.mark.flow
def test_judges_that_read_other_fields_are_not_compared(workshop, monkeypatch):
    folder, result = workshop
    judge = Judge.load(result.folder)

    class Other:
        name, metric = "other@1", judge.metric.model_copy(update={"inputs": ("input", "output")})

    judges = iter([judge, Other()])
    monkeypatch.setattr(comparing.Judge, "load", lambda name: next(judges))
    with pytest.raises(OptionInvalid, match="reads"):
        comparing.compare(comparing.CompareRequest("a", "b", [folder / "new.jsonl"]), Silent())
