"""One path to a number: the same example gets the bitwise same score through every door."""

import json
import subprocess
import sys

import pytest

from snapjudge.core.calibration import Calibration
from snapjudge.core.metric_file import parse_metric
from snapjudge.core.progress import Silent
from snapjudge.curate.read import read_examples
from snapjudge.flows.score_file import ScoreRequest, score_file
from snapjudge.flows.scoring import contents_of, raw_scores
from snapjudge.judge import Judge, Panel
from snapjudge.model.prompt import Content, content_windows
from snapjudge.model.reading import Question
from snapjudge.prove.proof import scored
from snapjudge.train.fit import fit
from snapjudge.train.terms import FitConfig, FitData, Validation
from tests.workshop import METRIC_YAML


@pytest.fixture(scope="module")
def judge(workshop):
    return Judge.load(workshop[1].folder)


def test_the_same_example_scores_the_same_bits_through_every_door(workshop, judge, tmp_path):
    folder, result = workshop
    examples = read_examples([folder / "new.jsonl"], judge.metric)
    contents = contents_of(examples, judge.metric, judge.backbone)

    # prove: raw scores of all examples, packed together, through the proof's own function
    log_p = raw_scores(judge.backbone, judge.question, contents, Silent(), "score")
    _, judgements = scored(log_p, judge.bundle.calibration, judge.metric, examples)
    proved = [one.score for one in judgements]

    # fit's validation: what the training loop sees of the same adapter (rate 0 keeps the weights as they were saved)
    seen = []
    metric = parse_metric(METRIC_YAML, "m")
    data = FitData(contents[:8], [e.target for e in examples[:8]], contents)

    def validate(rows):
        seen.append(rows)
        return Validation(0.6, "auroc", 0.5, 0.5, 0.01)

    options = {"validate": validate, "folder": tmp_path, "progress": Silent()}
    fresh = fit(judge.backbone, [Question(metric, judge.question.readout)], data, "readout", FitConfig(rank=4, epochs=1), **options)
    again = raw_scores(judge.backbone, Question(metric, judge.question.readout, fresh.adapter), contents, Silent(), "score")
    assert seen[0] == again

    # score: streaming through a file, in another packing
    score_file(Panel([judge]), ScoreRequest(folder / "new.jsonl", tmp_path / "out.jsonl"))
    filed = [json.loads(line)["score"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    # the library, one by one and many at a time, and in another order
    single = [judge.score(**example.inputs).score for example in examples[:12]]
    many = [one.score for one in judge.score_many(example.inputs for example in examples)]
    backwards = [one.score for one in judge.score_many(example.inputs for example in reversed(examples))][::-1]

    assert proved == filed == many == backwards
    assert single == many[:12]

    # ask: another process
    for example in examples[:2]:
        command = [sys.executable, "-m", "snapjudge.cli", "ask", "--judge", str(result.folder), "--json", example.inputs["output"]]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(told.stdout)["says_buy@1"]["score"] == judge.score(**example.inputs).score


def test_several_judges_on_one_content_answer_as_each_does_alone(workshop, judge, tmp_path):
    from snapjudge.flows.train_judge import train_judge
    from snapjudge.flows.train_terms import TrainRequest
    from tests.workshop import CONFIG

    folder, _ = workshop
    (tmp_path / "other.yaml").write_text(METRIC_YAML.replace("says_buy", "other").replace("Does it say buy?", "Is something bought here, or not?"))
    other = Judge.load(train_judge(TrainRequest(tmp_path / "other.yaml", [folder / "data.jsonl"], tmp_path), CONFIG).folder)
    every = train_judge(TrainRequest(tmp_path / "other.yaml", [folder / "data.jsonl"], tmp_path), CONFIG.model_copy(update={"scope": "all"}))
    third = Judge.load(every.folder)
    assert third.question.adapter.scope == "all"
    text = "please buy one text, thanks"
    mixed = Panel([judge, other, third]).score(output=text)
    assert [mixed[one.name] for one in (judge, other, third)] == [one.score(output=text) for one in (judge, other, third)]
    encoded = []
    real = judge.backbone.step
    panel = Panel([judge, other])
    try:
        judge.backbone.step = lambda contents, asks, **more: encoded.append((len(contents), len(asks))) or real(contents, asks, **more)
        both = panel.score(output="please buy one text, thanks")
    finally:
        del judge.backbone.step
    assert encoded == [(1, 2)], "the content is read once for both"
    assert both["says_buy@1"] == judge.score(output="please buy one text, thanks")
    assert both["other@1"] == other.score(output="please buy one text, thanks")


def test_a_long_text_is_read_in_windows_and_flagged_if_any_window_is(judge):
    short = judge.score(output="please buy now")
    text = "yes no polite answer " * 300 + "please buy now " + "thanks " * 300
    long = judge.score(output=text)
    assert short.windows == 1
    assert long.windows > 2
    quiet = judge.score(output="yes no polite answer " * 300 + "thanks " * 300)
    assert quiet.windows > 2
    loud = judge.score(output="yes no polite answer " * 300 + "please buy now " * 150 + "thanks " * 300)
    assert loud.flagged
    assert loud.score > quiet.score

    windows = content_windows({"output": text}, judge.backbone)
    alone = raw_scores(judge.backbone, judge.question, [Content((window,)) for window in windows], Silent(), "score")
    assert len(alone) == long.windows
    assert long.score == max(judge.bundle.calibration.apply(row)[0] for row in alone)


def test_an_uncalibrated_judge_is_the_softmax_of_its_logits():
    assert Calibration().apply((0.0, 0.0)) == (0.5, 0.5)
