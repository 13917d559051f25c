"""Every promise holds at its stated rate over 2,000 draws of the calibration data, against the truth of the population it is drawn from."""

import numpy as np
import pytest
from scipy import stats

from snapjudge.core.rules import ThresholdRule
from snapjudge.errors import RuleInvalid
from snapjudge.prove.promises import agreement_promises, flagging_promises
from snapjudge.prove.thresholds import choose_escalation, choose_threshold, hoeffding_bentkus, labels_needed, labels_to_promise

DRAWS, ROWS, POSITIVES = 2000, 400, 0.35
BAD, FINE = stats.beta(4, 2), stats.beta(2, 5)  # scores of positives and negatives


def draw(rng):
    truth = rng.random(ROWS) < POSITIVES
    return np.where(truth, BAD.rvs(ROWS, random_state=rng), FINE.rvs(ROWS, random_state=rng)), truth


def true_figure(figure, threshold, costs):
    fpr, recall = FINE.sf(threshold), BAD.sf(threshold)
    if figure == "cost":
        return costs[0] * (1 - POSITIVES) * fpr + costs[1] * POSITIVES * (1 - recall)
    flagged = POSITIVES * recall + (1 - POSITIVES) * fpr
    return {"fpr": fpr, "recall": recall, "precision": POSITIVES * recall / flagged if flagged else 1.0}[figure]


@pytest.mark.parametrize(
    "text", ["fpr<=0.05@90%", "fpr<=0.2@95%", "fpr<=0.2@95% from 0.5", "recall>=0.8@90%", "precision>=0.7@90%", "cost(fp=1,fn=2)<=0.35@90%"]
)
def test_a_threshold_keeps_its_promise_as_often_as_it_says(text):
    rule, rng = ThresholdRule.parse(text), np.random.default_rng(7)
    assert str(rule) == text
    broken = promised = 0
    for _ in range(DRAWS):
        scores, truth = draw(rng)
        threshold = choose_threshold(scores, truth, range(ROWS), rule)
        if threshold.guaranteed:
            promised += 1
            value = true_figure(rule.figure, threshold.value, rule.costs)
            broken += value < rule.bound if rule.figure in ("recall", "precision") else value > rule.bound
    slack = 3 * np.sqrt(rule.confidence * (1 - rule.confidence) / DRAWS)
    assert broken / DRAWS <= 1 - rule.confidence + slack
    assert promised > 0.5 * DRAWS, "a promise never made is never broken"


@pytest.mark.parametrize("least", [0.3, 0.6, 0.99])
def test_a_promise_may_be_asked_for_from_a_threshold_on(least):
    scores, truth = draw(np.random.default_rng(7))
    plain = choose_threshold(scores, truth, range(ROWS), ThresholdRule.parse("fpr<=0.2@95%"))
    chosen = choose_threshold(scores, truth, range(ROWS), ThresholdRule.parse(f"fpr<=0.2@95% from {least}"))
    assert chosen.guaranteed
    assert chosen.value == max(least, plain.value)
    assert 0.3 < plain.value < 0.6


@pytest.mark.parametrize("bound", [0.8, 0.9])
def test_what_the_judge_answers_itself_agrees_as_often_as_promised(bound):
    """Confidence is uniform; the chance to be right rises with it from 0.55 to 0.98."""
    rule, rng = ThresholdRule.parse_escalation(f"agreement>={bound}@90%"), np.random.default_rng(3)
    broken, coverage = 0, []
    for _ in range(DRAWS):
        confidence = rng.random(ROWS)
        right = rng.random(ROWS) < 0.55 + 0.43 * confidence
        chosen = choose_escalation(confidence, right, range(ROWS), rule)
        coverage.append(chosen.coverage)
        if chosen.guaranteed:
            broken += 0.55 + 0.43 * (1 + chosen.value) / 2 < bound
    assert broken / DRAWS <= 0.1 + 3 * np.sqrt(0.09 / DRAWS)
    assert np.mean(coverage) > (0.5 if bound == 0.8 else 0.05)


def test_too_few_labels_escalate_everything_and_say_how_many_it_takes():
    chosen = choose_escalation([0.9] * 10, [True] * 10, range(10), ThresholdRule.parse_escalation("agreement>=0.95@95%"))
    assert (chosen.guaranteed, chosen.value) == (False, 1.1)
    assert chosen.needed == labels_needed(0.05, 1 - 0.05 / 4) - 10
    assert choose_escalation([], [], [], ThresholdRule.parse_escalation("agreement>=0.95@95%")).coverage == 0


def test_a_tie_of_confidence_is_answered_whole_or_not_at_all():
    confidence, right = [0.9] * 100 + [0.5] * 100, [True] * 100 + [True] * 60 + [False] * 40
    chosen = choose_escalation(confidence, right, range(200), ThresholdRule.parse_escalation("agreement>=0.95@90%"))
    assert (chosen.value, chosen.coverage) == (0.9, 0.5)


def test_the_cost_bound_is_a_valid_p_value():
    rng = np.random.default_rng(0)
    p = [hoeffding_bentkus(rng.choice([0, 0.2, 1], p=[0.6, 0.2, 0.2], size=200).mean(), 200, 0.24) for _ in range(DRAWS)]
    for level in (0.01, 0.05, 0.2):
        assert np.mean(np.array(p) <= level) <= level + 3 * np.sqrt(level * (1 - level) / DRAWS)


@pytest.mark.parametrize(("bound", "expected"), [(0.01, 0.0), (0.01, 0.002), (0.05, 0.02), (0.1, 0.07)])
def test_the_planned_number_of_labels_is_enough_and_not_needlessly_many(bound, expected):
    wanted = labels_to_promise(bound, 0.95, expected)
    rng, rule = np.random.default_rng(1), ThresholdRule(figure="fpr", bound=bound, confidence=0.95)

    def promised(count):
        """How often the sequence gets as far as a threshold with that error rate: the test at it passes."""
        return np.mean([stats.binom.cdf(wrong, count, rule.bound) <= 0.05 for wrong in rng.binomial(count, expected, 4000)])

    assert promised(wanted) >= 0.78
    if expected:
        assert promised(int(0.75 * wanted)) < 0.8
    else:
        assert wanted == labels_needed(bound, 0.95)


def test_no_number_of_labels_proves_what_is_not_so():
    assert labels_to_promise(0.05, 0.95, 0.05) is None
    assert labels_to_promise(0.05, 0.95, 0.0499) is None


def test_what_could_be_promised_tells_what_it_leaves_or_how_many_labels_are_missing():
    scores, truth = draw(np.random.default_rng(0))
    found = {(p.rule.figure, p.rule.bound): p for p in flagging_promises(scores, truth, range(ROWS))}
    assert found["fpr", 0.1].value is not None
    assert 0.3 < found["fpr", 0.1].leaves < 0.95
    assert (found["fpr", 0.01].value, found["fpr", 0.01].more) == (None, None), "one false positive in 25 at half the recall: labels do not help"
    sharp = {(p.rule.figure, p.rule.bound): p for p in flagging_promises(np.where(truth, scores, scores / 4), truth, range(ROWS))}
    assert sharp["fpr", 0.01].value is None
    assert sharp["fpr", 0.01].counted + sharp["fpr", 0.01].more >= 299
    right = np.random.default_rng(1).random(ROWS) < 0.97
    agreeing = {p.rule.bound: p for p in agreement_promises(np.linspace(0, 1, ROWS), right, range(ROWS))}
    assert agreeing[0.9].leaves == 1.0
    assert agreeing[0.99].value is None
    assert flagging_promises([0.5], [True], [0]) == []


@pytest.mark.parametrize(
    "text",
    [
        "cost<=0.3@95%",
        "cost(fp=1)<=0.3@95%",
        "cost(fp=1,fn=5)<=6@95%",
        "cost(fp=0,fn=5)<=1@95%",
        "agreement>=0.9@95%",
        "fpr(fp=1,fn=2)<=0.1@95%",
        "f1>=0.5@95%",
    ],
)
def test_a_rule_that_cannot_hold_is_refused(text):
    with pytest.raises(RuleInvalid, match="cannot be read"):
        ThresholdRule.parse(text)


@pytest.mark.parametrize("text", ["agreement<=0.9@95%", "fpr<=0.1@95%", "agreement>=1.2@95%", "agreement>=0.9"])
def test_an_escalation_rule_is_one_of_agreement(text):
    with pytest.raises(RuleInvalid, match="escalation rule"):
        ThresholdRule.parse_escalation(text)
