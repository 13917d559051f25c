"""Training to a bundle and proving on other data, end to end on mini. One file, since nearly every test looks at the same trained judge."""

import json
import shutil

import pytest

from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.core.rules import Gate
from snapjudge.errors import (
    BackboneMismatch,
    BackboneNotFound,
    BundleNotFound,
    DataInvalid,
    DataLeak,
    Interrupted,
    LabelNotOneToken,
    MetricInvalid,
    OptionInvalid,
    RuleInvalid,
    RunConflict,
    SnapjudgeError,
    StorageFailed,
    TooFewExamples,
)
from snapjudge.flows.claims import alone, lock_of
from snapjudge.flows.prove_judge import ProveRequest, prove_judge
from snapjudge.flows.train_judge import train_judge
from snapjudge.flows.train_terms import TrainConfig, TrainRequest
from snapjudge.flows.variants import with_noise, without_optional
from snapjudge.judge import Judge
from snapjudge.model.prompt import render_content
from snapjudge.prove.plain import what_it_promises, where_not_to_use_it
from snapjudge.store.bundles import load_bundle
from snapjudge.testing import make_examples, write_tiny_decoder
from snapjudge.train.terms import FitConfig
from tests.workshop import CONFIG, METRIC_YAML, as_line


def request(folder, **changes):
    return TrainRequest(**{"metric_path": folder / "metric.yaml", "data": [folder / "data.jsonl"], "out": folder / "judges", **changes})


def test_the_bundle_is_complete_and_its_proof_beats_the_majority(workshop):
    _, result = workshop
    bundle = load_bundle(result.folder)
    assert {"README.md", "report.html", "proof.json", "run.json", "calibration.json", "metric.yaml"} <= set(bundle.manifest.files)
    assert [one.name for one in result.proof.contenders] == ["judge", "majority", "TF-IDF + LR", "embedding + LR"]
    assert result.proof.judge_figures["auroc"].value > 0.8
    assert set(result.proof.judge_figures) >= {"f1", "precision", "recall", "fpr", "auroc", "auprc", "brier", "ece"}
    run = json.loads((result.folder / "run.json").read_text())
    assert run["config"]["fit"]["rank"] == 4
    assert next(iter(run["data"].values()))


def test_the_card_tells_what_is_promised_and_where_not_to_use_it(workshop):
    _, result = workshop
    card = (result.folder / "README.md").read_text()
    for line in (*what_it_promises(result.proof), *where_not_to_use_it(result.proof), *result.proof.notes):
        assert f"\n- {line}\n" in card
    assert "\n- made: not stated\n" in card, "sources and licences of the training data"


def test_the_report_is_one_page_that_needs_nothing_else(workshop):
    _, result = workshop
    page = (result.folder / "report.html").read_text()
    assert page.count("<svg") == 5
    for outside in ("<script", "http://", "https://", "<link", "src="):
        assert outside not in page.replace("http://www.w3.org/2000/svg", "")
    assert "says_buy@1" in page
    assert "Worst errors" in page


def test_text_in_the_report_is_escaped(workshop, tmp_path):
    folder, _ = workshop
    lines = [as_line(e.model_copy(update={"inputs": {"output": f"<script>alert(1)</script> {e.inputs['output']} buy"}})) for e in make_examples(40, seed=5)]
    (tmp_path / "evil.jsonl").write_text("\n".join(lines))
    prove_judge(ProveRequest(str(folder / "judges" / "says_buy"), [tmp_path / "evil.jsonl"], tmp_path / "out"))
    assert "<script" not in (tmp_path / "out" / "report.html").read_text()


def test_a_second_training_writes_the_next_version_with_the_same_weights(workshop, tmp_path):
    folder, result = workshop
    again = train_judge(request(folder, out=tmp_path), CONFIG)
    second = train_judge(request(folder, out=tmp_path), CONFIG)
    weights = [(one / "adapter" / "adapter_model.safetensors").read_bytes() for one in (result.folder, again.folder, second.folder)]
    assert weights[0] == weights[1] == weights[2]
    assert second.folder.name == "2"


def test_a_training_that_fails_before_its_first_step_stands_in_nobodys_way(workshop, tmp_path):
    folder, _ = workshop
    with pytest.raises(BundleNotFound):
        train_judge(request(folder, out=tmp_path), CONFIG.model_copy(update={"teacher": "nosuch"}))
    assert not (tmp_path / "says_buy" / ".training").exists()
    work = tmp_path / "says_buy" / ".training"
    work.mkdir(parents=True)
    (work / "run.json").write_text("[]")
    with pytest.raises(RunConflict, match="was of other data"):
        train_judge(request(folder, out=tmp_path, resume=True), CONFIG)


def kept(result, seed=0):
    """A configuration that trains nothing and keeps the adapter of a judge."""
    return TrainConfig(adapter=str(result.folder), probes=10, fit=FitConfig(seed=seed))


def test_an_adapter_is_kept_and_calibrated_and_proved_again(workshop, tmp_path):
    folder, result = workshop
    path = tmp_path / "metric.yaml"
    path.write_text(METRIC_YAML.replace("fpr<=0.3@80%", "fpr<=0.4@80%") + "windows: passages\n")
    again = train_judge(request(folder, out=tmp_path / "judges", metric_path=path), kept(result))
    one, other = ((made.folder / "adapter" / "adapter_model.safetensors").read_bytes() for made in (result, again))
    assert one == other
    assert any("not trained again" in note for note in again.proof.notes)
    assert again.proof.judge_figures["auroc"] == result.proof.judge_figures["auroc"]
    assert load_bundle(again.folder).metric.windows == "passages"
    third = train_judge(request(folder, out=tmp_path / "third", metric_path=path), kept(again))
    runs = [json.loads((made.folder / "run.json").read_bytes()) for made in (result, again, third)]
    assert runs[1]["trained"] == runs[2]["trained"]
    assert runs[2]["trained"]["config"] == runs[0]["config"]
    assert runs[2]["trained"]["data"] == runs[0]["data"]


def test_an_adapter_is_not_kept_for_another_question(workshop, tmp_path):
    folder, result = workshop
    path = tmp_path / "metric.yaml"
    path.write_text(METRIC_YAML.replace("Does it say buy?", "Does it say sell?"))
    with pytest.raises(OptionInvalid, match="another question"):
        train_judge(request(folder, out=tmp_path / "judges", metric_path=path), kept(result))
    assert not (tmp_path / "judges" / "says_buy" / "1").exists()


def test_an_adapter_is_not_proved_again_on_texts_it_was_trained_on(workshop, tmp_path):
    folder, result = workshop
    with pytest.raises(DataLeak, match="was trained on"):
        train_judge(request(folder, out=tmp_path), kept(result, seed=7))


def test_what_only_training_reads_is_refused_where_an_adapter_is_kept(workshop, tmp_path):
    folder, result = workshop
    config = kept(result).model_copy(update={"scope": "all", "noise": 0.5, "fit": FitConfig(rank=4)})
    with pytest.raises(OptionInvalid, match="--scope, --noise, --rank, --unlabelled say how to train"):
        train_judge(request(folder, out=tmp_path, unlabelled=[folder / "new.jsonl"]), config)


def test_an_interrupted_training_resumes_to_the_same_bundle(workshop, tmp_path):
    folder, result = workshop
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 6

    with pytest.raises(Interrupted):
        train_judge(request(folder, out=tmp_path), CONFIG, stop=stop)
    with pytest.raises(RunConflict, match="interrupted training"):
        train_judge(request(folder, out=tmp_path), CONFIG)
    changed = CONFIG.model_copy(update={"allow_leak": True})
    with pytest.raises(RunConflict, match="other data, settings"):
        train_judge(request(folder, out=tmp_path, resume=True), changed)
    with alone(lock_of(tmp_path / "says_buy" / ".training"), "it"), pytest.raises(RunConflict, match="another process is at work on the training of says_buy"):
        train_judge(request(folder, out=tmp_path, resume=True), CONFIG)
    resumed = train_judge(request(folder, out=tmp_path, resume=True), CONFIG)
    name = "adapter/adapter_model.safetensors"
    assert (resumed.folder / name).read_bytes() == (result.folder / name).read_bytes()
    assert not (tmp_path / "says_buy" / ".training").exists()


def test_proving_on_other_data_names_the_bundle_and_leaves_it_alone(workshop, tmp_path):
    folder, result = workshop
    before = {path: path.read_bytes() for path in result.folder.rglob("*") if path.is_file()}
    proof = prove_judge(ProveRequest(str(result.folder), [folder / "new.jsonl"], tmp_path, gates=[Gate.parse("auroc>=0.5")]))
    assert proof.bundle_digest == load_bundle(result.folder).digest
    assert proof.gates[0].passed
    assert {path.name for path in tmp_path.iterdir()} == {"proof.json", "report.html"}
    assert before == {path: path.read_bytes() for path in result.folder.rglob("*") if path.is_file()}


def test_proving_on_training_texts_is_refused_unless_allowed(workshop):
    folder, result = workshop
    with pytest.raises(DataLeak, match="was trained on"):
        prove_judge(ProveRequest(str(result.folder), [folder / "data.jsonl"]))
    proof = prove_judge(ProveRequest(str(result.folder), [folder / "data.jsonl"], allow_leak=True))
    assert any("too good" in note for note in proof.notes)


def test_parts_of_their_own_are_used_and_kept_apart(workshop, tmp_path):
    folder, _ = workshop
    parts = {}
    for seed, name in ((31, "validation"), (32, "calibration")):
        lines = [as_line(e.model_copy(update={"id": f"{name}{e.id}"})) for e in make_examples(40, seed=seed)]
        parts[name] = [tmp_path / f"{name}.jsonl"]
        shared = (folder / "data.jsonl").read_text().splitlines()[:6] if name == "validation" else []
        parts[name][0].write_text("\n".join([*lines, *shared]))
    result = train_judge(request(folder, out=tmp_path, **parts), CONFIG)
    assert result.proof.data["validation"] == 46
    assert result.proof.data["calibration"] == 40
    assert any("6 examples that share a text or group" in note for note in result.proof.notes)
    with pytest.raises(DataLeak):
        train_judge(request(folder, out=tmp_path, validation=parts["validation"], calibration=parts["validation"]), CONFIG)


def test_a_judge_with_a_backbone_of_its_own(workshop, tmp_path):
    folder, other = workshop
    config = CONFIG.model_copy(update={"scope": "backbone", "fit": CONFIG.fit.model_copy(update={"rate": 2e-3})})
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 8

    with pytest.raises(Interrupted):
        train_judge(request(folder, out=tmp_path), config, stop=stop)
    result = train_judge(request(folder, out=tmp_path, resume=True), config)
    assert result.proof.scope == "backbone"
    assert result.proof.judge_figures["auroc"].value > 0.8
    bundle = load_bundle(result.folder)
    assert bundle.manifest.backbone.name == "own"
    assert {"backbone/model.safetensors", "backbone/tokenizer.json", "backbone/config.json"} <= set(bundle.manifest.files)
    judge = Judge.load(result.folder)
    assert judge.backbone.digest == bundle.manifest.backbone.digest != Judge.load(other.folder).backbone.digest
    worst = result.proof.worst[0] if result.proof.worst else None
    if worst is not None:
        assert judge.score(**worst.inputs).score == worst.score
    proved = prove_judge(ProveRequest(str(result.folder), [folder / "new.jsonl"], tmp_path / "proof"))
    assert proved.judge_figures["auroc"].value > 0.7


def test_optional_inputs_are_dropped_from_some_examples_only_in_training():
    metric = Metric(
        name="m", version=1, type="boolean", inputs=("context", "output"), optional=("context",), question="?", labels={"a": ("yes",), "b": ("no",)}
    )
    examples = [Example(id=str(n), inputs={"context": "c", "output": f"o{n}"}, target=(1.0, 0.0)) for n in range(200)]
    examples += [Example(id="x", inputs={"output": "alone"}, target=(1.0, 0.0))]
    dropped = without_optional(examples, metric, 0.3, 0)
    assert 40 < len(dropped) < 80
    assert all(list(example.inputs) == ["output"] and example.target == (1.0, 0.0) for example in dropped)
    assert without_optional(examples, metric, 0.0, 0) == []
    assert len(without_optional(examples, metric, 1.0, 0)) == 200


def test_some_examples_are_shown_again_with_noise_that_the_backbone_sees(mini):
    metric = Metric(name="m", version=1, type="boolean", inputs=("context", "output"), question="?", labels={"a": ("yes",), "b": ("no",)})
    inputs = [{"context": f"The shop number {n} opens at nine. It closes late.", "output": "The shop opens at nine."} for n in range(100)]
    examples = [Example(id=str(n), inputs=one, target=(1.0, 0.0)) for n, one in enumerate(inputs)]
    noisy = with_noise(examples, metric, mini, 0.4, 0)
    assert 25 < len(noisy) < 55
    before = {example.id: render_content(example.inputs, metric, mini) for example in examples}
    for example in noisy:
        assert example.target == (1.0, 0.0)
        assert render_content(example.inputs, metric, mini) != before[example.id.rstrip("~")]
    assert [example.inputs for example in with_noise(examples, metric, mini, 0.4, 0)] == [example.inputs for example in noisy]
    assert len(with_noise(examples, metric, mini, 1.0, 0)) == 100
    assert with_noise(examples, metric, mini, 0.0, 0) == []


def test_a_gate_on_an_unknown_figure_lists_the_known_ones(workshop):
    folder, result = workshop
    with pytest.raises(RuleInvalid) as caught:
        prove_judge(ProveRequest(str(result.folder), [folder / "new.jsonl"], gates=[Gate.parse("goodness>=1")]))
    assert "auroc" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"metric": METRIC_YAML.replace("boolean", "bool")}, MetricInvalid),
        ({"metric": METRIC_YAML.replace('["yes"]', "[yes]")}, MetricInvalid),
        ({"metric": METRIC_YAML.replace('["yes"]', '["unbelievablywrong"]')}, LabelNotOneToken),
        ({"data": [as_line(e) for e in make_examples(12)]}, TooFewExamples),
        ({"data": [as_line(e) for e in make_examples(80) if e.label_index == 0]}, DataInvalid),
        ({"data": [as_line(e) for e in make_examples(80) if e.label_index == 0 or int(e.id[1:]) < 2]}, TooFewExamples),
        ({"data": ["{broken"]}, DataInvalid),
        ({"gates": [Gate.parse("goodness>=1")]}, RuleInvalid),
        ({"test": [as_line(e) for e in make_examples(120)[:30]]}, DataLeak),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, change, error):
    (tmp_path / "metric.yaml").write_text(change.get("metric", METRIC_YAML))
    (tmp_path / "data.jsonl").write_text("\n".join(change.get("data", [as_line(e) for e in make_examples(120)])) + "\n")
    test = []
    if "test" in change:
        (tmp_path / "test.jsonl").write_text("\n".join(change["test"]) + "\n")
        test = [tmp_path / "test.jsonl"]
    with pytest.raises(error) as caught:
        train_judge(request(tmp_path, test=test, gates=change.get("gates", ())), CONFIG)
    assert caught.value.message
    assert not (tmp_path / "judges").exists()


def test_rows_of_one_group_are_refused_with_the_reason(tmp_path):
    (tmp_path / "metric.yaml").write_text(METRIC_YAML)
    (tmp_path / "data.jsonl").write_text("\n".join(as_line(e, meta={"group": "g"}) for e in make_examples(120)) + "\n")
    with pytest.raises(TooFewExamples) as caught:
        train_judge(request(tmp_path), CONFIG)
    assert "all rows are of 1 `meta.group`, and a group is never split" in caught.value.hint


def test_a_missing_metric_file_and_an_unknown_backbone_say_what_to_do(workshop, tmp_path):
    folder, _ = workshop
    with pytest.raises(StorageFailed, match=r"none\.yaml"):
        train_judge(request(folder, metric_path=tmp_path / "none.yaml"), CONFIG)
    with pytest.raises(BackboneNotFound) as caught:
        train_judge(request(folder, out=tmp_path), CONFIG.model_copy(update={"backbone": "no-such/model"}))
    assert "mini" in caught.value.hint


def test_a_report_inside_the_bundle_is_refused(workshop):
    folder, result = workshop
    with pytest.raises(OptionInvalid, match="never changes"):
        prove_judge(ProveRequest(str(result.folder), [folder / "new.jsonl"], result.folder / "again"))
    assert load_bundle(result.folder)


def test_two_judges_of_one_name_are_not_dropped_silently(workshop):
    from snapjudge.errors import BundleInvalid
    from snapjudge.judge import Panel

    _, result = workshop
    with pytest.raises(BundleInvalid, match="says_buy@1"):
        Panel.load([result.folder, result.folder])


def test_a_full_disk_while_content_states_spill_is_an_error_not_a_crash(workshop, tmp_path, monkeypatch):
    import errno
    import os

    folder, _ = workshop
    real = os.write

    def write(descriptor, raw):
        if len(raw) > 10_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, raw)

    config = CONFIG.model_copy(update={"fit": CONFIG.fit.model_copy(update={"cache_gb": 0.0})})
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(StorageFailed, match="disk is full"):
            train_judge(request(folder, out=tmp_path), config)
    assert train_judge(request(folder, out=tmp_path, resume=True), config).folder.exists()


def test_a_precision_promise_at_a_stated_prevalence_is_refused(workshop, tmp_path):
    folder, _ = workshop
    with pytest.raises(OptionInvalid, match="precision"):
        train_judge(request(folder, out=tmp_path), CONFIG.model_copy(update={"prevalence": 0.01, "threshold": "precision>=0.8@90%"}))


def test_a_prevalence_for_a_metric_of_many_labels_is_refused(tmp_path):
    (tmp_path / "metric.yaml").write_text('name: m\nversion: 1\ntype: choice\ninputs: [output]\nquestion: Which?\nlabels: {bad: ["yes"], fine: ["no"]}\n')
    (tmp_path / "data.jsonl").write_text("\n".join(as_line(e) for e in make_examples(120)))
    with pytest.raises(OptionInvalid, match="boolean"):
        train_judge(request(tmp_path), CONFIG.model_copy(update={"prevalence": 0.1, "fit": CONFIG.fit.model_copy(update={"epochs": 1})}))


def test_a_judge_is_refused_on_another_backbone(workshop, tmp_path):
    _, result = workshop
    other = write_tiny_decoder(tmp_path / "tiny", "llama")
    with pytest.raises(BackboneMismatch, match="was trained on mini"):
        Judge.load(result.folder, backbone=str(other))


def test_a_judge_trains_on_any_decoder_and_is_tied_to_its_weights(tmp_path):
    folder = write_tiny_decoder(tmp_path / "tiny", "qwen2", seed=1)
    (tmp_path / "metric.yaml").write_text(METRIC_YAML)
    (tmp_path / "data.jsonl").write_text("\n".join(as_line(e) for e in make_examples(80)))
    result = train_judge(request(tmp_path), CONFIG.model_copy(update={"backbone": str(folder)}))
    assert Judge.load(result.folder).score(output="please buy").probabilities
    write_tiny_decoder(folder, "qwen2", seed=2)
    from snapjudge.judge import _shared

    _shared.cache_clear()
    with pytest.raises(BackboneMismatch):
        Judge.load(result.folder)


def test_a_full_disk_at_the_end_keeps_the_training_state(workshop, tmp_path, monkeypatch):
    import errno

    from snapjudge.flows import bundling as module

    folder, _ = workshop

    def full(*_, **__):
        raise StorageFailed("cannot write: the disk is full") from OSError(errno.ENOSPC, "")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_bundle", full)
        with pytest.raises(StorageFailed):
            train_judge(request(folder, out=tmp_path), CONFIG)
    assert (tmp_path / "says_buy" / ".training" / "fit-readout.safetensors").exists()
    assert train_judge(request(folder, out=tmp_path, resume=True), CONFIG).folder.exists()
    shutil.rmtree(tmp_path / "says_buy")


def test_auto_tries_every_token_where_the_readout_does_not_beat_the_baseline(workshop, tmp_path):
    folder, _ = workshop
    config = CONFIG.model_copy(update={"scope": "auto", "fit": CONFIG.fit.model_copy(update={"rate": 1e-5, "epochs": 1})})
    result = train_judge(request(folder, out=tmp_path), config)
    assert any("scope auto also tried all" in note for note in result.proof.notes)
    assert any("scope auto kept" in note for note in result.proof.notes)


def test_every_error_carries_a_code_a_status_and_a_next_step():
    import inspect

    from snapjudge import errors

    tree = errors.__doc__
    codes = set()
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, SnapjudgeError) and kind is not SnapjudgeError and not kind.__name__.startswith("_"):
            assert 400 <= kind.status < 600
            assert kind.__name__ in tree
            codes.add(kind.code)
    assert len(codes) >= 20
