"""Merging judges: one adapter for several policies, proved beside what each was; what cannot be merged is refused before any work."""

import json

import pytest

from snapjudge.errors import BackboneMismatch, DataLeak, Interrupted, OptionInvalid, RunConflict
from snapjudge.flows.merging import TABLE, MergeRequest, merge_judges
from snapjudge.flows.train_judge import train_judge
from snapjudge.flows.train_terms import TrainRequest
from snapjudge.judge import Judge
from snapjudge.store.bundles import load_bundle
from snapjudge.testing import make_examples
from snapjudge.train.merge import MergeConfig
from snapjudge.train.merge_search import SearchConfig
from tests.workshop import CONFIG, METRIC_YAML


def line(example, word, prefix):
    label = "bad" if word in example.inputs["output"].split() else "fine"
    return json.dumps({"id": f"{prefix}{example.id}", "inputs": example.inputs, "label": label})


@pytest.fixture(scope="module")
def policies(workshop, tmp_path_factory):
    """The workshop's judge, another one about another word, and new rows for both."""
    folder = tmp_path_factory.mktemp("merging")
    (folder / "sell.yaml").write_text(METRIC_YAML.replace("says_buy", "says_toxic").replace("say buy", "say toxic"))
    rule = {"rule": lambda text: "toxic" in text.split()}
    (folder / "train.jsonl").write_text("\n".join(line(e, "toxic", "t") for e in make_examples(160, seed=41, **rule)))
    (folder / "buy.yaml").write_text(METRIC_YAML)
    (folder / "train_buy.jsonl").write_text("\n".join(line(e, "buy", "u") for e in make_examples(80, seed=44)))
    (folder / "buy.jsonl").write_text("\n".join(line(e, "buy", "b") for e in make_examples(90, seed=42)))
    (folder / "toxic.jsonl").write_text("\n".join(line(e, "toxic", "s") for e in make_examples(120, seed=43)))
    other = train_judge(TrainRequest(folder / "sell.yaml", [folder / "train.jsonl"], folder / "judges"), CONFIG)
    names = [str(workshop[1].folder), str(other.folder)]
    return folder, names, {"says_buy": [folder / "buy.jsonl"], "says_toxic": [folder / "toxic.jsonl"]}


def test_a_stated_merge_writes_the_next_version_of_each(policies, tmp_path):
    _, names, data = policies
    result = merge_judges(MergeRequest(names, data, tmp_path, fixed=MergeConfig(weights=(1, 1)), rank=8))
    assert result.error < 1e-6  # the ranks of both fit
    weights = set()
    for path, proof, name in zip(result.folders, result.proofs, data, strict=True):
        bundle = load_bundle(path)
        assert bundle.manifest.judge == f"{name}@1"
        weights.add((path / "adapter" / "adapter_model.safetensors").read_bytes())
        assert [one.name for one in proof.contenders] == ["judge", f"{name}@1 alone"]
        assert any("merged from says_buy@1, says_toxic@1 by linear" in note for note in proof.notes)
        run = json.loads((path / "run.json").read_text())
        assert run["merged"]["config"]["method"] == "linear"
        assert Judge.load(path).score(output="please buy one").judge == f"{name}@1"
    assert len(weights) == 1


@pytest.mark.parametrize(("call", "trials"), [(3, 0), (5, 2)], ids=["while contents are read", "between trials"])
def test_a_search_keeps_its_table_and_goes_on(policies, tmp_path, call, trials):
    _, names, data = policies
    config = SearchConfig(trials=4, methods=("linear", "ties"), floors={"says_buy": 0.2})
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == call

    request = MergeRequest(names, data, tmp_path, config)
    with pytest.raises(Interrupted):
        merge_judges(request, stop=stop)
    assert len((tmp_path / ".merge" / TABLE).read_text().splitlines()) == 1 + trials
    assert [file.name for file in (tmp_path / ".merge").iterdir()] == [TABLE]
    with pytest.raises(RunConflict, match="interrupted search"):
        merge_judges(request)
    result = merge_judges(MergeRequest(names, data, tmp_path, config, resume=True))
    table = (result.folders[0] / TABLE).read_text().splitlines()
    assert len(table) == 1 + 4
    assert result.search.best.figures["says_buy"] >= 0.2
    assert not (tmp_path / ".merge" / TABLE).exists()


def test_what_cannot_be_merged_is_refused(policies, workshop, tmp_path):
    folder, names, data = policies
    for request, match in (
        (MergeRequest(names[:1], data, tmp_path), "one judge alone"),
        (MergeRequest([names[0], names[0]], data, tmp_path), "two judges of one name"),
        (MergeRequest(names, {"nobody": [folder / "buy.jsonl"]}, tmp_path), "nobody is none"),
        (MergeRequest(names, {}, tmp_path), "no policy has data"),
    ):
        with pytest.raises(OptionInvalid, match=match):
            merge_judges(request)
    with pytest.raises(DataLeak):
        merge_judges(MergeRequest(names, {"says_buy": [workshop[0] / "data.jsonl"]}, tmp_path, fixed=MergeConfig(weights=(1, 1))))


def test_judges_with_backbones_of_their_own_merge_whole(policies, tmp_path):
    folder, names, data = policies
    config = CONFIG.model_copy(update={"scope": "backbone", "probes": 0, "fit": CONFIG.fit.model_copy(update={"epochs": 1, "rate": 1e-3})})
    own = [
        train_judge(TrainRequest(folder / "sell.yaml", [folder / "train.jsonl"], tmp_path / "own"), config),
        train_judge(TrainRequest(folder / "buy.yaml", [folder / "train_buy.jsonl"], tmp_path / "own"), config),
    ]
    judges = [str(one.folder) for one in own]
    with pytest.raises(BackboneMismatch):
        merge_judges(MergeRequest([judges[0], names[0]], data, tmp_path, fixed=MergeConfig(weights=(1, 1))))
    result = merge_judges(MergeRequest(judges, data, tmp_path / "merged", fixed=MergeConfig(method="ties", weights=(1, 1), density=0.8)))
    one, two = (Judge.load(path) for path in result.folders)
    assert one.backbone.digest == two.backbone.digest
    assert one.backbone.digest not in {Judge.load(path).backbone.digest for path in judges}
    assert one.bundle.manifest.scope == "backbone"
    for judge, proof in zip((one, two), result.proofs, strict=True):
        for worst in proof.worst[:2]:
            assert judge.score(**worst.inputs).score == worst.score
