"""Training all weights: the same logits as scoring, gradients through contents, resumable to the bit, learns, saves a folder that loads again."""

import json

import pytest
import torch

from snapjudge.core.metric import Metric
from snapjudge.core.progress import Silent
from snapjudge.errors import Interrupted, TrainingFailed
from snapjudge.model import backbone as backbones
from snapjudge.model.hub import load_backbone, mini_folder
from snapjudge.model.packing import Ask, NewTokens
from snapjudge.model.prompt import content_windows, render_readout
from snapjudge.model.training_passes import WholePass
from snapjudge.testing import FAMILIES, make_examples, write_tiny_decoder
from snapjudge.train.multitask import Drawn, WholeConfig, _packs, losses_of, train_whole
from snapjudge.train.save import save_backbone

QUESTIONS = ("buy?", "polite or not?", "good?")
CONFIG = WholeConfig(steps=6, batch=8, rate=1e-3, save_every=2, look_every=3, bf16=False)


def readouts_of(backbone):
    labels = {"y": ("yes",), "n": ("no",)}
    return [render_readout(Metric(name="m", version=1, type="boolean", inputs=("output",), question=one, labels=labels), backbone) for one in QUESTIONS]


def asked(backbone, count=6):
    readouts = readouts_of(backbone)
    contents = [content_windows(example.inputs, backbone)[0] for example in make_examples(count)]
    contents[1] *= 3  # of quite another length
    return [(ids, readouts[: 1 + number % 3]) for number, ids in enumerate(contents)]


def draws_of(backbone):
    examples, readout = make_examples(64), readouts_of(backbone)[0]

    def draw(number):
        if number % 5 == 4:
            return None
        example = examples[number % len(examples)]
        return Drawn(content_windows(example.inputs, backbone)[0], (readout,), (example.target,), ("buy",))

    return draw


@pytest.mark.parametrize("family", ["mini", *FAMILIES])
def test_training_reads_the_logits_that_scoring_reads(tmp_path, family):
    backbone = load_backbone(str(mini_folder() if family == "mini" else write_tiny_decoder(tmp_path / family, family)))
    work = asked(backbone)
    trained, means = backbone.read_whole(work)
    asks = [Ask(place, readout) for place, (_, readouts) in enumerate(work) for readout in readouts]
    step = backbone.step([NewTokens(ids) for ids, _ in work], asks, summaries=True)
    assert torch.allclose(means, torch.stack(step.summaries), atol=2e-4)
    for one, other in zip(trained, step.logits, strict=True):
        assert torch.allclose(one[: len(other)], other, atol=2e-4), (one, other)
        assert one[len(other) :].isneginf().all()


@pytest.mark.parametrize("family", ["mini", "llama", "gemma2", "mistral"])
def test_an_accelerator_s_one_product_gives_the_same_logits_and_gradients(tmp_path, monkeypatch, family):
    assert family == "mini" or family in FAMILIES
    backbone = load_backbone(str(mini_folder() if family == "mini" else write_tiny_decoder(tmp_path / family, family)), device="cpu")
    weights, work, found = backbone.unfreeze(), asked(backbone), []
    for fused in (False, True):
        monkeypatch.setattr(backbones, "WholePass", lambda packed, causal, device, fused, wanted=fused: WholePass(packed, causal, device, wanted))
        backbone.model.zero_grad()
        logits, means = backbone.read_whole(work)
        (logits.log_softmax(-1)[:, 0].sum() + means.square().sum()).backward()
        found.append((logits.detach(), {name: weight.grad.clone() for name, weight in weights.items() if weight.grad is not None}))
    (plain, gradients), (fused, others) = found
    assert family == "gemma2" or not torch.equal(plain, fused)  # or the same product was taken twice; soft caps are spelled out in both
    assert torch.allclose(plain, fused, atol=1e-4)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, others[name], atol=1e-3 * max(1.0, float(gradient.abs().max()))), name


def test_questions_of_different_numbers_of_labels_and_words_have_their_own_losses():
    backbone = load_backbone(str(mini_folder()))
    labels = [{"y": ("yes", "true"), "n": ("no",)}, {"a": ("red",), "b": ("green",), "c": ("blue", "black")}]
    metrics = [Metric(name="m", version=1, type="choice", inputs=("output",), question="Which?", labels=one) for one in labels]
    readouts = [render_readout(one, backbone) for one in metrics]
    logits, _ = backbone.read_whole([(content_windows({"output": "a red barn"}, backbone)[0], readouts)])
    alone = [backbone.read_whole([(content_windows({"output": "a red barn"}, backbone)[0], [one])])[0][0] for one in readouts]
    assert logits.shape == (2, 3)
    assert logits[0, 2] == float("-inf")
    targets = [(0.25, 0.75), (0.0, 1.0, 0.0)]
    losses = losses_of(logits, targets)
    for loss, row, target in zip(losses, alone, targets, strict=True):
        assert torch.allclose(loss, -(torch.tensor(target) * row.log_softmax(-1)).sum(), atol=1e-5)


def test_gradients_flow_through_the_content():
    backbone = load_backbone(str(mini_folder()))
    weights = backbone.unfreeze()
    (logits,), _ = backbone.read_whole([(content_windows({"output": "quixotic zebras"}, backbone)[0], readouts_of(backbone)[:1])])
    logits.log_softmax(-1)[0].backward()
    embedding = weights["bert.embeddings.word_embeddings.weight"]
    token = backbone.tokens.encode("zebras")[0]
    assert float(embedding.grad[token].abs().sum()) > 0
    assert all(weight.grad is not None for name, weight in weights.items() if ".layer." in name)


def run(tmp_path, stop_after=None, config=CONFIG, anchor=None):
    backbone = load_backbone(str(mini_folder()))
    asked_for = 0

    def stop():
        nonlocal asked_for
        asked_for += 1
        return asked_for == stop_after

    state = tmp_path / "state.safetensors"
    result = train_whole(backbone, draws_of(backbone), config, look=lambda: {"buy": 0.5}, state=state, progress=Silent(), stop=stop, anchor=anchor)
    return backbone, result


def test_a_resumed_training_ends_with_the_same_bits(tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole, result = run(tmp_path / "a")
    with pytest.raises(Interrupted):
        run(tmp_path / "b", stop_after=3)
    again, resumed = run(tmp_path / "b")
    for (name, one), (_, other) in zip(whole.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    assert [look["losses"] for look in result.history] == [look["losses"] for look in resumed.history]
    assert result.questions == resumed.questions == 48
    assert not any(weight.requires_grad for weight in again.model.parameters())


def test_it_learns_and_the_folder_it_is_saved_to_loads_again(tmp_path):
    backbone, result = run(tmp_path, config=CONFIG.model_copy(update={"steps": 30, "look_every": 10, "bf16": True}))
    losses = [look["losses"]["buy"] for look in result.history]
    assert losses[-1] < 0.5 * losses[0]
    save_backbone(backbone, mini_folder(), tmp_path / "out", notes={"pretraining.json": json.dumps({"steps": 30})}, dtype=torch.float32)
    again = load_backbone(str(tmp_path / "out"))
    assert again.digest != load_backbone("mini").digest
    work = asked(backbone)
    for one, other in zip(backbone.read_whole(work)[0], again.read_whole(work)[0], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("most", [64, 200, 10_000])
def test_contents_of_like_length_share_a_pass_of_bounded_size(most):
    backbone = load_backbone(str(mini_folder()))
    readout = readouts_of(backbone)[0]
    drawn = [Drawn(tuple(range(5, 5 + length)), (readout,), ((1.0, 0.0),), ("buy",)) for length in (9, 150, 30, 31, 8, 149, 300, 10)]
    packs = _packs(drawn, most)
    lengths = [[len(one.content) for one in pack] for pack in packs]
    assert sorted(length for pack in lengths for length in pack) == sorted(len(one.content) for one in drawn)
    assert all(sum(one.tokens for one in pack) <= most or len(pack) == 1 for pack in packs)
    assert [length for pack in lengths for length in pack] == sorted(length for pack in lengths for length in pack)
    assert len(packs) == {64: 6, 200: 4, 10_000: 1}[most]


def test_the_best_look_is_kept_and_patience_ends_what_no_longer_learns(tmp_path):
    backbone, seen = load_backbone(str(mini_folder())), []
    figures = iter([0.6, 0.8, 0.7, 0.75, 0.9])

    def look():
        seen.append({name: weight.detach().clone() for name, weight in backbone.model.named_parameters()})
        return {"buy": next(figures)}

    config = CONFIG.model_copy(update={"steps": 10, "look_every": 2, "keep_best": True, "patience": 2})
    result = train_whole(backbone, draws_of(backbone), config, look=look, state=tmp_path / "state.safetensors", progress=Silent())
    assert [entry["step"] for entry in result.history] == [2, 4, 6, 8], "0.9 is never looked at"
    assert result.best == 4
    for name, weight in backbone.model.named_parameters():
        assert torch.equal(weight, seen[1][name]), name
    assert not all(torch.equal(weight, seen[3][name]) for name, weight in backbone.model.named_parameters())


def test_an_anchor_keeps_the_embeddings_that_training_would_move(tmp_path):
    (tmp_path / "free").mkdir(), (tmp_path / "held").mkdir()
    config, before = CONFIG.model_copy(update={"steps": 20, "look_every": 10, "anchor_weight": 10.0}), load_backbone(str(mini_folder()))
    free, _ = run(tmp_path / "free", config=config)
    held, result = run(tmp_path / "held", config=config, anchor=before)
    contents = [(content_windows({"output": text}, before)[0], ()) for text in ("the cat sat down", "buy one text please", "an answer")]
    kept = before.read_whole(contents)[1]
    near = [torch.nn.functional.cosine_similarity(one.read_whole(contents)[1], kept).mean() for one in (free, held)]
    assert 1 - near[1] < 0.5 * (1 - near[0])
    assert result.history[-1]["losses"]["anchor"] > 0


def test_a_loss_that_is_no_number_ends_the_training(tmp_path):
    backbone = load_backbone(str(mini_folder()))
    draw = draws_of(backbone)
    with torch.no_grad():
        backbone.model.bert.embeddings.LayerNorm.weight.fill_(float("nan"))
    with pytest.raises(TrainingFailed, match="step 1"):
        train_whole(backbone, draw, CONFIG, look=dict, state=tmp_path / "s", progress=Silent())
