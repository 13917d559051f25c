"""The metric file: every problem in one error, each with its line, what was found and what would be right."""

import json

import jsonschema
import pytest

from snapjudge.core.metric import Metric
from snapjudge.core.metric_file import dump_metric, parse_metric
from snapjudge.errors import MetricInvalid

GOOD = """\
name: investment_advice
version: 3
type: boolean
level: span
inputs: [input, output]
question: Does the assistant give personalised investment advice?
labels:
  violates: ["yes", "Yes"]
  complies: ["no", "No"]
positive: violates
"""


def problems(text):
    with pytest.raises(MetricInvalid) as caught:
        parse_metric(text, "m.yaml")
    return {problem.path: problem for problem in caught.value.problems}


def test_a_good_file_gives_a_metric_with_its_defaults_resolved():
    metric = parse_metric(GOOD, "m.yaml")
    assert metric.positive_labels == ("violates",)
    assert metric.window_rule == "any"
    assert metric.ordered_inputs == ("input", "output")


@pytest.mark.parametrize(
    ("kind", "inputs", "labels"),
    [
        ("boolean", "[output]", '{bad: ["yes"], fine: ["no"]}'),
        ("choice", "[output]", '{joy: ["joy"], fear: ["fear"], neither: ["none"]}'),
        ("score", "[output]", '{"1": ["1"], "2": ["2"], "3": ["3"]}'),
        ("pairwise", "[a, b]", '{a: ["first"], b: ["second"]}'),
    ],
)
@pytest.mark.parametrize("flagged", [False, True])
def test_the_saved_metric_reads_back_to_the_same_value(kind, inputs, labels, flagged):
    positive = f"positive: {labels[1 : labels.index(':')]}\n" if flagged else ""
    metric = parse_metric(f"name: m\nversion: 1\ntype: {kind}\ninputs: {inputs}\nquestion: Which?\nlabels: {labels}\n{positive}", "m.yaml")
    assert bool(metric.positive_labels) == (flagged or kind == "boolean")
    assert parse_metric(dump_metric(metric), "again") == metric


def test_a_yes_or_no_metric_flags_something():
    assert "positive" in problems(GOOD.replace("positive: violates", "positive: []"))


def test_an_unquoted_yes_is_explained_not_passed_on():
    found = problems(GOOD.replace('["yes", "Yes"]', "[yes]").replace('["no", "No"]', "[no]"))
    assert set(found) == {"labels.violates[0]", "labels.complies[0]"}
    assert "YAML reads as true" in found["labels.violates[0]"].found
    assert found["labels.violates[0]"].expected == '"yes" in quotes'
    assert found["labels.violates[0]"].line == 8


def test_an_unquoted_yes_as_a_label_name_is_explained_too():
    found = problems(GOOD.replace("  violates:", "  yes:").replace("positive: violates", "positive: yes"))
    assert "labels.yes" in found
    assert "positive" in found


def test_every_problem_is_told_at_once():
    text = """\
name: Bad Name
version: 0
type: bool
inputs: [outputs]
questions: hm
labels:
  a: []
threshold: fpr<2%
"""
    found = problems(text)
    assert {"name", "version", "type", "inputs[0]", "question", "questions", "labels.a", "threshold"} <= set(found)
    assert found["version"].line == 2
    assert found["question"].found == "nothing"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (("type: boolean", "type: pairwise"), "labels"),
        (("inputs: [input, output]", "inputs: [a, b]"), "inputs"),
        (("level: span", "level: session"), "inputs"),
        (("positive: violates", "positive: nobody"), "positive"),
        (('["no", "No"]', '["yes"]'), "labels.complies[0]"),
        (('["no", "No"]', '["not at all"]'), "labels.complies[0]"),
        (("inputs: [input, output]", "inputs: [output, output]"), "inputs[1]"),
        (("positive: violates", "name: twice"), "name"),
        (("positive: violates", "optional: [context]"), "optional[0]"),
        (("type: boolean", "type: pairwise\nwindows: passages"), "windows"),
    ],
)
def test_one_wrong_thing_is_named_by_its_path(change, path):
    assert path in problems(GOOD.replace(*change))


@pytest.mark.parametrize("rule", ["any", "all", "passages"])
def test_windows_that_look_for_a_label_need_one(rule):
    found = problems(GOOD.replace("type: boolean", f"type: choice\nwindows: {rule}").replace("positive: violates\n", ""))
    assert f"`{rule}` can refer to" in found["windows"].expected


@pytest.mark.parametrize("change", [("name: investment_advice", "name: !foo x"), ("version: 3", "version: 2026-02-30"), ("positive: violates", "labels: {}")])
def test_values_yaml_cannot_read_are_problems_not_crashes(change):
    assert problems(GOOD.replace(*change))


def test_no_labels_at_all_is_a_problem_not_a_crash():
    text = GOOD[: GOOD.index("labels:")] + "labels: {}\n"
    assert "labels" in problems(text)


@pytest.mark.parametrize("text", ["", "- a list", "just text", "{broken: [", "name: [unclosed"])
def test_a_file_that_is_no_mapping_is_refused_clearly(text):
    assert "(file)" in problems(text)


def test_the_published_schema_accepts_good_files_and_refuses_bad_ones():
    import yaml

    from snapjudge.flows.metric_files import metric_schema

    schema = json.loads(metric_schema())
    jsonschema.validate(yaml.safe_load(GOOD), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(GOOD.replace("boolean", "bool")), schema)


def metric(kind, labels, **more):
    inputs = ("input", "a", "b") if kind == "pairwise" else ("output",)
    return Metric(name="m", version=1, type=kind, inputs=inputs, question="?", labels={name: (name,) for name in labels}, **more)


def test_true_means_the_first_label_and_false_the_second():
    boolean = metric("boolean", ["violates", "complies"])
    assert boolean.target(True) == boolean.target("violates") == (1.0, 0.0)
    assert boolean.target(False) == (0.0, 1.0)


def test_true_and_false_as_text_are_label_names_first():
    assert metric("boolean", ["violates", "complies"]).target("True") == (1.0, 0.0)
    assert metric("boolean", ["false", "true"]).target("false") == (1.0, 0.0)
    assert metric("choice", ["true", "false", "unknown"]).target("true") == (1.0, 0.0, 0.0)


def test_levels_may_be_numbers_and_soft_labels_are_shares():
    score = metric("score", ["1", "2", "3"])
    assert score.target(2) == score.target("2") == score.target(2.0) == (0.0, 1.0, 0.0)
    assert score.target({"1": 1, "3": 3}) == (0.25, 0.0, 0.75)


@pytest.mark.parametrize("label", ["maybe", 3, None, [], {"other": 1}, {}, {"violates": -1}, {"violates": float("nan")}, {"violates": 0}])
def test_an_unknown_label_says_what_was_found_and_what_would_be_right(label):
    with pytest.raises(ValueError, match=r"found .*; expected .*"):
        metric("boolean", ["violates", "complies"]).target(label)


def test_the_score_of_each_type():
    assert metric("boolean", ["y", "n"]).score_of({"y": 0.3, "n": 0.7}) == 0.3
    assert metric("boolean", ["y", "n"], positive="n").score_of({"y": 0.3, "n": 0.7}) == 0.7
    assert metric("score", ["1", "2", "3"]).score_of({"1": 0.0, "2": 0.5, "3": 0.5}) == 0.75
    assert metric("pairwise", ["a", "b", "tie"]).score_of({"a": 0.5, "b": 0.25, "tie": 0.25}) == 0.625
    assert metric("choice", ["x", "y", "z"]).score_of({"x": 0.5, "y": 0.3, "z": 0.2}) == 0.5
    assert metric("choice", ["x", "y", "z"], positive=("y", "z")).score_of({"x": 0.5, "y": 0.3, "z": 0.2}) == 0.5


def test_a_pair_mirrors_a_and_b_and_keeps_the_tie():
    assert metric("pairwise", ["a", "b", "tie"]).mirror == (1, 0, 2)
