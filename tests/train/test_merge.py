"""Merging: each formula against PEFT's own or by hand, adapters against the sum of their products, searches that go on where they stopped."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils import merge_utils

from snapjudge.core.progress import Silent
from snapjudge.errors import Interrupted, OptionInvalid, RunConflict, StorageFailed
from snapjudge.model.adapter import Adapter
from snapjudge.train.merge import METHODS, MergeConfig, merge_adapters, merge_weights
from snapjudge.train.merge_search import SearchConfig, search

SHAPES = {"layer.a": (12, 8), "layer.b": (8, 8)}


def tensors(seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def adapter(seed, rank=3, scope="readout", alpha=6.0):
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: (torch.randn(rank, inputs, generator=generator), torch.randn(outputs, rank, generator=generator)) for name, (outputs, inputs) in SHAPES.items()
    }
    return Adapter(scope, rank, alpha, weights, (7, 8))


def product(one, name):
    down, up = one.weights[name]
    return one.scale * up @ down


def close(one, other):
    return all(torch.allclose(one[name], other[name], atol=1e-5) for name in SHAPES)


def test_linear_and_arithmetic_are_sums():
    first, second, base = tensors(1), tensors(2), tensors(3)
    assert close(merge_weights([first, second], MergeConfig(weights=(3, 1))), {n: 0.75 * first[n] + 0.25 * second[n] for n in SHAPES})
    found = merge_weights([first, second], MergeConfig(method="task_arithmetic", weights=(1, 1), scale=2), base)
    assert close(found, {n: first[n] + second[n] - base[n] for n in SHAPES})


@pytest.mark.parametrize("density", [0.25, 0.5, 1.0])
def test_ties_is_that_of_peft(density):
    first, second, third, base = (tensors(seed) for seed in (1, 2, 3, 4))
    found = merge_weights([first, second, third], MergeConfig(method="ties", weights=(1, 1, 1), density=density), base)
    for name in SHAPES:
        differences = [one[name] - base[name] for one in (first, second, third)]
        kept = differences if density == 1 else [merge_utils.magnitude_based_pruning(one, density) for one in differences]
        stacked = torch.stack(kept)
        agree = merge_utils.calculate_majority_sign_mask(stacked) & (stacked != 0)
        assert torch.allclose(found[name], base[name] + merge_utils.disjoint_merge(stacked, agree), atol=1e-5)


def test_weighted_ties_counts_each_agreeing_model_by_its_weight():
    """By hand: signs elected by the weighted sum; of those that agree, the mean by weight."""
    base = {"x": torch.zeros(4)}
    models = [{"x": torch.tensor([1.0, 2.0, -4.0, 0.0])}, {"x": torch.tensor([3.0, -1.0, 1.0, 5.0])}]
    found = merge_weights(models, MergeConfig(method="ties", weights=(3, 1), density=1.0), base)["x"]
    assert found.tolist() == [(3 * 1 + 1 * 3) / 4, 2.0, -4.0, 5.0]
    found = merge_weights(models, MergeConfig(method="ties", weights=(1, 3), density=1.0, scale=2), base)["x"]
    assert found.tolist() == [2 * (1 + 9) / 4, 2 * -1.0, 2 * -4.0, 2 * 5.0]


def test_dare_with_ties_is_ties_of_what_was_kept():
    base = {"x": torch.zeros(300, 300)}
    models = [{"x": torch.ones(300, 300)}, {"x": -torch.ones(300, 300)}]
    found = merge_weights(models, MergeConfig(method="dare_ties", weights=(2, 1), density=0.5), base)["x"]
    assert set(found.unique().tolist()) == {-2.0, 0.0, 2.0}, "the sign with more weight, the other alone where that was dropped, or nothing"
    shares = [float((found == value).float().mean()) for value in (2.0, -2.0, 0.0)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.01)


def test_dare_keeps_its_share_and_the_mean():
    base = {"x": torch.zeros(400, 400)}
    models = [{"x": torch.ones(400, 400)}, {"x": torch.ones(400, 400)}]
    found = merge_weights(models, MergeConfig(method="dare", weights=(1, 1), density=0.2), base)["x"]
    assert float(found.mean()) == pytest.approx(1, abs=0.02)
    assert set(found.unique().tolist()) == {0.0, 2.5, 5.0}
    again = merge_weights(models, MergeConfig(method="dare", weights=(1, 1), density=0.2), base)["x"]
    assert torch.equal(found, again)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 0.99), st.integers(0, 50))
def test_slerp_stays_on_the_circle(share, seed):
    one, other = ({"x": torch.nn.functional.normalize(torch.randn(5, generator=torch.Generator().manual_seed(seed + add)), dim=0)} for add in (0, 1000))
    found = merge_weights([one, other], MergeConfig(method="slerp", weights=(1 - share, share)))["x"]
    assert float(found.norm()) == pytest.approx(1, abs=1e-4)
    angle = float(torch.arccos((one["x"] * other["x"]).sum().clamp(-1, 1)))
    assert float(torch.arccos((one["x"] * found).sum().clamp(-1, 1))) == pytest.approx(share * angle, abs=2e-3)


def test_slerp_of_parallel_or_empty_tensors_is_a_straight_line():
    one = {"x": torch.ones(4)}
    for other in ({"x": torch.ones(4) * 3}, {"x": -torch.ones(4)}, {"x": torch.zeros(4)}):
        found = merge_weights([one, other], MergeConfig(method="slerp", weights=(1, 1)))["x"]
        assert torch.allclose(found, (one["x"] + other["x"]) / 2)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_merged_with_itself_stays_itself(method):
    one, base = tensors(1), tensors(2)
    density = 1.0
    assert close(merge_weights([one, one], MergeConfig(method=method, weights=(1, 2), density=density), base), one)


def test_adapters_merge_by_their_products():
    first, second = adapter(1), adapter(2, rank=2, alpha=1.0)
    exact = merge_adapters([first, second], MergeConfig(method="task_arithmetic", weights=(1, 1), scale=2), rank=5)
    assert exact.error < 1e-6
    for name in SHAPES:
        assert torch.allclose(product(exact.adapter, name), product(first, name) + product(second, name), atol=1e-4)
    assert exact.adapter.invocation == (7, 8)
    cut = merge_adapters([first, second], MergeConfig(weights=(1, 1)), rank=2)
    assert 0 < cut.error < 1
    left = np.linalg.svd(((product(first, "layer.a") + product(second, "layer.a")) / 2).numpy())
    kept = (left[0][:, :2] * left[1][:2]) @ left[2][:2]
    assert np.allclose(product(cut.adapter, "layer.a").numpy(), kept, atol=1e-4)


def test_what_does_not_fit_is_refused():
    one, other = tensors(1), {**tensors(2), "layer.a": torch.zeros(2, 2)}
    with pytest.raises(OptionInvalid, match=r"layer\.a"):
        merge_weights([one, other], MergeConfig(weights=(1, 1)))
    with pytest.raises(OptionInvalid, match="ties needs the weights"):
        merge_weights([one, one], MergeConfig(method="ties", weights=(1, 1)))
    with pytest.raises(OptionInvalid, match="3 weights for 2"):
        merge_weights([one, one], MergeConfig(weights=(1, 1, 1)))
    with pytest.raises(OptionInvalid, match="all 0"):
        merge_weights([one, one], MergeConfig(weights=(0, 0)))
    with pytest.raises(OptionInvalid, match="two models"):
        merge_weights([one] * 3, MergeConfig(method="slerp", weights=(1, 1, 1)))
    with pytest.raises(OptionInvalid, match="scope"):
        merge_adapters([adapter(1), adapter(2, scope="all")], MergeConfig(weights=(1, 1)))


def hill(config, part):
    """Best where the first model has 0.7 of the weight."""
    share = config.weights[0] / sum(config.weights)
    noise = 0.0 if part is None else 0.01 * (part - 1.5)
    return {"a": 1 - (share - 0.7) ** 2 + noise, "b": 1 - share / 2 + noise}


@pytest.mark.parametrize("strategy", ["tpe", "bandit"])
def test_a_search_finds_the_hill_and_goes_on_where_it_stopped(tmp_path, strategy):
    config = SearchConfig(strategy=strategy, trials=30, methods=("linear",))
    whole = search(hill, 2, config, path=tmp_path / "whole.jsonl", progress=Silent())
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 12

    with pytest.raises(Interrupted):
        search(hill, 2, config, path=tmp_path / "cut.jsonl", progress=Silent(), stop=stop)
    text = (tmp_path / "cut.jsonl").read_text()
    (tmp_path / "cut.jsonl").write_text(text + text.splitlines()[-1][:20])  # and killed in the middle of a line
    looks = []
    resumed = search(lambda c, p: looks.append(1) or hill(c, p), 2, config, path=tmp_path / "cut.jsonl", progress=Silent())
    assert [(t.config, t.figures, t.part) for t in resumed.trials] == [(t.config, t.figures, t.part) for t in whole.trials]
    assert len(looks) == 30 - 11
    assert whole.best.part is None
    share = whole.best.config.weights[0] / sum(whole.best.config.weights)
    assert abs(share - 0.45) < (0.15 if strategy == "tpe" else 0.3)  # where the mean of both is highest; a bandit has fewer arms than that has places
    with pytest.raises(RunConflict):
        search(hill, 2, config.model_copy(update={"seed": 5}), path=tmp_path / "cut.jsonl", progress=Silent())


def test_a_search_that_fails_at_its_first_look_leaves_nothing_in_the_way(tmp_path):
    config, path = SearchConfig(trials=3), tmp_path / "table.jsonl"

    def broken(config, part):
        raise OptionInvalid("these cannot be merged", hint="")

    with pytest.raises(OptionInvalid):
        search(broken, 2, config, path=path, progress=Silent())
    assert not path.exists()
    path.write_text("")  # killed before the first line was written
    assert len(search(lambda *_: {"one": 0.5}, 2, config, path=path, progress=Silent()).trials) == 3
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed):
        search(broken, 2, config, path=tmp_path / "file" / "table.jsonl", progress=Silent())


def test_floors_come_before_the_mean(tmp_path):
    config = SearchConfig(trials=40, methods=("linear",), floors={"b": 0.85})
    found = search(hill, 2, config, path=tmp_path / "t.jsonl", progress=Silent())
    assert found.feasible
    assert found.best.figures["b"] >= 0.85
    config = SearchConfig(trials=10, methods=("linear",), floors={"b": 1.5})
    assert not search(hill, 2, config, path=tmp_path / "u.jsonl", progress=Silent()).feasible
