"""The audit finds what was planted, and says nothing of what was not."""

import json
import random

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from snapjudge.core.example import Example, Provenance
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Silent
from snapjudge.curate.audit import AuditData, audit
from snapjudge.curate.findings import Audit
from snapjudge.curate.ranking import auroc
from snapjudge.curate.words import clusters, word_matrix
from snapjudge.errors import OptionInvalid, TooFewExamples
from snapjudge.flows.audit_data import AuditRequest, audit_data, guess_metric, render_audit
from tests.conftest import shared

METRIC = Metric(name="rude", version=1, type="boolean", inputs=("output",), question="Rude?", labels={"bad": ("yes",), "fine": ("no",)})
RUDE, KIND = ["fool", "idiots", "shutup", "stupid", "moron"], ["nice", "thanks", "please", "kindly", "great"]  # of the same lengths
COMMON = ["table", "window", "garden", "river", "music", "paper", "stone", "cloud", "bread", "horse", "lamp", "road", "train", "ship", "clock"]


def examples(count, seed=0, **more):
    rng = random.Random(seed)
    found = []
    for number in range(count):
        label = number % 2
        words = rng.choices(COMMON, k=12) + rng.choices(KIND if label else RUDE, k=3)
        rng.shuffle(words)
        provenance = Provenance(source=f"s{rng.randrange(3)}", group=f"g{seed}-{number}")
        found.append(Example(id=f"{seed}-{number}", inputs={"output": " ".join(words)}, target=(1.0 - label, float(label)), provenance=provenance, **more))
    return found


def run(train, test=()):
    return audit(AuditData([*train, *test], ["train"] * len(train) + ["test"] * len(test), METRIC), Silent())


def codes(found: Audit, *severities):
    return {finding.code for finding in found.findings if not severities or finding.severity in severities}


def test_clean_data_has_no_errors():
    found = run(examples(1200), examples(400, seed=9))
    assert codes(found, "error") == set()
    assert not found.failed("error")
    assert found.words_auroc.low > 0.99


def test_planted_duplicates_conflicts_and_leaks_are_found():
    train, test = examples(600), examples(300, seed=9)
    twin = [e.model_copy(update={"id": f"t{n}"}) for n, e in enumerate(train[:30])]
    conflict = [e.model_copy(update={"id": f"c{n}", "target": e.target[::-1]}) for n, e in enumerate(train[30:50])]
    near = [e.model_copy(update={"id": f"n{n}", "inputs": {"output": e.inputs["output"].upper() + " !"}}) for n, e in enumerate(test[:7])]
    leaked = [e.model_copy(update={"id": f"l{n}"}) for n, e in enumerate(test[10:15])]
    grouped = [e.model_copy(update={"id": f"g{n}", "inputs": {"output": f"word{n} quite another text {n * n}"}}) for n, e in enumerate(test[20:24])]
    found = run([*train, *twin, *conflict, *near, *leaked, *grouped], test)
    by_code = {finding.code: finding for finding in found.findings}
    assert by_code["exact_duplicates"].count == 55
    assert by_code["label_conflicts"].count == 40
    assert {row.id[0] for row in by_code["label_conflicts"].rows} == {"0", "c"}
    assert by_code["duplicates_across"].count == 5
    assert by_code["near_duplicates_across"].count == 7
    assert by_code["group_leak"].count == 7 + 5 + 4
    assert codes(found, "error") == {"label_conflicts", "duplicates_across", "near_duplicates_across", "group_leak"}
    assert found.failed("error")
    assert not found.failed("never")


@pytest.mark.parametrize(
    ("plant", "name"),
    [
        (lambda e: {"inputs": {"output": e.inputs["output"] + (" lamp" * 8 if e.label_index else "")}}, "length"),
        (lambda e: {"inputs": {"output": e.inputs["output"] + ("!!!" if e.label_index else "")}}, "exclamation marks"),
        (lambda e: {"inputs": {"output": e.inputs["output"].upper() if e.label_index else e.inputs["output"]}}, "capitals"),
        (lambda e: {"inputs": {"output": ("As an assistant: " if e.label_index else "") + e.inputs["output"]}}, "the template"),
        (lambda e: {"inputs": {"output": e.inputs["output"] + (" zebra" if e.label_index else " tiger")}}, "a single word"),
        (lambda e: {"provenance": Provenance(source="forum" if e.label_index else "desk", group=e.group)}, "source"),
        (lambda e: {"provenance": Provenance(date=f"2026-0{3 + 3 * e.label_index}-01", group=e.group)}, "date"),
    ],
)
def test_a_planted_shortcut_is_named_with_its_interval(plant, name):
    found = run([e.model_copy(update=plant(e)) for e in examples(600)])
    figures = {one.name: one for one in found.shortcuts}
    assert figures[name].low >= 0.8
    assert f"shortcut_{name.replace(' ', '_')}" in codes(found, "error")


def test_flipped_labels_are_ranked_first():
    rows = examples(800)
    flipped = {e.id for e in rows[:30]}
    found = run([e.model_copy(update={"target": e.target[::-1]}) if e.id in flipped else e for e in rows])
    noise = next(finding for finding in found.findings if finding.code == "label_noise")
    assert len({row.id for row in noise.rows[:30]} & flipped) >= 28


def test_an_auroc_and_its_interval_are_those_of_the_definition():
    rng = np.random.default_rng(0)
    truth = rng.random(400) < 0.3
    scores = np.round(rng.normal(truth * 1.0), 1)  # with ties
    found = auroc(scores, truth)
    assert found.value == pytest.approx(roc_auc_score(truth, scores))
    hits = 0
    for _ in range(400):
        truth = rng.random(150) < 0.4
        one = auroc(rng.normal(truth * 1.0), truth)
        hits += one.low <= 0.7602 <= one.high  # P(N(1, 1) > N(0, 1))
    assert 0.92 <= hits / 400 <= 0.98
    assert auroc(np.arange(4.0), np.array([False, False, True, True])).low < 0.7
    assert auroc(scores, np.zeros(400, dtype=bool)) is None


def test_the_balance_rules_of_the_seeds_are_held_against_the_data():
    found = run(examples(200)[::2] + examples(200)[1::8], examples(60, seed=3))
    assert {"few_train", "imbalance", "few_test", "few_per_class"} <= codes(found, "warning")
    assert "one_class" in codes(run(examples(200)[::2]), "error")


def test_rows_that_cannot_be_read_are_a_finding(tmp_path):
    lines = [json.dumps({"id": e.id, "inputs": e.inputs, "label": "bad" if e.label_index == 0 else "fine"}) for e in examples(60)]
    (tmp_path / "d.jsonl").write_text("\n".join([*lines, "broken", '{"inputs": {"output": ""}}']))
    found = audit_data(AuditRequest([tmp_path / "d.jsonl"], out=tmp_path / "out"), Silent())
    assert found.findings[0].code == "unreadable"
    assert found.findings[0].count == 2
    page = (tmp_path / "out" / "audit.html").read_text()
    assert "2 rows cannot be read" in page
    assert "<script" not in page
    assert Audit.model_validate_json((tmp_path / "out" / "audit.json").read_bytes()).examples == 60


def test_a_text_with_markup_stays_text_on_the_page():
    rows = [e.model_copy(update={"inputs": {"output": "<img src=x onerror=alert(1)> mail a@b.example.com"}}) for e in examples(20)]
    assert "<img" not in render_audit(run(rows), "<b>name</b>")


def test_labels_and_fields_are_taken_from_files_without_a_metric(tmp_path):
    (tmp_path / "pair.jsonl").write_text(
        '{"inputs": {"a": "x", "b": "y", "input": "q"}, "label": "a"}\n{"inputs": {"a": "x", "b": "y", "input": "q"}, "label": "b"}\n'
    )
    assert guess_metric([tmp_path / "pair.jsonl"], None).type == "pairwise"
    (tmp_path / "bool.csv").write_text("output,label\nx,true\ny,false\n")
    guessed = guess_metric([tmp_path / "bool.csv"], None)
    assert (guessed.type, guessed.label_names) == ("boolean", ("true", "false"))
    with pytest.raises(OptionInvalid):
        guess_metric([tmp_path], None)
    (tmp_path / "few.jsonl").write_text('{"inputs": {"output": "x"}, "label": true}\n')
    with pytest.raises(TooFewExamples):
        audit_data(AuditRequest([tmp_path / "few.jsonl"]), Silent())


def test_the_length_leak_of_gptfuzz_is_found():
    files = [shared(f"data/safety_response/gptfuzz.{part}.jsonl") for part in ("train", "dev")]
    found = audit_data(AuditRequest(files[:1], files[1:]), Silent())
    length = next(one for one in found.shortcuts if one.name == "length of output")
    assert 0.8 < length.low < length.auroc < 0.87
    assert "shortcut_length_of_output" in codes(found, "error")


def test_two_large_groups_and_three_rows_are_no_reason_to_fail():
    for seed in range(4):
        rows = []
        for n, e in enumerate(examples(200)):
            rows.append(e.model_copy(update={"provenance": Provenance(group=f"{seed}{n % 2}", source=f"s{n % 3}")}))
        assert run(rows).examples == 200
    matrix, _ = word_matrix(["one text here", "another text there", "a third one"])
    assert len(clusters(matrix)[0]) == 3
