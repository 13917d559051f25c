"""The judge that is to be replaced, as it came with the data; and what either would cost."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from snapjudge.cli.main import app
from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example, Verdict
from snapjudge.core.metric import Metric
from snapjudge.curate.read import read_examples
from snapjudge.flows.planning import Terms, advise, break_even, llm_price, machines, render_advice
from snapjudge.prove.proof import Contestant, Header, prove
from snapjudge.prove.report import render_report

METRIC = Metric(name="m", version=1, type="boolean", inputs=("output",), question="?", labels={"bad": ("yes",), "fine": ("no",)})


def rows(count=300, llm=0.9, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for n in range(count):
        truth = ["bad", "fine"][n % 2]
        said = truth if rng.random() < llm else ["fine", "bad"][n % 2]
        verdicts = {"llm": Verdict(label=said, cost=0.002, seconds=1.0 + n % 3)} if n % 10 else {}
        found.append(Example(id=str(n), inputs={"output": f"t{n}"}, target=METRIC.target(truth), verdicts=verdicts))
    return found


def proof_of(examples, right=0.95):
    rng = np.random.default_rng(1)
    log_p = [(-0.1, -2.4) if (e.label_index == 0) == (rng.random() < right) else (-2.4, -0.1) for e in examples]
    return prove(METRIC, examples, [Contestant("judge", log_p, Calibration())], Header("m@1", "mini", "readout", {}, seconds=0.004))


def test_a_verdict_column_is_a_baseline_with_agreement_overlap_cost_and_latency():
    examples = rows()
    (rival,) = proof_of(examples).rivals
    assert (rival.name, rival.rows, rival.without) == ("llm", 270, 30)
    assert rival.rival.cost_per_1000 == pytest.approx(2.0)
    assert (rival.rival.median_seconds, rival.judge.mean_seconds) == (2.0, 0.004)
    covered = [e for e in examples if e.verdicts]
    hits = sum(e.verdicts["llm"].label == "bad" for e in covered if e.label_index == 0)
    assert rival.rival.figures["recall"].value == pytest.approx(hits / sum(e.label_index == 0 for e in covered))
    wrong = rival.both_wrong + rival.only_judge_wrong + rival.only_rival_wrong
    assert rival.agree.value == pytest.approx(1 - (rival.only_judge_wrong + rival.only_rival_wrong) / 270)
    assert 0 < wrong < 70
    assert rival.repeats == pytest.approx(rival.both_wrong / (rival.both_wrong + rival.only_judge_wrong))
    assert "auroc" not in rival.rival.figures, "a hard verdict ranks nothing"
    page = render_report(proof_of(examples))
    assert "Against the judge it replaces" in page
    assert "2.00" in page


def test_too_few_verdicts_are_no_baseline():
    assert proof_of([e.model_copy(update={"verdicts": {}}) if int(e.id) > 9 else e for e in rows()]).rivals == ()


def test_verdicts_are_read_from_nested_and_flat_records(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"id": "1", "inputs": {"output": "x"}, "label": "bad", "verdicts": {"gpt": "fine", "old": {"label": True, "cost": 0.1}, "odd": "perhaps"}})
        + "\n"
    )
    (tmp_path / "b.csv").write_text("id,output,label,verdict.gpt-4.1,verdict.gpt-4.1.cost\n2,y,fine,bad,0.003\n3,z,fine,,\n")
    first, second, third = read_examples([tmp_path / "a.jsonl", tmp_path / "b.csv"], METRIC)
    assert {name: verdict.label for name, verdict in first.verdicts.items()} == {"gpt": "fine", "old": "bad"}
    assert second.verdicts["gpt-4.1"] == Verdict(label="bad", shares=(1.0, 0.0), cost=0.003)
    assert third.verdicts == {}


def test_a_small_judge_pays_from_some_volume_and_the_break_even_is_where_costs_meet():
    terms = Terms(volume=200_000)
    advice = advise(terms)
    assert advice.advised == "small judge"
    assert advice.llm_per_1000 == pytest.approx(1000 * (900 * 2.5 + 60 * 10) / 1e6)
    edge = break_even(terms)
    at = advise(terms.model_copy(update={"volume": edge}))
    costs = {one.option: one.month for one in at.choices}
    assert costs["small judge"] == pytest.approx(costs["LLM judge"], rel=0.02)
    assert advise(Terms(volume=20)).advised == "LLM judge"
    assert break_even(Terms(volume=1, input_price=0, output_price=0)) is None
    assert llm_price(terms) > 0


def test_what_cannot_do_what_is_asked_is_ruled_out_and_said():
    fast = {one.option: one for one in advise(Terms(volume=100, latency=100)).choices}
    assert fast["LLM judge"].ruled_out
    assert "1.5 s" in fast["LLM judge"].against[0]
    moving = advise(Terms(volume=10**6, changes=20))
    assert moving.advised == "LLM judge"
    nothing = advise(Terms(volume=10**6, labels=0, labels_wanted=10, latency=10))
    assert "Nothing does all" in nothing.why
    assert machines(Terms(volume=1), 10**8) > 50


def test_the_plan_has_a_page_and_refuses_odd_numbers(tmp_path):
    page = render_advice(advise(Terms(volume=50_000)))
    assert "Advised" in page
    assert "<script" not in page
    run = CliRunner().invoke
    done = run(app, ["plan", "--volume", "50000", "--out", str(tmp_path / "p.html"), "--json"])
    assert json.loads(done.output)["advised"] in ("small judge", "both")
    assert (tmp_path / "p.html").exists()
    bad = run(app, ["plan", "--volume", "-3", "--escalated", "2"])
    assert bad.exit_code == 2
    assert "--volume" in bad.output
    assert "--escalated" in bad.output


def test_the_break_even_is_where_the_small_judge_stays_cheaper():
    terms = Terms(volume=1, milliseconds=4000, machine=260, labels=800, labels_wanted=800, changes=0)
    edge = break_even(terms)
    for volume in np.linspace(edge * 1.001, edge * 5, 60):
        one = {choice.option: choice.month for choice in advise(terms.model_copy(update={"volume": float(volume)})).choices}
        assert one["small judge"] <= one["LLM judge"] + 1e-6
    few = advise(Terms(volume=10**6, labels=200, labels_wanted=200))
    assert next(choice for choice in few.choices if choice.option == "small judge").ruled_out
