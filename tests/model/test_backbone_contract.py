"""The contract every backbone keeps, on mini, on random decoders of each family, and on the real checkpoints beside the project.

The judge of it all is plain transformers (and PEFT), which knows nothing of content states.
"""

import dataclasses
import json

import pytest
import torch

from snapjudge.model.adapter import Adapter, adapter_files, load_adapter, new_adapter
from snapjudge.model.backbone import Ask
from snapjudge.model.hub import load_backbone, mini_folder
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


def test_a_pass_leaves_nothing_behind(subject):
    with torch.inference_mode():
        subject.backbone.encode(subject.contents[:1])
    assert subject.backbone.switch.current is None
    assert subject.backbone.switch.adapters == ()


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
