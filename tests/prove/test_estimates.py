"""Estimated rates: against ppi_py's, and their intervals against the truth in simulations."""

import numpy as np
import pytest

from snapjudge.errors import InputInvalid
from snapjudge.prove.estimates import Traffic, classical, corrected, expected_error, power_weight, ppi_mean, prediction_powered, sampling_plan

DRAWS = 2000


def world(rng, rate, size=4000, sharpness=3.0, bias=0.0):
    """Truth and a judge's scores on it: calibrated, but for `bias` on the log-odds."""
    truth = rng.random(size) < rate
    margin = rng.normal(np.where(truth, sharpness / 2, -sharpness / 2), np.sqrt(sharpness)) + np.log(rate / (1 - rate)) + bias
    return truth, 1 / (1 + np.exp(-margin))


def sampled(rng, truth, scores, labels):
    places = rng.choice(len(truth), labels, replace=False)
    return Traffic(scores, places, truth[places], np.full(labels, labels / len(truth)))


@pytest.mark.parametrize(("rate", "labels", "bias"), [(0.3, 100, 0.0), (0.3, 100, 2.0), (0.05, 200, 0.0), (0.05, 200, -2.0), (0.02, 100, 1.0), (0.5, 60, 0.0)])
def test_intervals_hold_the_true_rate_as_often_as_they_say(rate, labels, bias):
    rng = np.random.default_rng(5)
    found = {"labels alone": [], "prediction-powered": []}
    for _ in range(DRAWS):
        truth, scores = world(rng, rate, bias=bias)
        traffic = sampled(rng, truth, scores, labels)
        for one in (classical(traffic), prediction_powered(traffic)):
            found[one.method].append((one.low <= rate <= one.high, one.high - one.low, one.value))
    for method, rows in found.items():
        held, _, values = np.array(rows).T
        assert held.mean() >= 0.95 - 3.5 * np.sqrt(0.95 * 0.05 / DRAWS) - 0.01, method
        assert abs(values.mean() - rate) < 4 * values.std() / np.sqrt(DRAWS) + 1e-3, method
    widths = {method: np.mean([row[1] for row in rows]) for method, rows in found.items()}
    if rate >= 0.3:
        assert widths["prediction-powered"] < 0.9 * widths["labels alone"], "a useful judge makes the interval narrower"


def test_a_useless_judge_does_no_harm():
    rng = np.random.default_rng(0)
    truth = rng.random(4000) < 0.3
    traffic = sampled(rng, truth, rng.random(4000), 150)
    assert power_weight(traffic) < 0.3
    assert prediction_powered(traffic).high - prediction_powered(traffic).low < 1.06 * (classical(traffic).high - classical(traffic).low)


def test_the_estimate_is_ppi_pys():
    reference = pytest.importorskip("ppi_py")
    rng = np.random.default_rng(2)
    truth, scores = world(rng, 0.3)
    traffic = sampled(rng, truth, scores, 200)
    y, f, others = truth[traffic.places].astype(float), scores[traffic.places], np.delete(scores, traffic.places)
    for weight in (1.0, power_weight(traffic)):
        value, error = ppi_mean(traffic, weight)
        assert value == pytest.approx(float(np.ravel(reference.ppi_mean_pointestimate(y, f, others, lam=weight))[0]))
        low, high = (float(np.ravel(end)[0]) for end in reference.ppi_mean_ci(y, f, others, alpha=0.05, lam=weight))
        assert (value - 1.959964 * error, value + 1.959964 * error) == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))
    tuned = float(np.ravel(reference.ppi_mean_pointestimate(y, f, others))[0])
    assert ppi_mean(traffic, power_weight(traffic))[0] == pytest.approx(tuned, abs=2e-3)


def test_draws_of_unequal_probability_are_unbiased_hold_and_need_fewer_labels():
    rng = np.random.default_rng(3)
    held, widths, values = [], [], []
    for _ in range(DRAWS):
        truth, scores = world(rng, 0.2, size=3000, bias=0.5)
        plan = sampling_plan(scores, 150)
        places = np.flatnonzero(rng.random(3000) < plan)
        one = prediction_powered(Traffic(scores, places, truth[places], plan[places]))
        held.append(one.low <= 0.2 <= one.high)
        widths.append(one.error)
        values.append(one.value)
    assert np.mean(held) >= 0.94
    assert abs(np.mean(values) - 0.2) < 0.003
    truth, scores = world(rng, 0.2, size=3000)
    uniform = np.full(3000, 150 / 3000)
    assert expected_error(scores, sampling_plan(scores, 150)) < 0.93 * expected_error(scores, uniform)


@pytest.mark.parametrize("rate", [0.02, 0.2, 0.6])
def test_the_corrected_rate_holds_where_sensitivity_and_specificity_do(rate):
    rng = np.random.default_rng(4)
    held = []
    for _ in range(DRAWS):
        flagged = rng.binomial(2000, rate * 0.85 + (1 - rate) * 0.08)
        one = corrected(flagged, 2000, rng.binomial(120, 0.85), 120, rng.binomial(250, 0.92), 250)
        held.append(one.low <= rate <= one.high)
    assert 0.93 <= np.mean(held) <= 0.99


def test_a_plan_adds_up_to_its_budget_and_no_row_is_more_than_certain():
    scores = np.r_[np.full(20, 0.5), np.full(980, 0.001)]
    plan = sampling_plan(scores, 100)
    assert plan.sum() == pytest.approx(100)
    assert plan.max() <= 1
    assert plan.min() > 0
    assert sampling_plan(scores, 5000) == pytest.approx(np.ones(1000))


def test_what_cannot_be_estimated_is_refused():
    with pytest.raises(InputInvalid, match="random sample"):
        classical(Traffic(np.full(10, 0.5), np.arange(2), np.array([True, False]), np.full(2, 0.2)))
    with pytest.raises(InputInvalid, match="outside"):
        prediction_powered(Traffic(np.full(10, 0.5), np.arange(6), np.ones(6, dtype=bool), np.zeros(6)))
    with pytest.raises(InputInvalid, match="next to nothing"):
        corrected(10, 100, 10, 100, 90, 100)
    with pytest.raises(InputInvalid, match="needs"):
        corrected(10, 100, 0, 0, 90, 100)


def test_no_failure_among_few_labels_is_not_taken_for_certainty():
    traffic = Traffic(np.full(1000, 0.01), np.arange(50), np.zeros(50, dtype=bool), np.full(50, 0.05))
    assert prediction_powered(traffic).high > 0.05


def test_a_judge_that_is_never_right_about_negatives_corrects_nothing():
    with pytest.raises(InputInvalid, match="next to nothing"):
        corrected(60, 100, 100, 100, 0, 3)
