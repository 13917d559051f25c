"""Fitting: learns, resumes to the bit, keeps memory bounded, notices collapse and damage."""

import math

import numpy as np
import pytest
import torch

from snapjudge.core.calibration import Calibration
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Silent
from snapjudge.errors import Interrupted, RunConflict, TrainingFailed
from snapjudge.flows.scoring import contents_of, raw_scores
from snapjudge.model.prompt import render_readout
from snapjudge.model.reading import Question, summaries
from snapjudge.prove.figures import figures, main_figure
from snapjudge.prove.proof import scored
from snapjudge.testing import make_examples
from snapjudge.train.contents import ContentStore, padded_states
from snapjudge.train.fit import fit, schedule
from snapjudge.train.kept import KeptContents
from snapjudge.train.objectives import loss_of
from snapjudge.train.sampling import MOST_REPEATS, epoch_batches
from snapjudge.train.terms import FitConfig, FitData, Validation

METRIC = Metric(name="m", version=1, type="boolean", inputs=("output",), question="Does it say buy?", labels={"bad": ("yes",), "fine": ("no",)})
CONFIG = FitConfig(rank=4, alpha=8, batch=8, epochs=2, cache_gb=0.1)


class Task:
    """A small learnable task on mini."""

    def __init__(self, backbone, metric=METRIC, count=48):
        self.backbone, self.metric = backbone, metric
        self.train, self.held = make_examples(count), make_examples(24, seed=9)
        self.data = FitData(contents_of(self.train, metric, backbone), [e.target for e in self.train], contents_of(self.held, metric, backbone))

    def validate(self, log_p):
        found = figures(scored(log_p, Calibration(), self.metric, self.held)[0], self.metric, draws=20)
        name = main_figure(self.metric)
        return Validation(found[name].value if name in found else 0.5, name, found["log_loss"].value, 0.5, 0.05)

    def fit(self, folder, config=CONFIG, scope="readout", stop=lambda: False, validate=None):
        folder.mkdir(exist_ok=True)
        readout = render_readout(self.metric, self.backbone)
        options = {"validate": validate or self.validate, "folder": folder, "progress": Silent(), "stop": stop}
        return fit(self.backbone, [Question(self.metric, readout)], self.data, scope, config, **options)


@pytest.fixture(scope="module")
def task(mini):
    return Task(mini)


def bits(adapter):
    return [tensor.detach().numpy().tobytes() for tensor in adapter.parameters()]


class StopAfter:
    """Says stop at the n-th question."""

    def __init__(self, asked):
        self.left = asked

    def __call__(self):
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def whole(task, tmp_path_factory):
    return task.fit(tmp_path_factory.mktemp("whole"))


def test_a_fit_learns_what_the_text_shows(task, tmp_path):
    result = task.fit(tmp_path, CONFIG.model_copy(update={"epochs": 6}))
    assert result.best.figure > 0.9
    assert result.history[0]["loss"] > result.history[-1]["loss"]


@pytest.mark.parametrize("steps", [1, 4, 7, 9])
def test_an_interrupted_fit_resumes_to_the_bitwise_same_adapter(task, whole, tmp_path, steps):
    with pytest.raises(Interrupted) as caught:
        task.fit(tmp_path, stop=StopAfter(steps))
    assert "--resume" in caught.value.hint
    resumed = task.fit(tmp_path)
    assert bits(resumed.adapter) == bits(whole.adapter)
    assert resumed.log_p == whole.log_p


def test_a_finished_fit_is_not_run_again(task, whole, tmp_path):
    first = task.fit(tmp_path)
    again = task.fit(tmp_path, validate=lambda log_p: pytest.fail("ran again"))
    assert bits(first.adapter) == bits(again.adapter) == bits(whole.adapter)


def test_content_states_on_disk_give_the_bits_of_those_in_memory(task, whole, tmp_path):
    spilled = task.fit(tmp_path, CONFIG.model_copy(update={"cache_gb": 0.0005}))
    assert bits(spilled.adapter) == bits(whole.adapter)
    assert not (tmp_path / "contents.bin").exists()


def test_a_readout_fit_leaves_the_embeddings_it_computed_on_the_way(task, whole):
    again = torch.stack(list(summaries(task.backbone, task.data.contents))).double().numpy()
    assert np.array_equal(whole.embeddings_ED, again)


def test_kept_contents_are_read_as_scoring_reads_them(task, whole, tmp_path):
    metric, readout = task.metric, render_readout(task.metric, task.backbone)
    long = contents_of([example.model_copy(update={"inputs": {"output": example.inputs["output"] * 60}}) for example in task.held[:2]], metric, task.backbone)
    contents = [*task.data.validation, *long]
    assert max(len(content.windows) for content in contents) > 1
    with ContentStore(budget=2**20, spill=tmp_path / "contents.bin", device=task.backbone.device) as store:
        kept = KeptContents(task.backbone, contents, store, Silent(), lambda: False)
        chosen = [25, 3, 0]
        found = kept.log_p(chosen, readout, whole.adapter, metric)
    scores = raw_scores(task.backbone, Question(metric, readout, whole.adapter), [contents[index] for index in chosen], Silent(), "")
    assert np.allclose(np.exp(found), np.exp(scores), atol=2e-3)


def test_every_token_can_be_adapted_too(task, tmp_path):
    result = task.fit(tmp_path, CONFIG.model_copy(update={"epochs": 5}), scope="all")
    assert result.adapter.scope == "all"
    assert result.best.figure > 0.9
    assert result.adapter.invocation == ()


def test_contents_are_gone_back_through_a_few_at_a_time(task, tmp_path, monkeypatch):
    whole = task.fit(tmp_path / "whole", scope="all")
    sizes, encode = [], task.backbone.encode_for_training
    monkeypatch.setattr("snapjudge.train.fit._THROUGH", 40)
    monkeypatch.setattr(task.backbone, "encode_for_training", lambda windows, adapter: sizes.append([len(one) for one in windows]) or encode(windows, adapter))
    parts = task.fit(tmp_path / "parts", scope="all")
    assert all(sum(some) <= 40 or len(some) == 1 for some in sizes)
    assert len(sizes) > len(parts.history) * len(task.train) / CONFIG.batch
    for one, other in zip(whole.adapter.parameters(), parts.adapter.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-3)


@pytest.mark.parametrize("kind", ["choice", "score", "pairwise"])
def test_other_types_are_fitted(mini, tmp_path, kind):
    labels = {"choice": ["x", "y"], "score": ["1", "2"], "pairwise": ["a", "b"]}[kind]
    inputs = ("a", "b") if kind == "pairwise" else ("output",)
    metric = Metric(name="m", version=1, type=kind, inputs=inputs, question="Which?", labels={name: (name,) for name in labels})
    task = Task.__new__(Task)
    examples = make_examples(48)
    if kind == "pairwise":
        examples = [e.model_copy(update={"inputs": {"a": e.inputs["output"], "b": "yes no"}}) for e in examples]
    task.backbone, task.metric, task.train, task.held = mini, metric, examples[:32], examples[32:]
    task.data = FitData(contents_of(task.train, metric, mini), [e.target for e in task.train], contents_of(task.held, metric, mini))
    result = task.fit(tmp_path)
    assert all(math.isfinite(value) for row in result.log_p for value in row)
    assert all(sum(math.exp(v) for v in row) == pytest.approx(1, abs=1e-4) for row in result.log_p)


def test_one_adapter_learns_two_questions_each_with_its_own_labels(task, tmp_path):
    """The same texts, asked two things: of the second, the answer is never what the first one's labels say."""
    levels = Metric(name="n", version=1, type="score", inputs=("output",), question="How much?", labels={name: (name,) for name in ("1", "2", "3")})
    questions = [Question(metric, render_readout(metric, task.backbone)) for metric in (METRIC, levels)]
    contents, held = task.data.contents, task.data.validation
    second = [(0.0, float(bad), 1.0 - bad) for bad, _ in (example.target for example in task.train)]
    data = FitData(
        [*contents, *contents],
        [*task.data.labels, *second],
        [*held, *held],
        asked=[0] * len(contents) + [1] * len(contents),
        validation_asked=[0] * len(held) + [1] * len(held),
    )
    assert len(set(data.classes)) == 4

    def validate(log_p):
        assert {len(row) for row in log_p[: len(held)]} == {2}
        assert {len(row) for row in log_p[len(held) :]} == {3}
        return task.validate(log_p[: len(held)])

    options = {"validate": validate, "folder": tmp_path, "progress": Silent()}
    result = fit(task.backbone, questions, data, "readout", CONFIG.model_copy(update={"epochs": 6}), **options)
    wrong = [row for row, example in zip(result.log_p[len(held) :], task.held, strict=True) if (row[1] > row[2]) != (example.target[0] == 1.0)]
    assert result.best.figure > 0.9
    assert len(wrong) < 3


def test_a_collapse_restarts_lower_and_says_so(task, tmp_path):
    """At rate 1 the readout adapter ruins the backbone's states; the fit must find its own way down."""
    result = task.fit(tmp_path, CONFIG.model_copy(update={"rate": 1.0, "epochs": 4, "restarts": 6}))
    assert result.rate < 1.0
    assert any("begun again at rate" in note for note in result.notes)
    assert result.best.figure > 0.8


def test_a_ruined_adapter_that_still_ranks_is_begun_again(task, tmp_path):
    """By what is left in its scores it ranks above chance; its loss says that it answers worse than an even answer would."""
    ranks = iter(range(100))

    def validate(log_p):
        return Validation(0.8 + 0.01 * next(ranks), "auroc", 0.7, 0.5, 0.05)

    result = task.fit(tmp_path, CONFIG.model_copy(update={"rate": 1.0, "epochs": 3, "restarts": 2}), validate=validate)
    assert any("even answers" in note for note in result.notes)
    assert result.rate < 1.0


def told(*epochs):
    """A validation that says of the epochs, one after the other, what is handed in: (figure, log loss)."""
    given = iter(epochs)

    def validate(log_p):
        figure, loss = next(given)
        return Validation(figure, "auroc", loss, 0.5, 0.05)

    return validate


def test_a_fit_whose_validation_loses_less_than_even_answers_is_not_begun_again(task, tmp_path):
    """A backbone that is sure of the wrong answers has a high training loss for some steps, however well the adapter learns."""
    config = CONFIG.model_copy(update={"rate": 1.0, "epochs": 3})
    result = task.fit(tmp_path, config, validate=told((0.90, 0.60), (0.94, 0.50), (0.97, 0.40)))
    assert [epoch["loss"] > math.log(2) for epoch in result.history] == [True] * 3
    assert not result.notes


@pytest.mark.parametrize(
    ("epochs", "kept"),
    [
        (((1.00, 1.10), (0.97, 0.50), (0.96, 0.40)), 0.97),  # hardly begun, and as good by chance as what came later
        (((1.00, 1.10), (0.90, 0.50), (0.91, 0.40)), 1.00),  # better by more than chance
        (((0.96, 0.50), (1.00, 1.10), (0.95, 0.30)), 0.96),  # not begun again by luck
        (((0.80, 0.50), (0.90, 1.10), (0.70, 0.30)), 0.90),
        (((0.90, 0.50), (0.92, 0.60), (0.91, 0.30)), 0.92),  # among sound ones the figure tells
    ],
)
def test_an_epoch_that_loses_more_than_even_answers_gives_way_within_the_error(task, tmp_path, epochs, kept):
    result = task.fit(tmp_path, CONFIG.model_copy(update={"epochs": 3}), validate=told(*epochs))
    assert result.best.figure == kept


def test_a_resumed_fit_keeps_its_restarts(task, tmp_path):
    config = CONFIG.model_copy(update={"rate": 1.0, "epochs": 4, "restarts": 6})
    straight = task.fit(tmp_path / "straight", config)
    with pytest.raises(Interrupted):
        task.fit(tmp_path / "cut", config, stop=StopAfter(20))
    resumed = task.fit(tmp_path / "cut", config)
    assert bits(resumed.adapter) == bits(straight.adapter)
    assert resumed.notes == straight.notes


def test_a_loss_that_is_never_finite_is_an_error_with_a_next_step(mini, tmp_path):
    task = Task(mini)
    task.data = FitData(task.data.contents, [(math.nan, math.nan)] * len(task.data.contents), task.data.validation)
    with pytest.raises(TrainingFailed) as caught:
        task.fit(tmp_path)
    assert "nan" in caught.value.message
    assert caught.value.hint


def test_a_damaged_state_is_refused_not_trusted(task, tmp_path):
    tmp_path.joinpath("fit-readout.safetensors").write_bytes(b"\x80\x04junk")
    with pytest.raises(RunConflict) as caught:
        task.fit(tmp_path)
    assert "--restart" in caught.value.hint


def test_the_store_returns_what_was_put_in_from_memory_and_from_disk(mini, tmp_path):
    contents = [mini.tokens.encode(text) for text in ("one two three", "no", "a longer text with more words in it")]
    with torch.inference_mode():
        states = mini.encode(contents)
    with ContentStore(budget=20_000, spill=tmp_path / "spill.bin", device=mini.device) as store:
        for state in states:
            store.add(state)
        assert store.file_bytes > 0
        assert store.memory_bytes > 0
        layers, lengths = store.batch([2, 0, 1])
        expected, _ = padded_states([states[2], states[0], states[1]])
        assert lengths.tolist() == [len(contents[2]), len(contents[0]), len(contents[1])]
        for layer in range(6):
            for found, wanted in zip(layers(layer), expected(layer), strict=True):
                torch.testing.assert_close(found, wanted.clone(), atol=2e-3, rtol=2e-3)
    assert not (tmp_path / "spill.bin").exists()


def test_epochs_are_balanced_repeatable_and_bounded():
    classes, lengths = [0] * 95 + [1] * 5, list(range(100))
    batches = epoch_batches(classes, lengths, 10, seed=1, epoch=0, balanced=True)
    shown = [index for batch in batches for index in batch]
    assert batches == epoch_batches(classes, lengths, 10, seed=1, epoch=0, balanced=True)
    assert batches != epoch_batches(classes, lengths, 10, seed=1, epoch=1, balanced=True)
    assert sum(classes[index] for index in shown) == 5 * MOST_REPEATS
    assert sum(1 - classes[index] for index in shown) == 50
    assert sorted(i for b in epoch_batches(classes, lengths, 7, seed=1, epoch=0, balanced=False) for i in b) == list(range(100))


def test_a_miss_by_two_levels_costs_more_than_a_miss_by_one():
    target = torch.tensor([[1.0, 0, 0]])
    near, far = (torch.tensor([p]).log() for p in ([0.1, 0.8, 0.1], [0.1, 0.1, 0.8]))
    assert loss_of("score", near, target) < loss_of("score", far, target)
    assert loss_of("choice", near, target) == pytest.approx(float(loss_of("choice", far, target)))


def test_soft_labels_are_learned_as_shares():
    log_p = torch.tensor([[0.7, 0.3]]).log()
    right, wrong = (float(loss_of("boolean", log_p, torch.tensor([share]))) for share in ([0.7, 0.3], [0.3, 0.7]))
    assert right < wrong


def test_the_rate_rises_then_falls():
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] < 0.06
