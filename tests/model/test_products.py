"""Frozen products: int8 near what it stands for, whatever rows it is packed with; weights let go and found again."""

import pytest
import torch

from snapjudge.errors import InputInvalid
from snapjudge.model.adapter import new_adapter
from snapjudge.model.attention import Switch
from snapjudge.model.hub import load_backbone
from snapjudge.model.packing import Ask, NewTokens
from snapjudge.model.products import Int8Product, PlainProduct, frozen_product
from snapjudge.model.readout import Readout
from snapjudge.testing import write_tiny_decoder


def linear(inputs, outputs, *, bias, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.nn.Linear(inputs, outputs, bias=bias).to(dtype).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_is_within_its_rounding_of_the_plain_product(bias, dtype):
    base = linear(200, 70, bias=bias, dtype=dtype)
    x = torch.randn(37, 200).to(dtype)
    x[3] *= 1000  # an outlier costs its own row only
    given, expected = x.clone(), torch.nn.functional.linear(x.float(), base.weight.float(), None if not bias else base.bias.float())
    bound = 200**0.5 * (x.float().abs().amax(1, keepdim=True) / 127 * base.weight.float().abs().max() + x.float().abs().mean(1, keepdim=True) / 127)
    found = Int8Product(base)(x, Switch())
    assert found.dtype == dtype
    assert torch.equal(x, given), "the input is not touched"
    assert ((found.float() - expected).abs() <= bound).all()
    assert base.weight.is_meta, "the plain weight is let go"


def test_a_row_of_int8_has_the_same_bits_among_any_rows():
    product = Int8Product(linear(64, 48, bias=True))
    x = torch.randn(100, 64)
    whole = product(x, Switch())
    for rows in (slice(0, 1), slice(5, 22), slice(50, 100)):
        assert torch.equal(product(x[rows].contiguous(), Switch()), whole[rows])


def test_rows_of_zeros_stay_zeros():
    assert torch.equal(Int8Product(linear(64, 48, bias=False))(torch.zeros(3, 64), Switch()), torch.zeros(3, 48))


@pytest.mark.parametrize("kind", [Int8Product, PlainProduct])
def test_training_finds_weights_again_that_were_let_go(kind):
    base = linear(64, 48, bias=True, dtype=torch.bfloat16)
    weight = base.weight.clone()
    product = kind(base)
    product(torch.randn(20, 64).bfloat16(), Switch())
    x = torch.randn(20, 64).bfloat16().requires_grad_()
    y = product.differentiable(x)
    y.sum().backward()
    torch.testing.assert_close(y.float(), torch.nn.functional.linear(x.float(), weight.float(), base.bias.float()), rtol=0.05, atol=0.05)
    torch.testing.assert_close(x.grad.float(), weight.float().sum(0).expand(20, -1), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", ["mini", "llama"])
def test_an_int8_backbone_answers_nearly_as_in_float32_and_can_be_trained_on(name, tmp_path):
    where = name if name == "mini" else str(write_tiny_decoder(tmp_path, name))
    plain, whole = load_backbone(where), load_backbone(where, dtype="int8")
    assert (plain.precision, whole.precision) == ("float32", "int8")
    ids, readout = tuple(range(20, 70)), Readout((30, 31, 32, 33), ((40, 41), (42,)))
    expected, found = (backbone.step([NewTokens(ids)], [Ask(0, readout)]).logits[0] for backbone in (plain, whole))
    torch.testing.assert_close(found.softmax(-1), expected.softmax(-1), rtol=0.1, atol=0.05)
    assert torch.equal(found, whole.step([NewTokens(ids), NewTokens((5, 6, 7))], [Ask(0, readout), Ask(1, readout)]).logits[0])
    adapter = new_adapter(whole.linears, scope="all", rank=4, alpha=8.0, seed=0, invocation=(), device=whole.device)
    (state,) = whole.encode_for_training([ids], adapter)
    whole.read_batch(lambda layer: tuple(part[None] for part in state.layers[layer]), torch.tensor([len(ids)]), readout, adapter).sum().backward()
    assert all(up.grad is not None and up.grad.isfinite().all() for _, up in adapter.weights.values())


def test_an_unknown_precision_is_named():
    with pytest.raises(InputInvalid, match="int4") as raised:
        load_backbone("mini", dtype="int4")
    assert "int8" in raised.value.hint


@pytest.mark.parametrize(("inputs", "outputs"), [(384, 1536), (1536, 384), (896, 896), (2304, 896)])
def test_a_row_s_bits_in_bfloat16_do_not_depend_on_how_many_rows_there_are(inputs, outputs):
    generator = torch.Generator().manual_seed(1)
    linear = torch.nn.Linear(inputs, outputs, dtype=torch.bfloat16)
    x = torch.randn(700, inputs, generator=generator).bfloat16()
    exact = torch.nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double()).detach()
    product = frozen_product(linear, int8=False)
    whole = product(x, Switch())
    for rows in (1, 2, 5, 16, 31, 33, 40, 64, 100, 176, 300, 384, 448, 511, 640):
        assert torch.equal(product(x[:rows].contiguous(), Switch()), whole[:rows]), rows
    assert (whole - exact).abs().max() < 0.02 * exact.abs().max()
