"""Triton's kernels, in its interpreter: what their plain forms compute, the backbone's own logits, bits that do not depend on the pack; and they compile."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("triton", reason="Triton is there on Linux only")

from snapjudge.model.adapter import Adapter, new_adapter
from snapjudge.model.attention import Shape
from snapjudge.model.grouped import Owned, Slab
from snapjudge.model.hub import load_backbone, mini_folder
from snapjudge.model.kernel_pass import AdapterTiles, KernelPass, laid_out
from snapjudge.model.kernels.attention import Tiles, attend_tiles, attend_tiles_plainly
from snapjudge.model.kernels.products import product
from snapjudge.model.packing import Ask, NewTokens, Pack
from snapjudge.model.readout import Readout
from snapjudge.model.recorder import fixed_arrays, fixed_step
from snapjudge.model.tables import ReadoutRows, Span, Upload, lying, sight, tiles
from snapjudge.testing import write_tiny_decoder

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@pytest.mark.parametrize("rows", [1, 16, 70, 130])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_is_the_library_s_and_its_rows_do_not_depend_on_their_number(rows, bias):
    x, weight = random(rows, 200), random(150, 200, seed=1)
    b = random(150, seed=2) if bias else None
    y = product(x, weight, b)
    torch.testing.assert_close(y, torch.nn.functional.linear(x, weight, b), rtol=1e-4, atol=1e-4)
    assert torch.equal(product(x[:1].contiguous(), weight, b), y[:1])


@pytest.mark.parametrize(("heads", "groups", "width"), [(14, 2, 64), (4, 4, 24)])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (9, 5.0)])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_over_pages_and_pack_is_its_plain_form(heads, groups, width, window, softcap, causal):
    if window is not None and not causal:
        pytest.skip("windows are of causal backbones")
    spans = [Span(20 if causal else 0, [3, 1] if causal else [], 0, 13), Span(0, [], 13, 90), Span(40, [0, 4, 2])]
    readouts = [ReadoutRows(1, 90, 96), ReadoutRows(0, 96, 102), ReadoutRows(2, 102, 113), ReadoutRows(1, 113, 119)]
    rows = 128
    query, key, value = random(rows, heads, width), random(rows, groups, width, seed=1), random(rows, groups, width, seed=2)
    pool = random(5 * 16, groups, width, seed=3), random(5 * 16, groups, width, seed=4)
    seen = sight(spans, readouts, rows, causal=causal, window=window)
    table = Tiles(**Upload({**tiles(spans, readouts, seen, 16, contents=True), **seen, **lying(spans)}).send(DEVICE), page=16)
    shape = Shape(width**-0.5, softcap, window)
    found = attend_tiles(query, key, value, pool, table, shape)
    torch.testing.assert_close(found, attend_tiles_plainly(query, key, value, pool, table, shape), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module", params=["llama", "gemma2", "mini"])
def backbone(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    if request.param == "mini":
        two_layers_of_mini(folder)
    else:
        write_tiny_decoder(folder, request.param)
    return load_backbone(str(folder), device=str(DEVICE))


def two_layers_of_mini(folder):
    """A backbone that reads contents in both directions; all six layers would take the interpreter minutes."""
    for path in mini_folder().iterdir():
        if path.suffix == ".json":
            shutil.copy(path, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    tensors = load_file(mini_folder() / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if not re.search(r"layer\.[2-9]", name)}, folder / "model.safetensors")


def adapter_for(backbone, seed, scope="readout", rank=4):
    fresh = new_adapter(backbone.linears, scope=scope, rank=rank, alpha=8.0, seed=seed, invocation=(), device=backbone.device)
    weights = {path: (down.detach(), random(*up.shape, seed=seed) * 0.05) for path, (down, up) in fresh.weights.items()}
    return Adapter(scope, rank, 8.0, weights)


def step_of(backbone):
    """Two contents, one of them going on from a state at hand where the backbone can, a third at hand, and readouts of many lengths and adapters."""
    slab = Slab(backbone.linears, rank=16, slots=2, dtype=backbone.dtype, device=backbone.device)
    placed, loose, deep = slab.place(adapter_for(backbone, 1, rank=16), 1), adapter_for(backbone, 2), adapter_for(backbone, 3, "all", rank=20)
    causal = backbone.content_mask == "causal"
    (known, third) = backbone.encode([tuple(range(5, 42)), tuple(range(7, 30))])
    contents = [NewTokens(tuple(range(50, 63)), known if causal else None), NewTokens(tuple(range(60, 79)), adapter=deep)]
    short, long = Readout((5, 6, 7), ((11, 12), (13,))), Readout(tuple(range(20, 31)), ((11,), (13,), (14, 15)))
    asks = [Ask(0, short, placed), Ask(1, long, deep), Ask(third, short, loose), Ask(0, long), Ask(third, long, placed), Ask(0, short, loose)]
    return contents, asks


def by_kernels(backbone, contents, asks):
    backbone.switch.kernels = True
    try:
        return backbone.step(contents, asks)
    finally:
        backbone.switch.kernels = DEVICE.type == "cuda"


def test_a_step_by_kernels_gives_the_backbone_s_logits_and_states(backbone):
    contents, asks = step_of(backbone)
    backbone.switch.kernels = False
    plain = backbone.step(contents, asks)
    step = by_kernels(backbone, contents, asks)
    for found, expected in zip(step.logits, plain.logits, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    for found, expected in zip(step.states, plain.states, strict=True):
        torch.testing.assert_close(found.layers[1][0], expected.layers[1][0], rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type == "cpu", reason="the interpreter's own products depend on their shapes")
def test_bits_depend_on_neither_the_pack_nor_what_was_at_hand(backbone):
    contents, asks = step_of(backbone)
    together = by_kernels(backbone, contents, asks).logits
    for index, ask in enumerate(asks):
        if isinstance(ask.content, int):
            one = contents[ask.content]
            whole = NewTokens(tuple(range(5, 42)) + one.ids, adapter=one.adapter) if one.past is not None else one
            for alone in (one, whole):
                assert torch.equal(by_kernels(backbone, [alone], [Ask(0, ask.readout, ask.adapter)]).logits[0], together[index])
        else:
            assert torch.equal(by_kernels(backbone, [], [ask]).logits[0], together[index])


def test_a_recorded_step_reads_everything_from_one_place(backbone):
    """What a CUDA graph replays: the same step over tables filled up to a fixed size."""
    contents, asks = step_of(backbone)
    expected = by_kernels(backbone, contents, asks).logits
    if any(window is not None for window in backbone.switch.windows):
        pytest.skip("steps with sliding windows are not recorded")
    pack = Pack(contents, asks, backbone.dtype, backbone.device)
    at_hand = laid_out(pack.at_hand)
    spans, readouts = pack.laid_out(at_hand.blocks)
    one = KernelPass(
        spans, readouts, at_hand.pool, at_hand.page, pack.total, pack.reads_from, backbone.content_mask == "causal", backbone.depth, False, backbone.switch
    )
    (adapters,) = AdapterTiles.of([owner for some in pack.owners for owner in some], backbone.linears, backbone.dtype, backbone.device)
    size, upload = fixed_arrays(one, pack.ids, pack.places, adapters)
    assert size == 128
    backbone.switch.kernels = True
    with torch.inference_mode():
        hidden_TD = backbone._run_recorded(*fixed_step(one, upload.send(DEVICE), adapters))
    backbone.switch.kernels = DEVICE.type == "cuda"
    found = backbone.head.step_logits(hidden_TD, [ask.readout for ask in asks], [pack.last_rows[index] for index in range(len(asks))])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type == "cpu", reason="needs CUDA graphs")
def test_a_replayed_step_has_the_bits_of_the_step_itself(backbone):
    contents, asks = step_of(backbone)
    recorder, backbone._recorder = backbone._recorder, None
    plain = backbone.step(contents, asks).logits
    backbone._recorder = recorder
    for _ in range(3):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(backbone.step(contents, asks).logits, plain, strict=True))


def test_rows_of_many_adapters_are_the_adapters_own(backbone):
    path, (inputs, outputs) = next(iter(backbone.linears.items()))
    adapters = [adapter_for(backbone, seed, rank=rank) for seed, rank in enumerate((4, 16, 20, 100))]
    owners = [Owned(adapter, start, rows) for adapter, start, rows in zip(adapters, (0, 5, 40, 50), (5, 33, 1, 20), strict=True)]
    x, y = random(80, inputs), random(80, outputs, seed=1)
    expected = y.clone()
    for owner in owners:
        rows = slice(owner.start, owner.start + owner.rows)
        down, up = owner.adapter.weights[path]
        expected[rows] += x[rows] @ down.T @ up.T * owner.adapter.scale
    some = AdapterTiles.of(owners, backbone.linears, torch.float32, DEVICE)
    assert len(some) == 2
    for one in some:
        one.add_to(y, path, one.rows_of(x))
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_all_kernels_compile_for_an_h200(dtype):
    script = Path(__file__).with_name("compile_kernels.py")
    done = subprocess.run([sys.executable, str(script), dtype], capture_output=True, text=True, env={"PATH": "", "HOME": "/tmp"})  # noqa: S108
    assert done.returncode == 0, done.stderr[-2000:]
    assert ("wgmma" in done.stdout) == (dtype == "bf16")
