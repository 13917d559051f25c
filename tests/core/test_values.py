"""Inputs, calibration, judgements and rules."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapjudge.core.calibration import Calibration, Threshold, softmax
from snapjudge.core.example import Example, check_inputs, content_key, plain_text
from snapjudge.core.judgement import judge_of
from snapjudge.core.metric import Metric
from snapjudge.core.rules import Gate, ThresholdRule
from snapjudge.errors import InputInvalid, RuleInvalid

BOOLEAN = Metric(name="m", version=1, type="boolean", inputs=("output",), question="?", labels={"bad": ("yes",), "fine": ("no",)})
LOGITS = st.lists(st.floats(-30, 30), min_size=2, max_size=6)


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({}, "inputs.output"),
        ({"output": ""}, "inputs.output"),
        ({"output": "  \n"}, "inputs.output"),
        ({"output": 3}, "inputs.output"),
        ({"output": "\ud800"}, "inputs.output"),
        ({"output": "x", "outptu": "y"}, "inputs.outptu"),
        ("text", "inputs"),
    ],
)
def test_inputs_that_cannot_be_judged_name_the_field(inputs, field):
    with pytest.raises(InputInvalid, match=field):
        check_inputs(inputs, ("output",))


@pytest.mark.parametrize(
    "turns",
    [
        [],
        "hi",
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": "\ud800"}],
        [{"role": "user", "tool_calls": 5}],
        [{"content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": [{"type": "image_url"}]}],
        ["hi"],
        [{"role": " ", "content": "x"}],
    ],
)
def test_messages_of_another_shape_are_refused(turns):
    with pytest.raises(InputInvalid, match=r"inputs\.messages"):
        check_inputs({"messages": turns}, ("messages",))


def test_messages_may_carry_parts_and_tool_calls():
    turns = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}]
    assert check_inputs({"messages": turns}, ("messages",)) == {"messages": turns}


def test_case_and_spacing_do_not_make_a_text_another_one():
    assert content_key({"output": "Hello  World"}) == content_key({"output": "hello world\n"})
    assert content_key({"output": "hello"}) != content_key({"input": "hello"})


def test_an_example_without_a_group_is_its_own_group():
    one = Example(id="1", inputs={"output": "x"})
    assert one.group == one.content_key


@given(LOGITS)
def test_probabilities_sum_to_one(logits):
    assert math.isclose(sum(softmax(logits)), 1.0, rel_tol=1e-12)


CALIBRATIONS = [
    Calibration(),
    Calibration(kind="temperature", parameters=(2.5,)),
    Calibration(kind="platt", parameters=(0.5, -1.0)),
    Calibration(kind="beta", parameters=(0.7, 0.4, 0.2)),
    Calibration(kind="isotonic", knots=((-3.0, 0.02), (0.0, 0.3), (2.0, 0.97))),
    Calibration(kind="platt", parameters=(0.5, -1.0), prior_shift=(-2.0, 0.1)),
    Calibration(kind="classwise", parameters=(0.5, 1.5, -1.0, 0.2)),
    Calibration(kind="cumulative", parameters=(1.5, -0.4)),
]


@pytest.mark.parametrize("calibration", CALIBRATIONS, ids=lambda c: c.kind)
@given(margins=st.tuples(st.floats(-40, 40), st.floats(-40, 40)))
def test_calibration_keeps_the_order_of_scores(calibration, margins):
    def raw(margin):
        p = softmax([margin, 0.0])
        return [math.log(max(v, 1e-300)) for v in p]

    low, high = sorted(margins)
    assert calibration.apply(raw(low))[0] <= calibration.apply(raw(high))[0] + 1e-12


@pytest.mark.parametrize("calibration", CALIBRATIONS, ids=lambda c: c.kind)
def test_a_calibration_reads_back_from_json_to_the_same_numbers(calibration):
    again = Calibration.model_validate_json(calibration.model_dump_json())
    assert again.apply((-0.1, -2.3)) == calibration.apply((-0.1, -2.3))


def test_a_judgement_is_flagged_by_the_threshold_and_labelled_by_the_larger_probability():
    strict = Calibration(threshold=Threshold(value=0.9))
    found = judge_of("m@1", BOOLEAN, strict, (math.log(0.7), math.log(0.3)), 2)
    assert found.label == "bad"
    assert not found.flagged
    assert found.windows == 2
    assert found.confidence == pytest.approx(0.4)
    assert found.score == pytest.approx(0.7)


def test_confidence_for_many_labels_is_zero_at_uniform_and_one_at_certainty():
    metric = Metric(name="m", version=1, type="choice", inputs=("output",), question="?", labels={c: (c,) for c in "abcd"})
    assert judge_of("m", metric, Calibration(), [0.0] * 4, 1).confidence == pytest.approx(0.0)
    assert judge_of("m", metric, Calibration(), [50.0, 0, 0, 0], 1).confidence == pytest.approx(1.0)


@pytest.mark.parametrize("text", ["fpr<=0.02@95%", "fpr<=0.02@95% from 0.5", "recall>=0.9@99%", "precision>=0.8@90%"])
def test_rules_print_as_they_are_written(text):
    assert str(ThresholdRule.parse(text)) == text


def test_a_rule_may_state_percent():
    assert ThresholdRule.parse("fpr <= 2% @ 95%").bound == 0.02


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fpr>=0.02@95%",
        "fpr<=2@95%",
        "fpr<=0.02",
        "f1>=0.9@95%",
        "fpr<=0.02@100%",
        "fpr<=0.0.2@95%",
        "fpr<=0.02@95% from 1",
        "recall>=0.9@95% from 0.5",
        "fpr<=0.02@95% from .",
    ],
)
def test_a_rule_that_cannot_be_read_says_what_would_be_right(text):
    with pytest.raises(RuleInvalid) as caught:
        ThresholdRule.parse(text)
    assert "fpr<=0.02@95%" in caught.value.hint


def test_gates_hold_against_the_figure_or_an_end_of_its_interval():
    assert Gate.parse("f1>=0.9").passes(0.9)
    assert not Gate.parse("fpr<=0.05").passes(0.06)
    assert Gate.parse("auroc.low>=0.85").end == ".low"
    with pytest.raises(RuleInvalid):
        Gate.parse("f1 is good")
    with pytest.raises(RuleInvalid):
        Gate.parse("f1>=0.9.1")


def test_a_message_says_its_text_its_parts_and_its_tool_calls():
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "delete"}, {"type": "text", "text": "it"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "delete_all"}}]},
    ]
    text = plain_text({"messages": turns})
    assert "user: delete\nit" in text
    assert "delete_all" in text


def test_optional_inputs_may_be_missing_but_not_all():
    wanted, optional = ("context", "input"), ("context", "input")
    assert check_inputs({"input": "hi", "context": ""}, wanted, optional) == {"input": "hi"}
    assert check_inputs({"context": "a", "input": None}, wanted, optional) == {"context": "a"}
    with pytest.raises(InputInvalid, match="at least one of context, input"):
        check_inputs({"output": "hi"}, wanted, optional)
    with pytest.raises(InputInvalid, match="context"):
        check_inputs({"input": "hi"}, wanted, ("input",))
    with pytest.raises(InputInvalid, match="visible"):
        check_inputs({"input": "  ", "context": "a"}, wanted, optional)


@pytest.mark.parametrize(
    ("kind", "labels", "positive", "rule"),
    [
        ("boolean", ("yes", "no"), None, "any"),
        ("choice", ("hate", "insult", "none"), ("hate", "insult"), "any"),
        ("choice", ("red", "green", "blue"), None, "mean"),
        ("score", ("1", "2", "3"), None, "mean"),
        ("score", ("1", "2", "3"), "1", "any"),
    ],
)
def test_windows_combine_as_it_takes_to_find_what_is_flagged(kind, labels, positive, rule):
    """A hateful sentence amid pages of harmless text must not be outvoted by the pages."""
    words = {name: (name,) for name in labels}
    metric = Metric(name="m", version=1, type=kind, inputs=("output",), question="?", labels=words, positive=positive)
    assert metric.window_rule == rule
    assert not metric.by_passages


def test_passages_combine_as_any_does():
    metric = Metric.model_validate({**BOOLEAN.model_dump(), "windows": "passages"})
    assert metric.window_rule == "any"
    assert metric.by_passages
