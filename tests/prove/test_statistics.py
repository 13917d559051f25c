"""Figures against scikit-learn, intervals and guarantees against simulation, calibrators against what they must not do."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from snapjudge.core.calibration import Calibration
from snapjudge.core.metric import Metric
from snapjudge.core.rules import ThresholdRule
from snapjudge.prove import baselines
from snapjudge.prove.baselines import BaselineData
from snapjudge.prove.calibrators import CalibrationData, fit_calibration, log_loss
from snapjudge.prove.figures import Scored, compare, figure_names, figures, wilson
from snapjudge.prove.thresholds import choose_threshold, labels_needed

BOOLEAN = Metric(name="m", version=1, type="boolean", inputs=("output",), question="?", labels={"bad": ("yes",), "fine": ("no",)})
CHOICE = Metric(name="m", version=1, type="choice", inputs=("output",), question="?", labels={c: (c,) for c in "xyz"})
SCORE = Metric(name="m", version=1, type="score", inputs=("output",), question="?", labels={c: (c,) for c in "1234"})


def boolean_data(n, seed, *, groups=None, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    scores = np.clip(rng.normal(0.35 + 0.3 * (labels == 0), 0.2, n), 0.001, 0.999)
    if ties:
        scores = np.round(scores, 1).clip(0.05, 0.95)
    p = np.stack([scores, 1 - scores], 1)
    return Scored(p, labels, scores, scores >= 0.5, np.arange(n) if groups is None else groups)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_point_figures_are_scikit_learns(seed, ties):
    data = boolean_data(300, seed, ties=ties)
    found = {name: figure.value for name, figure in figures(data, BOOLEAN, draws=20).items()}
    truth, p = data.labels == 0, data.scores
    expected = {
        "f1": reference.f1_score(truth, data.flagged),
        "precision": reference.precision_score(truth, data.flagged),
        "recall": reference.recall_score(truth, data.flagged),
        "fpr": (data.flagged & ~truth).sum() / (~truth).sum(),
        "balanced_accuracy": reference.balanced_accuracy_score(truth, data.flagged),
        "auroc": reference.roc_auc_score(truth, p),
        "auprc": reference.average_precision_score(truth, p),
        "log_loss": reference.log_loss(truth, p),
        "brier": reference.brier_score_loss(truth, p),
    }
    fpr, tpr, _ = reference.roc_curve(truth, p, drop_intermediate=False)
    expected["recall_at_1_fpr"] = tpr[fpr <= 0.01].max()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-10), name


def test_figures_over_many_labels_are_scikit_learns():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], 400)
    labels = np.array([rng.choice(3, p=row) for row in p])
    data = Scored(p, labels, p.max(1), np.zeros(400, bool), np.arange(400))
    found = {name: figure.value for name, figure in figures(data, CHOICE, draws=20).items()}
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, p.argmax(1)))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(labels, p.argmax(1), average="macro"))
    assert found["macro_auroc"] == pytest.approx(reference.roc_auc_score(labels, p, multi_class="ovr"))
    assert found["log_loss"] == pytest.approx(reference.log_loss(labels, p))


def test_figures_of_levels_are_scikit_learns_and_numpys():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1, 1], 300)
    labels = np.array([rng.choice(4, p=row) for row in p])
    data = Scored(p, labels, p @ np.arange(4) / 3, np.zeros(300, bool), np.arange(300))
    found = {name: figure.value for name, figure in figures(data, SCORE, draws=20).items()}
    assert found["weighted_kappa"] == pytest.approx(reference.cohen_kappa_score(labels, p.argmax(1), weights="quadratic"))
    assert found["pearson"] == pytest.approx(np.corrcoef(p @ np.arange(4), labels)[0, 1])
    assert found["mae"] == pytest.approx(np.abs(p @ np.arange(4) - labels).mean())


def test_bootstrap_intervals_hold_the_truth_about_as_often_as_they_say():
    truth = figures(boolean_data(40_000, 99), BOOLEAN, draws=2)["auroc"].value
    inside = 0
    for seed in range(120):
        figure = figures(boolean_data(150, seed), BOOLEAN, draws=200, seed=seed)["auroc"]
        inside += figure.low <= truth <= figure.high
    assert 0.88 <= inside / 120 <= 0.99


def test_groups_widen_the_interval():
    single = boolean_data(200, 1)
    repeated = single.take(np.repeat(np.arange(200), 5))
    grouped = figures(repeated, BOOLEAN)["auroc"]
    alone = figures(single, BOOLEAN)["auroc"]
    assert grouped.value == pytest.approx(alone.value)
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.15)


@pytest.mark.parametrize("metric", [BOOLEAN, CHOICE, SCORE, SCORE.model_copy(update={"positive": ("1",)})], ids=lambda m: m.type)
def test_the_figures_found_are_the_ones_named(metric):
    rng = np.random.default_rng(0)
    count = len(metric.labels)
    p = rng.dirichlet(np.ones(count), 300)
    labels = np.array([rng.choice(count, p=row) for row in p])
    data = Scored(p, labels, p[:, 0], p[:, 0] > 0.3, np.arange(300))
    assert tuple(figures(data, metric, draws=5)) == figure_names(metric)


def test_a_figure_the_data_cannot_give_is_missing_not_zero():
    data = boolean_data(50, 0)
    quiet = Scored(data.probabilities, data.labels, data.scores, np.zeros(50, bool), data.groups)
    assert "precision" not in figures(quiet, BOOLEAN, draws=20)
    one_class = data.take(data.labels == 0)
    assert "auroc" not in figures(one_class, BOOLEAN, draws=20)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_in_range(pair):
    low, high = wilson(*pair)
    assert 0 <= low <= pair[0] / pair[1] + 1e-9
    assert pair[0] / pair[1] - 1e-9 <= high <= 1


def test_the_paired_difference_is_zero_for_the_same_scorer_and_clear_for_a_better_one():
    data = boolean_data(400, 3)
    assert compare(data, data, BOOLEAN).difference == 0
    noise = Scored(data.probabilities, data.labels, np.random.default_rng(0).random(400), data.flagged, data.groups)
    assert compare(data, noise, BOOLEAN).low > 0


RULES = ["fpr<=0.1@95%", "recall>=0.8@95%", "precision>=0.8@90%"]


def true_rate(rule, threshold):
    data = boolean_data(60_000, 12345)
    truth, flagged = data.labels == 0, data.scores >= threshold
    if rule.figure == "fpr":
        return (flagged & ~truth).sum() / (~truth).sum() <= rule.bound
    if rule.figure == "recall":
        return (flagged & truth).sum() / truth.sum() >= rule.bound
    return flagged.sum() == 0 or (flagged & truth).sum() / flagged.sum() >= rule.bound


@pytest.mark.parametrize("text", RULES)
def test_a_guaranteed_threshold_keeps_its_promise_as_often_as_it_says(text):
    rule, kept, promised = ThresholdRule.parse(text), 0, 0
    for seed in range(300):
        data = boolean_data(240, seed)
        threshold = choose_threshold(data.scores, data.labels == 0, data.groups, rule)
        if threshold.guaranteed:
            promised += 1
            kept += bool(true_rate(rule, threshold.value))
    assert promised > 150
    assert kept / promised >= rule.confidence - 2.5 * math.sqrt(0.05 * 0.95 / promised)


def test_a_threshold_is_not_needlessly_strict():
    """With plenty of data the false-positive rate comes close to what was allowed."""
    data = boolean_data(6000, 7)
    threshold = choose_threshold(data.scores, data.labels == 0, data.groups, ThresholdRule.parse("fpr<=0.1@95%"))
    assert ((data.scores >= threshold.value) & (data.labels == 1)).sum() / (data.labels == 1).sum() > 0.08


def test_too_little_data_says_how_many_more_labels_are_needed():
    threshold = choose_threshold([0.9, 0.1] * 20, [True, False] * 20, range(40), ThresholdRule.parse("fpr<=0.02@95%"))
    assert not threshold.guaranteed
    assert threshold.needed == labels_needed(0.02, 0.95) - 20 == 129
    assert threshold.value == 0.5


def test_a_negative_behind_a_positive_of_its_group_is_counted():
    """In contrast pairs the hard negative stands behind its positive; leaving it out would prove the promise on the easy ones."""
    scores, positive, groups = [], [], []
    for pair in range(100):
        scores += [0.9, 0.95]
        positive += [True, False]
        groups += [pair, pair]
    threshold = choose_threshold(scores, positive, groups, ThresholdRule.parse("fpr<=0.05@95%"))
    assert threshold.counted == 100
    assert threshold.value > 0.95


def test_a_negative_at_exactly_one_cannot_break_the_promise():
    threshold = choose_threshold([1.0] + [0.1] * 149 + [1.0] * 10, [False] * 150 + [True] * 10, range(160), ThresholdRule.parse("fpr<=0.02@95%"))
    assert threshold.guaranteed
    assert threshold.value > 1.0


def test_a_pairs_calibration_treats_both_sides_alike():
    rng = np.random.default_rng(0)
    margin = rng.normal(1, 2, 400)
    labels = (rng.random(400) > 0.8).astype(int).tolist()
    fitted = fit_calibration(CalibrationData(log_rows(margin), labels, range(400)), "pairwise")
    (a, b), (mirror_b, mirror_a) = fitted.apply((-0.2, -1.7)), fitted.apply((-1.7, -0.2))
    assert (a, b) == pytest.approx((mirror_a, mirror_b))


def test_examples_of_one_group_count_once():
    scores, positive = [0.9, 0.1] * 200, [True, False] * 200
    one_group_each = choose_threshold(scores, positive, range(400), ThresholdRule.parse("fpr<=0.05@95%"))
    few_groups = choose_threshold(scores, positive, [index % 20 for index in range(400)], ThresholdRule.parse("fpr<=0.05@95%"))
    assert one_group_each.guaranteed
    assert not few_groups.guaranteed


def log_rows(margins):
    p = 1 / (1 + np.exp(-np.asarray(margins)))
    return [(math.log(a), math.log(1 - a)) for a in np.clip(p, 1e-12, 1 - 1e-12)]


def test_calibration_mends_overconfidence_and_bias():
    rng = np.random.default_rng(0)
    true_margin = rng.normal(0, 1.5, 3000)
    labels = (rng.random(3000) > 1 / (1 + np.exp(-true_margin))).astype(int)
    rows = log_rows(4 * true_margin + 2)
    fitted = fit_calibration(CalibrationData(rows[:1500], labels[:1500].tolist(), list(range(1500))), "boolean")
    before, after = (log_loss(c, rows[1500:], labels[1500:].tolist()) for c in (Calibration(), fitted))
    best = log_loss(Calibration(), log_rows(true_margin[1500:]), labels[1500:].tolist())
    assert after < before
    assert after == pytest.approx(best, abs=0.01)


def test_separable_and_tiny_data_give_finite_probabilities():
    fitted = fit_calibration(CalibrationData(log_rows([8.0, 7.0, -8.0, -7.0]), [0, 0, 1, 1], [0, 1, 2, 3]), "boolean")
    assert 0.5 < fitted.apply(log_rows([9.0])[0])[0] < 1


def test_a_stated_prevalence_moves_the_probabilities_to_it():
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 2, 2000)
    labels = (rng.random(2000) > 1 / (1 + np.exp(-margin))).astype(int).tolist()
    rows = log_rows(margin)
    data = CalibrationData(rows, labels, range(2000))
    plain, rare = fit_calibration(data, "boolean"), fit_calibration(data, "boolean", prevalence=(0.01, 0.99))
    shift = math.log(0.01 / 0.99) - math.log(np.mean(np.array(labels) == 0) / np.mean(np.array(labels) == 1))
    logit = [math.log(p[0] / p[1]) for p in (plain.apply(rows[0]), rare.apply(rows[0]))]
    assert logit[1] - logit[0] == pytest.approx(shift, abs=0.01)


def test_many_labels_are_calibrated_too():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (1500, 4))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = [int(rng.choice(4, p=row)) for row in p]
    sharp = [tuple(row) for row in (3 * logits - np.log(np.exp(3 * logits).sum(1, keepdims=True))).tolist()]
    fitted = fit_calibration(CalibrationData(sharp, labels, range(1500)), "choice")
    assert fitted.kind in ("temperature", "platt")
    assert log_loss(fitted, sharp, labels) < log_loss(Calibration(), sharp, labels) - 0.1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.booleans(), min_size=8, max_size=40).filter(lambda flags: 2 <= sum(flags) <= len(flags) - 2))
def test_fitting_never_fails_on_small_data(flags):
    rows = log_rows([1.0 if flag else -1.0 for flag in flags])
    fitted = fit_calibration(CalibrationData(rows, [0 if flag else 1 for flag in flags], range(len(flags))), "boolean")
    assert all(math.isfinite(value) for value in fitted.apply(rows[0]))


def test_baselines_learn_what_words_and_vectors_show():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300).tolist()
    texts = [("buy now " if label == 0 else "hello there ") + str(n) for n, label in enumerate(labels)]
    vectors = rng.normal(0, 1, (300, 8)) + np.array(labels)[:, None]
    parts = [BaselineData(texts[s], vectors[s], labels[s]) for s in (slice(0, 150), slice(150, 200), slice(200, 300))]
    for method in (baselines.tfidf, baselines.embedding):
        (log_p,) = method(parts[0], parts[1], [parts[2]], 2)
        assert log_p.shape == (100, 2)
        assert reference.roc_auc_score(np.array(parts[2].labels) == 0, log_p[:, 0]) > 0.9
    (shares,) = baselines.majority(parts[0], [parts[2]], 2)
    assert np.exp(shares).sum(1) == pytest.approx(1)


def test_texts_without_words_fall_back_to_the_majority():
    data = BaselineData(["\U0001f600", "\U0001f603"] * 5, np.zeros((10, 2)), [0, 1] * 5)
    (log_p,) = baselines.tfidf(data, data, [data], 2)
    assert np.exp(log_p[0, 0]) == pytest.approx(0.5)


def test_a_perfect_small_test_is_not_taken_for_certainty():
    scores = np.r_[np.full(10, 0.9), np.full(10, 0.1)]
    labels = np.r_[np.zeros(10, dtype=int), np.ones(10, dtype=int)]
    found = figures(Scored(np.stack([scores, 1 - scores], 1), labels, scores, scores > 0.5, np.arange(20)), BOOLEAN)
    assert found["auroc"].value == found["f1"].value == 1.0
    assert found["auroc"].low < 0.8
    assert found["f1"].low < 0.8


def test_rates_without_an_error_count_the_groups_they_are_of():
    scores = np.r_[np.full(90, 0.9), np.full(300, 0.1)]
    labels = np.r_[np.zeros(90, dtype=int), np.ones(300, dtype=int)]
    groups = np.r_[np.repeat([0, 1], 45), np.arange(2, 302)]
    found = figures(Scored(np.stack([scores, 1 - scores], 1), labels, scores, scores > 0.5, groups), BOOLEAN)
    assert found["recall"].low < 0.4, "two conversations are two tries"
    assert found["fpr"].high < 0.03


def test_the_calibration_errors_interval_holds_none_for_a_calibrated_judge():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(40):
        scores = rng.random(150)
        labels = (rng.random(150) >= scores).astype(int)
        found = figures(Scored(np.stack([scores, 1 - scores], 1), labels, scores, scores > 0.5, np.arange(150)), BOOLEAN, draws=200)
        held += found["ece"].low <= 0.02
    assert held >= 30


def test_figures_of_probabilities_weigh_the_test_to_the_stated_prevalence():
    rng = np.random.default_rng(0)
    truth = rng.random(4000) < 0.4
    margin = rng.normal(np.where(truth, 1.0, -1.0), np.sqrt(2.0))
    logit = margin + math.log(0.01 / 0.99)  # calibrated where one in a hundred is flagged
    scores = 1 / (1 + np.exp(-logit))
    labels, weights = np.where(truth, 0, 1), np.where(truth, 0.01 / truth.mean(), 0.99 / (1 - truth.mean()))
    rows = np.stack([scores, 1 - scores], 1)
    plain = figures(Scored(rows, labels, scores, scores > 0.5, np.arange(4000)), BOOLEAN, draws=20)
    weighed = figures(Scored(rows, labels, scores, scores > 0.5, np.arange(4000), weights), BOOLEAN, draws=20)
    assert plain["ece"].value > 0.2
    assert weighed["ece"].value < 0.02
