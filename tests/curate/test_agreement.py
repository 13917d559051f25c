"""Agreement against published worked examples, and what is undefined is said to be."""

import numpy as np
import pytest

from snapjudge.curate.agreement import MISSING, agreement, confusion, to_adjudicate, vote_counts
from snapjudge.errors import InputInvalid


def votes_of(counts):
    """Some votes with these counts per item."""
    rows = [[label for label, count in enumerate(row) for _ in range(count)] for row in counts]
    width = max(map(len, rows))
    return np.array([row + [MISSING] * (width - len(row)) for row in rows])


def pairs_of(table):
    """Two labelers' votes with this table of counts."""
    return np.array([[first, second] for first, row in enumerate(table) for second, count in enumerate(row) for _ in range(count)])


def test_fleiss_kappa_of_fourteen_raters():
    """The worked example of the encyclopedia's article on Fleiss' kappa: 10 subjects, 14 raters, 5 categories, 0.210."""
    counts = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    found = agreement(votes_of(counts), 5, draws=200)
    assert found.raw.value == pytest.approx(0.378, abs=5e-4)
    assert found.fleiss.value == pytest.approx(0.210, abs=5e-4)
    assert found.fleiss.low < 0.210 < found.fleiss.high


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_krippendorff_s_own_example(level, alpha):
    """Computing Krippendorff's Alpha-Reliability (2011), part C: four observers, twelve units, missing data."""
    votes = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ]
    ).T
    found = agreement(votes - 1, 5, level=level, draws=100)
    assert found.alpha.value == pytest.approx(alpha, abs=5e-4)
    assert (found.items, found.single) == (11, 1)


def test_cohen_s_kappa_of_two_readers():
    """The grants example of the encyclopedia's article on Cohen's kappa: 0.4."""
    found = agreement(pairs_of([[20, 5], [10, 15]]), 2, draws=500)
    ((first, second, both, kappa),) = found.pairs
    assert (first, second, both) == (0, 1, 50)
    assert kappa.value == pytest.approx(0.4)
    assert kappa.low < 0.4 < kappa.high


def test_gwet_s_ac1_where_kappa_fails():
    """Gwet (2008), 125 patients of whom two readers call nearly all positive: agreement 0.944, kappa below 0, AC1 0.941."""
    found = agreement(pairs_of([[118, 5], [2, 0]]), 2, draws=100)
    assert found.raw.value == pytest.approx(0.944)
    assert found.pairs[0][3].value == pytest.approx(-0.023, abs=1e-3)
    assert found.ac1.value == pytest.approx(0.9408, abs=5e-4)


def test_perfect_agreement_on_one_label_has_no_kappa_and_on_two_has_one():
    one = agreement(np.zeros((20, 3), dtype=int), 2, draws=50)
    assert one.raw.value == 1
    assert one.fleiss.value is None
    assert one.alpha.value is None
    two = agreement(np.array([[0, 0]] * 10 + [[1, 1]] * 10), 2, draws=50)
    assert two.fleiss.value == two.alpha.value == two.per_label[0].value == 1


def test_intervals_cover_the_truth_as_often_as_they_say():
    """Two readers who agree with probability 0.8 beyond nothing: the interval of raw agreement holds it about 95 times in 100."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        first = rng.integers(0, 2, 150)
        second = np.where(rng.random(150) < 0.8, first, 1 - first)
        raw = agreement(np.stack([first, second], 1), 2, draws=300, seed=seed).raw
        held += raw.low <= 0.8 <= raw.high
    assert 180 <= held <= 199


def test_what_to_adjudicate_comes_most_informative_first():
    counts = np.array([[3, 0], [2, 1], [2, 2], [1, 1], [0, 4], [3, 1]])
    assert to_adjudicate(counts).tolist() == [2, 3, 1, 5]


def test_a_labeler_s_confusion_is_against_what_most_others_said():
    votes = np.array([[0, 0, 1], [0, 0, 0], [1, 1, 1], [1, 0, 1], [MISSING, 1, 0], [1, 1, MISSING]])
    assert confusion(votes, 2, labeler=2).tolist() == [[1, 1], [1, 1]]
    assert vote_counts(votes, 2).tolist()[4] == [1, 1]


def test_votes_that_tell_nothing_are_refused():
    with pytest.raises(InputInvalid, match="two votes"):
        agreement(np.array([[0, MISSING], [MISSING, 1]]), 2)
    with pytest.raises(InputInvalid, match="label 7"):
        agreement(np.array([[0, 7]]), 2)


def test_a_hundred_thousand_items_are_as_many_patterns_as_there_are_ways_to_vote():
    votes = np.random.default_rng(1).integers(0, 4, (100_000, 5))
    found = agreement(votes, 4)
    assert found.items == 100_000
    assert found.fleiss.low < 0 < found.fleiss.high
    assert found.fleiss.high - found.fleiss.low < 0.01
