"""The report: plain words that follow from figures, probes that tell noise from substance, one page that needs nothing else."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from snapjudge.core.calibration import Calibration, Escalation, Threshold
from snapjudge.core.example import Example, Provenance
from snapjudge.core.judgement import judge_of
from snapjudge.core.metric import Metric
from snapjudge.core.rules import Gate, ThresholdRule
from snapjudge.prove.plain import how_often_it_errs, limits, what_it_does, what_it_promises, where_not_to_use_it
from snapjudge.prove.probes import ABSURD, Variant, absurd, absurd_inputs, chosen, compared, contrast, mirrored, neighbours, variants, wordings
from snapjudge.prove.promises import flagging_promises
from snapjudge.prove.proof import Contestant, Header, prove
from snapjudge.prove.report import render_report

METRIC = Metric(name="m", version=1, type="boolean", inputs=("output",), question="Is it <b>rude</b>?", labels={"bad": ("yes",), "fine": ("no",)})
PAIR = Metric(name="p", version=1, type="pairwise", inputs=("a", "b"), question="?", labels={"a": ("a",), "b": ("b",)})


def examples(count=400, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Example(
            id=str(n),
            inputs={"output": f"text {n} " + "word " * int(rng.integers(2, 60)) + "<script>alert(1)</script>"},
            target=(1.0, 0.0) if n % 3 == 0 else (0.0, 1.0),
            provenance=Provenance(source="web" if n % 4 else "desk", group=f"g{n // 2}"),
        )
        for n in range(count)
    ]


def log_p(rows, seed=1, bad_source=None):
    rng = np.random.default_rng(seed)
    found = []
    for row in rows:
        sharp = 0.0 if row.provenance.source == bad_source else 2.0
        margin = rng.normal(sharp if row.label_index == 0 else -sharp, 1.5)
        found.append((float(-np.log1p(np.exp(-margin))), float(-np.log1p(np.exp(margin)))))
    return found


def proof_of(rows, calibration=None, gates=(), bad_source=None, **header):
    rule = ThresholdRule.parse("fpr<=0.1@95%")
    calibration = calibration or Calibration(threshold=Threshold(value=0.6, rule=rule, guaranteed=True, counted=200))
    contestants = [Contestant("judge", log_p(rows, bad_source=bad_source), calibration), Contestant("TF-IDF + LR", log_p(rows, 5), Calibration())]
    return prove(METRIC, rows, contestants, Header("m@1", "mini", "readout", {"test": len(rows)}, **header), [Gate.parse(text) for text in gates])


class _Loads(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.loads = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "action") and value]


def test_the_page_needs_nothing_else_and_text_stays_text():
    rows = examples()
    scores = [float(np.exp(p[0])) for p in log_p(rows)]
    promises = flagging_promises(scores, [row.label_index == 0 for row in rows], range(len(rows)))
    page = render_report(proof_of(rows, gates=("f1>=0.99",), promises=promises, made_with={"data": "x.jsonl sha256 0"}))
    parser = _Loads()
    parser.feed(page)
    assert not parser.loads
    assert "script" not in parser.tags
    assert "img" not in parser.tags
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    for title in ("In plain words", "Where it must not be used", "What could be promised", "How to make this again", "Worst errors", "read and approved by"):
        assert title in page
    assert "&lt;b&gt;rude&lt;/b&gt;" in page


def test_plain_words_say_what_the_figures_say():
    proof = proof_of(examples(), gates=("f1>=0.99",))
    figures = proof.judge_figures
    assert "flags what it calls “bad”" in what_it_does(proof)
    errs = how_often_it_errs(proof)
    assert f"flags about {100 * figures['recall'].value:.0f} ({100 * figures['recall'].low:.0f} to" in errs[0]
    assert f"flags about {100 * figures['fpr'].value:.0f} (" in errs[1]
    assert any("simple model of words" in line for line in errs)
    promised = what_it_promises(proof)
    assert "at most 10 are flagged, with 95 % confidence" in promised[0]
    assert "MISSED 1 of 1 gates" in promised[-1]


def test_many_labels_are_named_once():
    labels = {"bad": 100, "worse": 30, "worst": 20, "vile": 10, "fine": 240}
    proof = proof_of(examples()).model_copy(update={"labels": labels, "positive": ("bad", "worse", "worst", "vile")})
    assert "what it calls “bad” or “worse” or “worst” or “vile”" in what_it_does(proof)
    assert how_often_it_errs(proof)[0].startswith("Of 100 texts that are one of those 4, it flags")


def test_a_promise_that_is_not_kept_is_said_so():
    rule, agree = ThresholdRule.parse("recall>=0.99@95%"), ThresholdRule.parse_escalation("agreement>=0.99@95%")
    calibration = Calibration(threshold=Threshold(value=0.5, rule=rule, counted=5, needed=100), escalation=Escalation(value=1.1, rule=agree))
    promised = what_it_promises(proof_of(examples(), calibration))
    assert "could NOT be supported" in promised[0]
    assert "could NOT be supported" in promised[1]
    kept = Calibration(escalation=Escalation(value=0.5, rule=agree, guaranteed=True, coverage=0.7, counted=100))
    proof = proof_of(examples(), kept)
    assert 0.3 < proof.selective.coverage.value < 0.9
    assert proof.selective.agreement.value > 0.9
    assert "answers" in what_it_promises(proof)[0]


def test_where_it_must_not_be_used_follows_from_slices_probes_and_notes():
    rows = examples()
    judgements = [judge_of("", METRIC, Calibration(), p, 1) for p in log_p(rows)]
    flipped = [judge_of("", METRIC, Calibration(), p[::-1] if n < 20 else p, 1) for n, p in enumerate(log_p(rows))]
    probe = compared(Variant("typos", tuple(range(100)), ()), rows, judgements, flipped[:100], METRIC)
    assert (probe.rate.value, probe.fine) == (0.2, False)
    told = where_not_to_use_it(proof_of(rows, bad_source="desk", probes=[probe], notes=["2 of these texts were seen (--allow-leak)"]))
    assert any("source desk" in line for line in told)
    assert not any("source web" in line for line in told)
    assert any("typos: 20% of its verdicts changed" in line for line in told)
    assert any("--allow-leak" in line for line in told)
    assert any("too few" in line for line in where_not_to_use_it(proof_of(examples(60))))


def test_probes_change_texts_only_and_are_repeatable():
    rows = chosen(examples(), 30)
    assert [row.id for row in rows] == [row.id for row in chosen(examples(), 30)]
    made = variants(rows, METRIC)
    assert len({one.name for one in made}) == len(made) >= 8
    for one in made:
        assert len(one.places) == len(one.inputs)
        assert all(inputs["output"] != rows[place].inputs["output"] for place, inputs in zip(one.places, one.inputs, strict=True))
    assert [one.inputs for one in variants(rows, METRIC)] == [one.inputs for one in made]
    assert len(set(wordings("Is it so?").values()) | {"Is it so?"}) == 4


def test_no_flips_are_not_taken_for_certainty():
    rows = examples(50)
    judgements = [judge_of("", METRIC, Calibration(), p, 1) for p in log_p(rows)]
    probe = compared(Variant("case", tuple(range(50)), ()), rows, judgements, judgements, METRIC)
    assert probe.rate.value == 0
    assert probe.rate.high > 0.05
    assert neighbours(judgements[:10], judgements[:10]).note == "equal to the last bit"
    other = [judge_of("", METRIC, Calibration(), (p[0] + 1e-9, p[1]), 1) for p in log_p(rows)]
    assert neighbours(judgements[:10], other[:10]).rate.value == 1


def test_look_alike_pairs_of_different_labels_are_found_by_group_and_by_text():
    base = "The delivery came on Tuesday and everything was in its place, which I liked"
    rows = [
        Example(id="1", inputs={"output": base}, target=(0.0, 1.0)),
        Example(id="2", inputs={"output": base.replace("liked", "hated")}, target=(1.0, 0.0)),
        Example(id="3", inputs={"output": "one thing"}, target=(0.0, 1.0), provenance=Provenance(group="pair")),
        Example(id="4", inputs={"output": "quite another matter"}, target=(1.0, 0.0), provenance=Provenance(group="pair")),
        Example(id="5", inputs={"output": "something alone"}, target=(1.0, 0.0)),
    ]
    right = [judge_of("", METRIC, Calibration(), (-0.1, -2.0) if row.label_index == 0 else (-2.0, -0.1), 1) for row in rows]
    assert (contrast(rows, right, METRIC).rows, contrast(rows, right, METRIC).rate.value) == (2, 1.0)
    wrong = [right[1], *right[1:]]
    assert contrast(rows, wrong, METRIC).rate.value == 0.5
    assert contrast(rows[4:], right[4:], METRIC) is None


def test_absurd_inputs_are_told_and_a_pair_must_mirror():
    asked = absurd_inputs(METRIC)
    assert len(asked) == len(ABSURD)
    judged = [judge_of("", METRIC, Calibration(), (-0.1, -2.0) if n == 0 else (-2.0, -0.1), 1) for n in range(len(ABSURD))]
    assert absurd(judged, METRIC).note == "flagged: emoji only"
    assert absurd_inputs(METRIC.model_copy(update={"inputs": ("messages",)})) == []
    rows = [Example(id="1", inputs={"a": "x", "b": "y"}, target=(1.0, 0.0))]
    first, second = judge_of("", PAIR, Calibration(), (-0.1, -2.0), 1), judge_of("", PAIR, Calibration(), (-2.0, -0.1), 1)
    assert mirrored(rows, [first], [second]).rate.value == 0
    assert mirrored(rows, [first], [first]).rate.value == 1


@pytest.mark.parametrize("text", ["precision>=0.8@90%", "cost(fp=1,fn=5)<=0.3@95%"])
def test_every_kind_of_promise_has_words(text):
    calibration = Calibration(threshold=Threshold(value=0.5, rule=ThresholdRule.parse(text), guaranteed=True, counted=100))
    proof = proof_of(examples(100), calibration)
    assert re.search(r"confidence", what_it_promises(proof)[0])
    assert "holds by" in render_report(proof)


def test_a_promise_that_the_test_contradicts_is_called_so():
    rule = ThresholdRule.parse("fpr<=0.02@95%")
    calibration = Calibration(threshold=Threshold(value=0.05, rule=rule, guaranteed=True, counted=500))
    proof = proof_of(examples(), calibration, notes=["3 of these texts were seen (--allow-leak)"])
    assert any("CONTRADICTS" in line for line in what_it_promises(proof))
    assert any("promise does not hold here" in line for line in where_not_to_use_it(proof))
    assert not any("it had never seen" in line for line in how_often_it_errs(proof))


def test_a_promise_that_the_test_lies_beyond_by_chance_is_called_unconfirmed():
    flagging = Calibration(threshold=Threshold(value=0.05, rule=ThresholdRule.parse("fpr<=0.99@95%"), guaranteed=True, counted=500))
    found = proof_of(examples(), flagging).judge_figures["fpr"]
    assert found.low < found.value
    rule = ThresholdRule.parse(f"fpr<={(found.low + found.value) / 2:.4f}@95%")
    proof = proof_of(examples(), Calibration(threshold=Threshold(value=0.05, rule=rule, guaranteed=True, counted=500)))
    assert any("does not confirm it" in line for line in what_it_promises(proof))
    assert any("does not confirm it" in line for line in where_not_to_use_it(proof))
    assert any("not confirmed" in line for line in limits(proof))
    assert not any("CONTRADICTS" in line for line in what_it_promises(proof))
    assert not any("confirm" in line for line in what_it_promises(proof_of(examples(), flagging)))
