"""Calibration maps against scikit-learn and MAPIE, and against what they must do for labels, levels and parts of the traffic."""

import numpy as np
import pytest
from sklearn import calibration as reference
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from snapjudge.core.calibration import Calibration, CalibrationMap, band
from snapjudge.core.metric import Metric
from snapjudge.core.rules import ThresholdRule
from snapjudge.prove.calibrators import (
    CalibrationData,
    _beta,
    _classwise,
    _cumulative,
    _isotonic,
    _platt,
    _temperature,
    fit_calibration,
    length_edges,
    log_loss,
)
from snapjudge.prove.figures import Scored, figures
from snapjudge.prove.thresholds import choose_threshold

BOOLEAN = Metric(name="m", version=1, type="boolean", inputs=("output",), question="?", labels={"bad": ("yes",), "fine": ("no",)})


def rows(margin):
    return np.stack([-np.log1p(np.exp(-margin)), -np.log1p(np.exp(margin))], 1)


def world(count=4000, seed=0, slope=0.5, offset=-0.7):
    """Overconfident margins: the truth follows slope * margin + offset."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(0, 4, count)
    truth = rng.random(count) < 1 / (1 + np.exp(-(slope * margin + offset)))
    return margin, np.where(truth, 0, 1)


def applied(fitted: CalibrationMap, log_p):
    return np.array([Calibration(**fitted.model_dump()).apply(row) for row in log_p.tolist()])


def test_platt_is_scikit_learns():
    margin, labels = world()
    a, b = reference._sigmoid_calibration(margin, labels == 0)
    fitted = _platt(rows(margin), labels)
    assert fitted.parameters == (pytest.approx(-a, rel=1e-3), pytest.approx(-b, abs=2e-3))


def test_temperature_is_scikit_learns():
    margin, labels = world(offset=0.0)
    theirs = reference._TemperatureScaling().fit(rows(margin), labels)
    (temperature,) = _temperature(rows(margin), labels).parameters
    assert 1 / temperature == pytest.approx(float(theirs.beta_), rel=5e-3)


def test_isotonic_is_scikit_learns_up_to_its_smoothed_targets():
    margin, labels = world()
    theirs = IsotonicRegression(out_of_bounds="clip").fit(margin, labels == 0).predict(margin)
    ours = applied(_isotonic(rows(margin), labels), rows(margin))[:, 0]
    assert np.abs(ours - theirs).max() < 0.01


def test_beta_is_logistic_regression_on_the_two_logarithms():
    margin, labels = world()
    log_p = rows(margin)
    theirs = LogisticRegression(C=np.inf, tol=1e-8, max_iter=2000).fit(np.stack([log_p[:, 0], -log_p[:, 1]], 1), labels == 0)
    ours = _beta(log_p, labels).parameters
    assert ours == (pytest.approx(theirs.coef_[0, 0], abs=0.02), pytest.approx(theirs.coef_[0, 1], abs=0.02), pytest.approx(theirs.intercept_[0], abs=0.02))


@pytest.mark.filterwarnings("ignore")
def test_the_calibration_error_and_the_thresholds_are_mapies():
    mapie = pytest.importorskip("mapie.metrics.calibration")
    control = pytest.importorskip("mapie.risk_control")
    margin, labels = world(2000)
    scores, truth = 1 / (1 + np.exp(-margin)), labels == 0
    data = Scored(np.stack([scores, 1 - scores], 1), labels, scores, scores >= 0.5, np.arange(len(scores)))
    theirs = mapie.expected_calibration_error(truth.astype(int), scores, num_bins=11, split_strategy="uniform")  # it counts edges
    assert figures(data, BOOLEAN, draws=5)["ece"].value == pytest.approx(theirs, abs=1e-9)
    scores = 1 / (1 + np.exp(-margin / 4))  # well spread, for their grid of thresholds
    grid = np.round(np.arange(0.02, 0.99, 0.02), 2)
    for figure, bound, text in (("fpr", 0.1, "fpr<=0.1@90%"), ("recall", 0.8, "recall>=0.8@90%"), ("precision", 0.85, "precision>=0.85@90%")):
        controller = control.BinaryClassificationController(
            lambda x: np.stack([1 - x[:, 0], x[:, 0]], 1), figure, bound, confidence_level=0.9, list_predict_params=grid, fwer_method="bonferroni"
        )
        controller.calibrate(scores[:, None], truth.astype(int))
        valid = np.ravel(controller.valid_predict_params)
        ours = choose_threshold(scores, truth, range(len(scores)), ThresholdRule.parse(text))
        assert ours.guaranteed
        loosest = valid.max() if figure == "recall" else valid.min()
        slack = 0.04  # their grid, and their correction for many tests
        assert ours.value >= loosest - slack if figure == "recall" else ours.value <= loosest + slack


def test_classwise_maps_mend_a_label_that_is_overstated():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (3000, 3))
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    right = np.exp(log_p * np.array([0.3, 1.0, 1.5]) + np.array([0.0, 0.5, 0.0]))
    labels = np.array([rng.choice(3, p=row) for row in right / right.sum(1, keepdims=True)])
    data = CalibrationData([tuple(row) for row in log_p.tolist()], labels.tolist(), range(3000))
    fitted = fit_calibration(data, "choice")
    assert fitted.kind == "classwise"
    ours = applied(_classwise(log_p, labels), log_p)
    for label in range(3):
        high = ours[:, label] > 0.7
        assert abs(ours[high, label].mean() - (labels[high] == label).mean()) < 0.05


def test_levels_are_calibrated_cumulatively_and_stay_probabilities():
    rng = np.random.default_rng(1)
    place = rng.normal(0, 1.5, 3000)
    cuts = np.array([-1.0, 0.2, 1.1])
    below = 1 / (1 + np.exp(-(cuts - place[:, None])))
    p = np.diff(np.c_[np.zeros(3000), below, np.ones(3000)], axis=1)
    labels = np.array([rng.choice(4, p=row) for row in p])
    sharp = 1 / (1 + np.exp(-(2.5 * (cuts - place[:, None]) + 0.8)))
    log_p = np.log(np.maximum(np.diff(np.c_[np.zeros(3000), sharp, np.ones(3000)], axis=1), 1e-9))
    data = CalibrationData([tuple(row) for row in log_p.tolist()], labels.tolist(), range(3000))
    fitted = fit_calibration(data, "score")
    assert fitted.kind == "cumulative"
    slope, *offsets = _cumulative(log_p, labels).parameters
    assert slope == pytest.approx(0.4, abs=0.05)
    assert offsets == sorted(offsets)
    ours = np.array([fitted.apply(row) for row in data.log_p])
    assert ours.sum(1) == pytest.approx(np.ones(3000))
    assert fitted.log_loss["cumulative"] < fitted.log_loss["temperature"] - 0.01
    truth = -np.log(p[np.arange(3000), labels]).mean()
    assert log_loss(fitted, data.log_p, data.labels) < truth + 0.01
    extreme = fitted.apply((-1e-9, -40.0, -60.0, -80.0))
    assert all(0 <= value <= 1 for value in extreme)


def test_parts_of_the_traffic_have_maps_of_their_own_where_that_helps():
    margin, labels = world(3000)
    other = np.arange(3000) % 3 == 0
    labels = np.where(other & (margin > 0), 1 - labels, labels)
    parts = ["chat" if flag else "mail" for flag in other]
    data = CalibrationData([tuple(row) for row in rows(margin).tolist()], labels.tolist(), range(3000), parts)
    fitted = fit_calibration(data, "boolean", by="source")
    assert set(fitted.parts) == {"chat", "mail"}
    assert fitted.part_of(10, "chat") == "chat"
    assert fitted.part_of(10, "fax") == ""
    row = data.log_p[0]
    assert fitted.apply(row, "fax") == fitted.apply(row)
    for name in ("chat", "mail"):
        own = data.take([place for place, part in enumerate(parts) if part == name])
        assert log_loss(fitted, own.log_p, own.labels, own.parts) < log_loss(fitted, own.log_p, own.labels) - 0.01
    same = fit_calibration(CalibrationData(data.log_p, world(3000)[1].tolist(), range(3000), parts), "boolean", by="source")
    assert same.log_loss[f"{same.kind} by source"] >= same.log_loss[same.kind] - 1e-3
    few = fit_calibration(data.take(range(60)), "boolean", by="source")
    assert few.parts == {}


def test_lengths_fall_into_bands_with_names():
    edges = length_edges([10, 20, 30, 40, 50, 60, 70, 80, 90])
    assert [band(length, edges) for length in (0, edges[0], edges[0] + 1, 1000)] == [
        f"0 to {edges[0]:g}",
        f"0 to {edges[0]:g}",
        f"{edges[0]:g} to {edges[1]:g}",
        f"{edges[1]:g} to more",
    ]
    assert length_edges([5] * 10) == (5.0,)


def test_an_extreme_text_does_not_overflow_a_cumulative_map():
    found = Calibration(kind="cumulative", parameters=(30.0, -40.0, -40.0)).apply((-30.0, -7.0, -0.001))
    assert sum(found) == pytest.approx(1.0)
