"""The contract every backbone keeps, on mini, on random decoders of each family, and on the real checkpoints beside the project.

The judge of it all is plain transformers (and PEFT), which knows nothing of content states.
"""

import dataclasses
import itertools
import json

import pytest
import torch

from snapjudge.errors import BackboneUnsupported
from snapjudge.model.adapter import Adapter, adapter_files, load_adapter, new_adapter
from snapjudge.model.hub import load_backbone, mini_folder
from snapjudge.model.packing import Ask, NewTokens
from snapjudge.model.readout import Readout
from snapjudge.testing import CONTROL, FAMILIES, write_tiny_decoder
from tests.conftest import shared

REAL = ["TinyStories-656K-HF", "stories260K", "babyllama-tok361", "tinystories-instruct-3M-chat"]
NAMES = ["mini", *FAMILIES, *REAL]
CONTENTS = ["The user said thanks. That was a good answer, one two three.", "no", "Please buy the text, then sell it. " * 3]


class Subject:
    """One backbone, and the same weights under plain transformers."""

    def __init__(self, name, folder):
        self.name, self.folder = name, folder
        self.backbone = load_backbone(str(folder) if name != "mini" else "mini")
        self.tokens = self.backbone.tokens
        self.contents = [self.tokens.begin + self.tokens.encode(text) for text in CONTENTS]
        words = self.tokens.encode("yes no a b")
        distinct = list(dict.fromkeys(words))[:4]
        self.readout = Readout(self.tokens.encode("Is it good?\nAnswer:"), ((distinct[0], distinct[1]), (distinct[2],)))
        self.other = Readout(self.tokens.encode("Was the text rude or not at all? Answer:"), ((distinct[2],), (distinct[3],)))

    def plain(self):
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.folder, attn_implementation="eager", dtype=torch.float32).eval()

    def plain_label_logits(self, model, content, readout):
        """Label logits of a forward pass over the concatenated sequence."""
        ids = torch.tensor([list(content) + list(readout.token_ids)])
        if self.name == "mini":
            mask = prefix_mask(len(content), len(readout.token_ids))
            hidden = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1][0, -1]
            logits = model.get_input_embeddings().weight @ hidden
        else:
            logits = model(input_ids=ids).logits[0, -1]
        return torch.stack([logits[list(label)].logsumexp(0) for label in readout.label_tokens])

    def adapter(self, scope, seed=1, readout=None):
        """An adapter with weights that matter on every layer."""
        invocation = (readout or self.readout).token_ids if scope == "readout" else ()
        fresh = new_adapter(self.backbone.linears, scope=scope, rank=4, alpha=8, seed=seed, invocation=invocation, device=torch.device("cpu"))
        generator = torch.Generator().manual_seed(seed)
        weights = {path: (down.detach(), torch.randn(up.shape, generator=generator) * 0.05) for path, (down, up) in fresh.weights.items()}
        return Adapter(scope, fresh.rank, fresh.alpha, weights, invocation)


def prefix_mask(content, readout):
    """4D additive mask: content sees content both ways, readout sees content and itself causally."""
    total = content + readout
    visible = torch.ones(total, total, dtype=torch.bool).tril()
    visible[:content, :content] = True
    return torch.zeros(1, 1, total, total).masked_fill(~visible, torch.finfo(torch.float32).min)


@pytest.fixture(scope="module", params=NAMES)
def subject(request, tmp_path_factory):
    name = request.param
    if name == "mini":
        folder = mini_folder()
    elif name in FAMILIES:
        folder = write_tiny_decoder(tmp_path_factory.mktemp(name), name)
    else:
        folder = shared(f"models/{name}")
    return Subject(name, folder)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_reading_from_a_cached_content_state_equals_a_plain_forward_pass(subject):
    model = subject.plain()
    states = subject.backbone.encode(subject.contents)
    found = subject.backbone.read([Ask(state, subject.readout) for state in states])
    for content, logits in zip(subject.contents, found, strict=True):
        close(logits, subject.plain_label_logits(model, content, subject.readout))


@pytest.mark.parametrize("scope", ["readout", "all"])
@torch.inference_mode()
def test_with_an_adapter_it_equals_peft_for_the_same_saved_files(subject, scope, tmp_path):
    from peft import PeftModel

    for name, raw in adapter_files(subject.adapter(scope), backbone=subject.name).items():
        (tmp_path / name).write_bytes(raw)
    adapter = load_adapter(tmp_path, subject.backbone.linears, subject.backbone.device)
    assert adapter.scope == scope
    model = PeftModel.from_pretrained(subject.plain(), tmp_path).eval()
    states = subject.backbone.encode(subject.contents, adapter if scope == "all" else None)
    found = subject.backbone.read([Ask(state, subject.readout, adapter) for state in states])
    bare = subject.backbone.read([Ask(state, subject.readout) for state in states])
    for content, logits, without in zip(subject.contents, found, bare, strict=True):
        close(logits, subject.plain_label_logits(model, content, subject.readout))
        assert (logits - without).abs().max() > 1e-3, "the adapter did nothing; the test would not notice a missing one"


@torch.inference_mode()
def test_many_judges_on_one_content_give_the_bits_of_separate_passes(subject):
    backbone = subject.backbone
    judges = [(subject.readout, None), (subject.readout, subject.adapter("readout", 1)), (subject.other, subject.adapter("readout", 2)), (subject.other, None)]
    state = backbone.encode(subject.contents)[2]
    together = backbone.read([Ask(state, readout, adapter) for readout, adapter in judges])
    for (readout, adapter), logits in zip(judges, together, strict=True):
        alone = backbone.encode([subject.contents[2]])[0]
        assert torch.equal(backbone.read([Ask(alone, readout, adapter)])[0], logits)


@torch.inference_mode()
def test_a_content_state_does_not_depend_on_what_it_is_packed_with(subject):
    packed = subject.backbone.encode(subject.contents)
    for content, state in zip(subject.contents, packed, strict=True):
        (alone,) = subject.backbone.encode([content])
        for (keys, values), (other_keys, other_values) in zip(state.layers, alone.layers, strict=True):
            assert torch.equal(keys, other_keys)
            assert torch.equal(values, other_values)


@torch.inference_mode()
def test_contents_and_readouts_in_one_pass_give_the_bits_of_two(subject):
    backbone, adapter = subject.backbone, subject.adapter("readout")
    states = backbone.encode(subject.contents)
    asks = [(at, readout, who) for at in range(len(states)) for readout in (subject.readout, subject.other) for who in (adapter, None)]
    apart = backbone.read([Ask(states[at], readout, who) for at, readout, who in asks])
    step = backbone.step([NewTokens(ids) for ids in subject.contents], [Ask(at, readout, who) for at, readout, who in reversed(asks)])
    assert same(step.states, states)
    assert all(torch.equal(a, b) for a, b in zip(apart, reversed(step.logits), strict=True))


@torch.inference_mode()
def test_adapters_on_every_token_share_a_pass_and_keep_their_bits(subject):
    backbone = subject.backbone
    judges = [subject.adapter("all", seed) for seed in (1, 2, 3)]
    contents = [(ids, who) for ids in subject.contents for who in judges]
    asks = [Ask(at, subject.readout, who) for at, (_, who) in enumerate(contents)]
    step = backbone.step([NewTokens(ids, adapter=who) for ids, who in contents], asks)
    for (ids, who), state, logits in zip(contents, step.states, step.logits, strict=True):
        alone = backbone.step([NewTokens(ids, adapter=who)], [Ask(0, subject.readout, who)])
        assert same(alone.states, [state])
        assert torch.equal(alone.logits[0], logits)


@torch.inference_mode()
def test_a_content_that_grows_gives_the_bits_of_the_whole(subject):
    backbone = subject.backbone
    ids = tuple(i for content in subject.contents for i in content) * 3
    ids = ids[: backbone.content_tokens]
    if backbone.content_mask == "bidirectional":
        with pytest.raises(BackboneUnsupported, match="cannot append"):
            backbone.append(backbone.encode([ids[:4]])[0], ids[4:])
        return
    (whole,) = backbone.encode([ids])
    for cuts in ((5,), (1, 2, 40), (64,), (31, 63, 65), tuple(range(7, len(ids), 7))):
        ends = [cut for cut in cuts if cut < len(ids)] + [len(ids)]
        (state,) = backbone.encode([ids[: ends[0]]])
        for start, end in itertools.pairwise(ends):
            state = backbone.append(state, ids[start:end])
        assert same([state], [whole])
        read, expected = backbone.read([Ask(state, subject.readout), Ask(whole, subject.readout)])
        assert torch.equal(read, expected)


def same(states, others):
    pairs = [
        (a, b)
        for state, other in zip(states, others, strict=True)
        for one, two in zip(state.layers, other.layers, strict=True)
        for a, b in zip(one, two, strict=True)
    ]
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_content_does_not_depend_on_the_metric(subject):
    from snapjudge.core.metric import Metric
    from snapjudge.model.prompt import render_content

    labels = {"x": ["y"], "z": ["n"]}
    first = Metric(name="one", version=1, type="boolean", inputs=["output", "input"], question="Is it rude?", labels=labels)
    second = Metric(name="two", version=7, type="boolean", inputs=["input", "output"], question="Something else entirely?", labels=labels, windows="mean")
    inputs = {"input": "please answer", "output": "no", "context": "not read by either"}
    assert render_content(inputs, first, subject.backbone) == render_content(inputs, second, subject.backbone)


def test_a_control_token_spelled_out_in_text_never_becomes_one(subject):
    spec = json.loads((subject.folder / "tokenizer.json").read_text(encoding="utf-8"))
    added = {entry["content"]: entry["id"] for entry in spec["added_tokens"]}
    unknown = spec["model"].get("unk_token")
    named = [value for value in _named_specials(subject.folder) if value in spec["model"]["vocab"]]
    control = {**added, **{text: spec["model"]["vocab"][text] for text in named}}
    assert control, "a tokenizer without control tokens proves nothing here"
    for text, identity in control.items():
        for wrapped in (text, f"before {text} after", f"{text}{text}", f"a{text}b"):
            assert identity not in subject.tokens.encode(wrapped) or text == unknown, wrapped
            assert identity not in subject.tokens.encode_many([wrapped])[0] or text == unknown


def _named_specials(folder):
    from snapjudge.model.tokens import special_texts

    return special_texts(folder)


def test_training_reads_the_same_logits_as_inference(subject):
    """The differentiable, padded form and the packed form are one function up to rounding."""
    from snapjudge.train.contents import padded_states

    adapter = subject.adapter("readout")
    with torch.no_grad():
        states = subject.backbone.encode(subject.contents)
        layers, lengths = padded_states(states)
        padded = subject.backbone.read_batch(layers, lengths, subject.readout, adapter)
        packed = torch.stack(subject.backbone.read([Ask(state, subject.readout, adapter) for state in states]))
    close(padded, packed)


@torch.inference_mode()
def test_half_precision_layers_give_nearly_the_same_float32_logits(subject):
    name = str(subject.folder) if subject.name != "mini" else "mini"
    half = load_backbone(name, dtype="bfloat16")
    adapter = subject.adapter("readout")
    (found,) = half.read([Ask(half.encode(subject.contents[:1])[0], subject.readout, adapter)])
    (exact,) = subject.backbone.read([Ask(subject.backbone.encode(subject.contents[:1])[0], subject.readout, adapter)])
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 0.15 * max(1.0, float(exact.abs().max()))


def test_half_precision_weights_laid_out_for_reading_are_still_trained_on(subject):
    from snapjudge.train.contents import padded_states

    half = load_backbone(str(subject.folder) if subject.name != "mini" else "mini", dtype="bfloat16")
    adapter = subject.adapter("readout")
    with torch.no_grad():
        states = half.encode(subject.contents)
        before = torch.stack(half.read([Ask(state, subject.readout, adapter) for state in states]))
        layers, lengths = padded_states(states)
        trained = half.read_batch(layers, lengths, subject.readout, adapter)
        again = torch.stack(half.read([Ask(state, subject.readout, adapter) for state in half.encode(subject.contents)]))
    assert torch.equal(before, again)
    assert (trained - before).abs().max() < 0.15 * max(1.0, float(before.abs().max()))


def test_a_pass_leaves_nothing_behind(subject):
    with torch.inference_mode():
        subject.backbone.encode(subject.contents[:1])
    assert subject.backbone.switch.current is None
    assert not subject.backbone.switch.adapters


def test_the_control_token_of_the_tiny_tokenizer_is_one(tmp_path):
    """The fixture itself: without protection the spelled-out token would be found."""
    from tokenizers import Tokenizer

    folder = write_tiny_decoder(tmp_path, "llama")
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert plain.token_to_id(CONTROL) in plain.encode(f"x {CONTROL} y").ids


def test_a_readout_is_a_value():
    one = Readout((1, 2), ((3,), (4,)))
    assert one == Readout((1, 2), ((3,), (4,)))
    assert dataclasses.replace(one, token_ids=(9,)) != one
