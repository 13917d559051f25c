"""Merging judges: one adapter for several policies, proved beside what each was; what cannot be merged is refused before any work."""

import json
from dataclasses import replace

import pytest

from snapjudge.errors import BackboneMismatch, DataLeak, Interrupted, OptionInvalid, RunConflict
from snapjudge.flows.claims import MARK, alone, lock_of
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
    assert {file.name for file in (tmp_path / ".merge").iterdir()} == {TABLE, MARK}
    with pytest.raises(RunConflict, match="interrupted search"):
        merge_judges(request)
    for other in ({"judges": names[::-1]}, {"rank": 4}, {"data": {"says_buy": data["says_buy"]}}):
        with pytest.raises(RunConflict, match="was of other data, settings or models"):
            merge_judges(replace(request, resume=True, **other))
    with alone(lock_of(tmp_path / ".merge"), "it"), pytest.raises(RunConflict, match="another process is at work on the search of a merge"):
        merge_judges(replace(request, resume=True))
    merge_judges(MergeRequest(names, data, tmp_path, fixed=MergeConfig(weights=(1, 1))))  # which searches nothing, and keeps away from the search
    result = merge_judges(MergeRequest(names, data, tmp_path, config, resume=True))
    table = (result.folders[0] / TABLE).read_text().splitlines()
    assert len(table) == 1 + 4
    assert result.search.best.figures["says_buy"] >= 0.2
    assert not (tmp_path / ".merge").exists()
    assert not (tmp_path / "says_buy" / "1" / TABLE).exists()


COUNTING = {
    "how_often": "type: score\ninputs: [output]\nquestion: How often does it say buy, from 1 to 3?\nlabels: {'1': ['1'], '2': ['2'], '3': ['3']}\n",
    "more": "type: pairwise\ninputs: [a, b]\nquestion: Which text says buy more often?\nlabels: {a: ['first'], b: ['second']}\n",
}


def test_a_judge_of_scores_and_one_of_pairs_become_one(tmp_path):
    """As an absolute and a pairwise expert do (Prometheus 2): one adapter rates and prefers, and what each metric has (levels, both orders) stays its own."""
    amounts = [number % 3 for number in range(160)]
    texts = [e.inputs["output"].replace("buy", "get") + " buy" * amount for e, amount in zip(make_examples(160, seed=51), amounts, strict=True)]
    pairs = [(one, (one + 1 + one // 3 % 2) % 160) for one in range(160)]
    rows = {
        "how_often": [{"inputs": {"output": text}, "label": str(amount + 1)} for text, amount in zip(texts, amounts, strict=True)],
        "more": [{"inputs": {"a": texts[x], "b": texts[y]}, "label": "ab"[amounts[x] < amounts[y]]} for x, y in pairs if amounts[x] != amounts[y]],
    }
    made, data = [], {}
    for name, text in COUNTING.items():
        (tmp_path / f"{name}.yaml").write_text(f"name: {name}\nversion: 1\npolicy: Count.\n{text}")
        for part, own in (("train", rows[name][:80]), ("new", rows[name][80:])):
            (tmp_path / f"{name}.{part}.jsonl").write_text("\n".join(json.dumps({"id": str(n), **row}) for n, row in enumerate(own)))
        data[name] = [tmp_path / f"{name}.new.jsonl"]
        made.append(train_judge(TrainRequest(tmp_path / f"{name}.yaml", [tmp_path / f"{name}.train.jsonl"], tmp_path / "judges"), CONFIG))
    names = [str(one.folder) for one in made]
    result = merge_judges(MergeRequest(names, data, tmp_path / "both", fixed=MergeConfig(weights=(1, 1)), rank=8, allow_leak=True))
    score, pair = (Judge.load(path) for path in result.folders)
    assert len({(path / "adapter" / "adapter_model.safetensors").read_bytes() for path in result.folders}) == 1
    assert "pearson" in result.proofs[0].judge_figures
    assert 0 <= score.score(output="buy buy").score <= 1
    given, turned = pair.score(a="please buy", b="thank you"), pair.score(a="thank you", b="please buy")
    assert given.probabilities["a"] == pytest.approx(turned.probabilities["b"], abs=1e-6)
    probes = {probe.name: probe for probe in made[1].proof.probes}
    assert probes["answers in the other order"].rate.value == 0
    bias = probes["position bias of one order"]
    assert bias.fine, "told, not judged: the judge asks both orders"
    assert "the first place wins" in bias.note
    assert 0 < bias.rows <= 10


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
    searched = merge_judges(MergeRequest(judges, data, tmp_path / "found", SearchConfig(trials=3, methods=("linear", "dare"))))
    assert len(searched.search.trials) == 3
    assert {trial.config.method for trial in searched.search.trials} <= {"linear", "dare"}
    table = (searched.folders[0] / TABLE).read_text().splitlines()
    assert len(table) == 1 + 3
    best = max(searched.search.trials, key=lambda trial: sum(trial.figures.values()))
    assert sum(searched.search.best.figures.values()) == sum(best.figures.values())
