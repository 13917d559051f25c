"""Is the new version better, and did it lose what was won?"""

import json

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from snapjudge.cli.main import app
from snapjudge.core.calibration import Calibration
from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Silent
from snapjudge.curate.dataset import Dataset
from snapjudge.curate.suite import add_rows, read_suite
from snapjudge.errors import DataInvalid, DataLeak, OptionInvalid
from snapjudge.flows.compare_judges import CompareRequest, check_suite, compare, grow_suite
from snapjudge.flows.importing import ImportRequest, import_data
from snapjudge.flows.labelling import add_label
from snapjudge.flows.metric_files import read_metric
from snapjudge.flows.train_judge import train_judge
from snapjudge.flows.train_terms import TrainConfig, TrainRequest
from snapjudge.prove.comparison import compare_judges, mcnemar
from snapjudge.prove.proof import scored
from snapjudge.train.terms import FitConfig

METRIC = Metric(name="m", version=1, type="boolean", inputs=("output",), question="?", labels={"bad": ("yes",), "fine": ("no",)})


def answers(rows, sharp, seed):
    margin = np.random.default_rng(seed).normal(np.where([row.label_index == 0 for row in rows], sharp, -sharp), 1.0)
    return scored([(float(-np.log1p(np.exp(-m))), float(-np.log1p(np.exp(m)))) for m in margin], Calibration(), METRIC, rows)


@pytest.fixture
def rows():
    return [Example(id=str(n), inputs={"output": f"text {n}"}, target=(1.0, 0.0) if n % 2 else (0.0, 1.0)) for n in range(500)]


def between(rows, first, second):
    return compare_judges(("a@1", "b@2"), (first[0], second[0]), (first[1], second[1]), METRIC, rows)


def test_a_better_judge_is_told_better_and_a_worse_one_worse(rows):
    weak, strong = answers(rows, 0.7, 1), answers(rows, 2.0, 2)
    up, down = between(rows, weak, strong), between(rows, strong, weak)
    assert not up.is_worse
    assert "better than a@1" in up.verdict
    assert down.is_worse
    assert {"auroc", "f1", "fpr"} <= set(down.worse)
    assert (up.fixed_count, up.broken_count) == (down.broken_count, down.fixed_count)
    gaps = {one.name: one for one in up.differences}
    assert gaps["auroc"].difference == pytest.approx(gaps["auroc"].second.value - gaps["auroc"].first.value)
    assert gaps["fpr"].high < 0
    assert all(row.truth == "bad" for row in up.fixed if row.second == "flagged")


def test_the_same_judge_twice_is_told_the_same(rows):
    found = between(rows, answers(rows, 1.0, 1), answers(rows, 1.0, 1))
    assert (found.fixed_count, found.broken_count, found.mcnemar_p, found.worse) == (0, 0, 1.0, ())
    assert all(one.difference == 0 for one in found.differences)


def test_equal_judges_are_rarely_told_apart(rows):
    told = [between(rows, answers(rows, 1.0, n), answers(rows, 1.0, 100 + n)).is_worse for n in range(20)]
    assert sum(told) <= 3


def test_mcnemars_test_is_the_exact_one():
    assert mcnemar(12, 3) == pytest.approx(2 * stats.binom.cdf(3, 15, 0.5))
    assert mcnemar(0, 0) == 1.0


@pytest.fixture(scope="module")
def second(workshop, tmp_path_factory):
    """Another version of the workshop's judge, trained for no longer than it must."""
    folder, _ = workshop
    config = TrainConfig(scope="readout", probes=0, fit=FitConfig(rank=2, alpha=4, batch=16, epochs=1, cache_gb=0.1, seed=3))
    return train_judge(TrainRequest(folder / "metric.yaml", [folder / "data.jsonl"], tmp_path_factory.mktemp("second")), config)


@pytest.mark.flow
def test_two_versions_are_compared_on_new_data(workshop, second, tmp_path):
    folder, result = workshop
    found = compare(CompareRequest(str(result.folder), str(second.folder), [folder / "new.jsonl"], tmp_path / "out"), Silent())
    assert found.examples == 60
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "McNemar" in page
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["first"] == "says_buy@1"


@pytest.mark.flow
def test_a_suite_grows_from_settled_errors_and_gates(workshop, second, tmp_path):
    folder, result = workshop
    metric = read_metric(folder / "metric.yaml")
    dataset, suite = Dataset(tmp_path / "ds"), tmp_path / "suite.jsonl"
    import_data(ImportRequest(folder / "new.jsonl", dataset, metric), Silent())
    with pytest.raises(OptionInvalid, match="adjudicated"):
        grow_suite(str(result.folder), dataset.folder, suite, Silent())
    with pytest.raises(OptionInvalid, match="no rows"):
        check_suite(str(result.folder), suite, Silent(), update=False)
    for n in range(20):  # half of the labels turned round, so that any judge is wrong on some
        add_label(dataset.folder, metric, f"ne{n}", "bad" if n < 10 else "fine", "lead", adjudication=True)
    wrong, added = grow_suite(str(result.folder), dataset.folder, suite, Silent())
    assert 0 < wrong == added <= 20
    assert grow_suite(str(result.folder), dataset.folder, suite, Silent()) == (wrong, 0)
    own = check_suite(str(result.folder), suite, Silent(), update=True)
    assert (own.lost, own.won, own.open, own.passed) == ((), (), wrong, True)
    opposite = [e.model_copy(update={"id": f"r{e.id}", "target": e.target[::-1]}) for e in read_suite(suite, metric).examples]
    add_rows(suite, opposite, metric)  # rows that the first judge gets right
    assert len(check_suite(str(result.folder), suite, Silent(), update=True).won) == wrong
    config = TrainConfig(scope="readout", probes=0, fit=FitConfig(rank=2, alpha=4, batch=16, epochs=1, cache_gb=0.1, seed=5))
    gated = train_judge(TrainRequest(folder / "metric.yaml", [folder / "data.jsonl"], tmp_path / "gated", suite=suite), config)
    (gate,) = gated.proof.gates
    assert bool(gate.found) == any("are lost" in note for note in gated.proof.notes)
    assert gate.passed == (check_suite(str(gated.folder), suite, Silent(), update=False).lost == ())
    again = check_suite(str(second.folder), suite, Silent(), update=False)
    assert len(again.lost) + len([name for name in read_suite(suite, metric).held if name not in again.lost]) == wrong
    done = CliRunner().invoke(app, ["suite", "check", str(suite), "--judge", str(second.folder)])
    assert done.exit_code == (1 if again.lost else 0)


def test_a_suite_with_a_broken_line_is_refused(tmp_path):
    for text in ("broken\n", '{"id": "1", "inputs": {"output": "x"}}\n', '{"held": 1}\n'):
        (tmp_path / "s.jsonl").write_text(text)
        with pytest.raises(DataInvalid):
            read_suite(tmp_path / "s.jsonl", METRIC)


def test_one_conversation_is_one_toss(rows):
    from snapjudge.core.example import Provenance

    grouped = [row.model_copy(update={"provenance": Provenance(group=f"g{min(n // 25, 1)}" if n < 50 else f"g{n}")}) for n, row in enumerate(rows)]
    good = answers(grouped, 6.0, 1)
    labels = np.array([row.label_index for row in grouped])
    margin = np.where(labels == 0, 6.0, -6.0)
    margin[:25] *= -1  # one conversation of 25 rows goes wrong
    bad = scored([(float(-np.log1p(np.exp(-m))), float(-np.log1p(np.exp(m)))) for m in margin], Calibration(), METRIC, grouped)
    found = between(grouped, good, bad)
    assert found.broken_count == 25
    assert found.mcnemar_p == 1.0


@pytest.mark.flow
def test_comparing_on_texts_one_was_trained_on_is_refused(workshop, second):
    folder, result = workshop
    with pytest.raises(DataLeak):
        compare(CompareRequest(str(result.folder), str(second.folder), [folder / "data.jsonl"]), Silent())
    told = compare(CompareRequest(str(result.folder), str(second.folder), [folder / "data.jsonl"], allow_leak=True), Silent())
    assert "too good" in told.notes[0]
