"""Training a backbone on a recipe: an interrupted run goes on only with the recipe, data and options it was begun with; the record names the licences."""

import json
import re
from dataclasses import replace

import pytest

from snapjudge.errors import Interrupted, OptionInvalid, RunConflict
from snapjudge.flows.claims import alone, lock_of
from snapjudge.flows.pretrain import PretrainRequest, pretrain
from snapjudge.model.hub import RECORD_FILE, load_backbone
from snapjudge.testing import make_examples, write_tiny_decoder
from snapjudge.train.multitask import WholeConfig

RECIPE = "name: small\ntasks:\n  manners: {files: [manners/forum], templates: [more.yaml], questions: ['Is it rude?']}\n"
MORE = "rows:\n  - {label: 'True', inputs: {output: you fool}}\n  - {label: 'False', inputs: {output: dear friend}}\n"
CONFIG = WholeConfig(steps=4, batch=4, bf16=False, look_every=2, save_every=2)


@pytest.fixture
def request_of(tmp_path):
    (tmp_path / "data" / "manners").mkdir(parents=True)
    rows = [{"inputs": one.inputs, "label": str(one.target == (1.0, 0.0)), "meta": {"group": one.id, "licence": "CC0-1.0"}} for one in make_examples(160)]
    (tmp_path / "data" / "manners" / "forum.train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "more.yaml").write_text(MORE)
    start = str(write_tiny_decoder(tmp_path / "llama", "llama"))
    return lambda **more: PretrainRequest(tmp_path / "recipe.yaml", tmp_path / "data", tmp_path / "out", start, **more)


def test_a_request_that_is_refused_leaves_nothing_behind(tmp_path, request_of):
    with pytest.raises(OptionInvalid, match="nothing in the recipe"):
        pretrain(request_of(without=["manner"]), CONFIG)
    (tmp_path / "more.yaml").rename(tmp_path / "gone.yaml")
    with pytest.raises(OptionInvalid, match="cannot read"):
        pretrain(request_of(), CONFIG)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{files", "{yes: rude, files", "no row answers its questions with yes"),
        ("['Is it rude?']", "[]", "asks nothing"),
        ("['Is it rude?']", "['Is it rude?'], facets: [{field: label, ask: ['Is it {bogus}?'], names: {'True': rude}}]", "should hold {name}"),
        ("['Is it rude?']", "['Is it rude?'], choices: [{ask: ['Which?'], names: {'True': rude, 'False': kind}}]", "should hold {options}"),
        ("['Is it rude?']", "['Is it rude?'], made: [{kind: tools, files: [manners/forum], count: 5, label: 'False'}]", "could be made"),
    ],
)
def test_a_recipe_that_teaches_nothing_is_refused(tmp_path, request_of, old, new, said):
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace(old, new))
    with pytest.raises(OptionInvalid, match=re.escape(said)):
        pretrain(request_of(), CONFIG)
    assert not (tmp_path / "out").exists()


def test_answer_words_that_no_metric_may_have_are_left_out(tmp_path, request_of):
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("{files", "{words: [[rude, 'not at all rude']], files"))
    assert pretrain(request_of(), CONFIG).questions


def test_a_folder_that_holds_a_model_is_not_written_over(tmp_path, request_of):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(RunConflict, match=r"already holds a model \(model.safetensors\)"):
        pretrain(request_of(), CONFIG)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == b"precious"
    same = replace(request_of(), out=tmp_path / "llama")
    with pytest.raises(RunConflict, match="already holds a model"):
        pretrain(same, CONFIG)


def test_a_folder_of_another_kind_of_run_is_not_taken(tmp_path, request_of):
    (tmp_path / "out" / "work").mkdir(parents=True)
    (tmp_path / "out" / "work" / "state.safetensors").write_bytes(b"old")
    with pytest.raises(RunConflict, match="other data"):
        pretrain(request_of(resume=True), CONFIG)


def test_the_mask_that_was_trained_with_is_the_one_that_is_read_with(tmp_path, request_of):
    with pytest.raises(OptionInvalid, match="always causal"):
        pretrain(request_of(content_mask="bidirectional"), CONFIG)
    with pytest.raises(OptionInvalid, match="no mask is called"):
        pretrain(replace(request_of(), start="mini", content_mask="sideways"), CONFIG)
    pretrain(replace(request_of(), start="mini", content_mask="causal"), CONFIG)
    assert load_backbone("mini").content_mask == "bidirectional"
    assert load_backbone(str(tmp_path / "out")).content_mask == "causal"
    assert json.loads((tmp_path / "out" / RECORD_FILE).read_text())["start"]["name"] == "mini"


def test_rows_that_are_never_read_are_told(tmp_path, request_of):
    path = tmp_path / "data" / "manners" / "forum.train.jsonl"
    long = [{"inputs": {"output": "word " * count}, "label": "True", "meta": {"group": f"long{count}"}} for count in (90, 91, 5000, 300_000)]
    path.write_text(path.read_text() + "\n" + "\n".join(map(json.dumps, long)))
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("{files", "{longest: 80, files"))
    pretrain(request_of(), CONFIG)
    told = json.loads((tmp_path / "out" / RECORD_FILE).read_text())["too_long"]
    assert list(told) == ["manners/forum"]
    assert told["manners/forum"].startswith("4 of 1")


def stopped_after(steps):
    asked = iter(range(100))
    return lambda: next(asked) >= steps - 1


def test_an_interrupted_run_goes_on_only_as_it_was_begun(tmp_path, request_of):
    with pytest.raises(Interrupted):
        pretrain(request_of(), CONFIG, stop=stopped_after(2))
    with pytest.raises(RunConflict, match="interrupted"):
        pretrain(request_of(), CONFIG)
    for file, old, new in (("recipe.yaml", "rude", "unkind"), ("more.yaml", "fool", "dunce"), ("data/manners/forum.train.jsonl", "True", "False")):
        path = tmp_path / file
        before = path.read_text()
        path.write_text(before.replace(old, new))
        with pytest.raises(RunConflict, match="other data"):
            pretrain(request_of(resume=True), CONFIG)
        path.write_text(before)
    with pytest.raises(RunConflict, match="other data"):
        pretrain(request_of(resume=True, share=0.5), CONFIG)
    with alone(lock_of(tmp_path / "out" / "work"), "it"), pytest.raises(RunConflict, match="another process"):
        pretrain(request_of(resume=True), CONFIG)
    (tmp_path / "out" / "config.json").write_text("{}")  # as of a run that was killed while it wrote the model
    pretrain(request_of(resume=True), CONFIG)
    assert not (tmp_path / "out" / "work").exists()
    told = json.loads((tmp_path / "out" / RECORD_FILE).read_text())
    assert told["licences"] == {"manners/forum": "CC0-1.0"}
    assert "manners/forum: CC0-1.0" in (tmp_path / "out" / "NOTICE").read_text()
    assert told["rows"]["manners"] > 100


def test_an_anchor_of_another_kind_is_refused_before_anything_is_written(tmp_path, request_of):
    with pytest.raises(OptionInvalid, match="another kind of backbone: width 384 and 30522 tokens"):
        pretrain(request_of(anchor="mini"), CONFIG)
    assert not (tmp_path / "out").exists()
