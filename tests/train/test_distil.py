"""Distillation: the loss by hand, and judges that learn from verdict columns, other backbones' judges and open questions."""

import json

import pytest
import torch

from snapjudge.core.progress import Silent
from snapjudge.curate.read import read_examples
from snapjudge.errors import OptionInvalid
from snapjudge.flows.distilling import taught
from snapjudge.flows.metric_files import read_metric
from snapjudge.flows.train_judge import train_judge
from snapjudge.flows.train_terms import TrainRequest
from snapjudge.judge import Judge
from snapjudge.testing import make_examples, write_tiny_decoder
from snapjudge.train.distil import distillation_loss
from tests.workshop import CONFIG, METRIC_YAML, as_line


def test_the_loss_is_hintons():
    logits = torch.tensor([[1.0, -1.0], [0.5, 0.2], [0.0, 2.0]])
    teacher = torch.tensor([[0.9, 0.1], [0.0, 0.0], [0.3, 0.7]])
    own, share, warm = torch.tensor([0.4, 0.6, 0.8]), torch.tensor([0.5, 0.0, 1.0]), 3.0
    found = distillation_loss(logits.log_softmax(-1), own, teacher, share, warm)
    soft = torch.softmax(teacher[0].log() / warm, -1)
    cross = -(soft * torch.log_softmax(logits[0] / warm, -1)).sum() * warm**2
    assert float(found[0]) == pytest.approx(0.5 * 0.4 + 0.5 * float(cross), rel=1e-5)
    assert float(found[1]) == pytest.approx(0.6)
    assert bool(torch.isfinite(found).all())


def test_a_student_that_agrees_with_its_teacher_is_not_moved():
    logits = torch.randn(5, 3, requires_grad=True)
    loss = distillation_loss(logits.log_softmax(-1), torch.zeros(5), logits.detach().softmax(-1), torch.ones(5), 2.0).sum()
    loss.backward()
    assert float(logits.grad.abs().max()) < 1e-5


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "metric.yaml").write_text(METRIC_YAML)
    truth = {"bad": {"bad": 0.9, "fine": 0.1}, "fine": {"bad": 0.2, "fine": 0.8}}
    lines = []
    for example in make_examples(120):
        label = ["bad", "fine"][example.label_index]
        lines.append(as_line(example, verdicts={"gpt": {"label": truth[label], "cost": 0.01}, "hard": label}))
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    fresh = [{"id": f"u{e.id}", "inputs": e.inputs, "verdicts": {"gpt": ["bad", "fine"][e.label_index]}} for e in make_examples(60, seed=5)]
    (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, fresh)))
    return tmp_path


def train(folder, config, **more):
    return train_judge(TrainRequest(folder / "metric.yaml", [folder / "data.jsonl"], folder / "out", **more), config)


def test_a_verdict_column_teaches_and_labels_what_has_no_label(folder):
    config = CONFIG.model_copy(update={"teacher": "verdict:gpt"})
    result = train(folder, config, unlabelled=[folder / "more.jsonl"])
    assert result.proof.judge_figures["auroc"].value > 0.8
    assert any("taught by verdicts of gpt" in note for note in result.proof.notes)
    run = json.loads((result.folder / "run.json").read_text())
    assert run["config"]["teacher"] == "verdict:gpt"


def test_an_adapter_on_another_backbone_teaches_one_on_mini(folder):
    other = CONFIG.model_copy(update={"backbone": str(write_tiny_decoder(folder / "tiny", "llama")), "probes": 0})
    teacher = train(folder, other)
    metric = read_metric(folder / "metric.yaml")
    examples = read_examples([folder / "data.jsonl"], metric)
    said = [tuple(answer.probabilities.values()) for answer in Judge.load(teacher.folder).score_many(one.inputs for one in examples)]
    assert taught(str(teacher.folder), examples, metric, Silent()).said == said
    config = CONFIG.model_copy(update={"teacher": str(teacher.folder), "probes": 0})
    student = train_judge(TrainRequest(folder / "metric.yaml", [folder / "data.jsonl"], folder / "students", unlabelled=[folder / "more.jsonl"]), config)
    alone = train_judge(TrainRequest(folder / "metric.yaml", [folder / "data.jsonl"], folder / "alone"), CONFIG.model_copy(update={"probes": 0}))
    assert Judge.load(student.folder).backbone.digest != Judge.load(teacher.folder).backbone.digest
    assert any(f"taught by {Judge.load(teacher.folder).name}" in note for note in student.proof.notes)
    name = "adapter/adapter_model.safetensors"
    assert (student.folder / name).read_bytes() != (alone.folder / name).read_bytes()


def test_what_a_teacher_says_is_what_it_would_answer(folder, workshop):
    _, teacher = workshop
    metric = read_metric(folder / "metric.yaml")
    examples = read_examples([folder / "data.jsonl"], metric)
    found = taught(str(teacher.folder), examples, metric, Silent())
    own = [tuple(answer.probabilities.values()) for answer in Judge.load(teacher.folder).score_many(example.inputs for example in examples)]
    assert found.said == own
    opened = taught("open:mini", examples[:5], metric, Silent())
    assert all(sum(said) == pytest.approx(1) for said in opened.said)


def test_teachers_that_cannot_teach_are_refused(folder, workshop):
    with pytest.raises(OptionInvalid, match="nothing of any training example"):
        train(folder, CONFIG.model_copy(update={"teacher": "verdict:nobody"}))
    with pytest.raises(OptionInvalid, match="need a teacher"):
        train(folder, CONFIG, unlabelled=[folder / "more.jsonl"], restart=True)
    metric = read_metric(folder / "metric.yaml")
    other = metric.model_copy(update={"labels": {"x": ("yes",), "y": ("no",)}, "positive": ("x",)})
    with pytest.raises(OptionInvalid, match="answers with bad, fine"):
        taught(str(workshop[1].folder), [], other, Silent())
