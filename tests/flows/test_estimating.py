"""From a score file to a queue to labels to a rate, as a person would."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest

from snapjudge.core.metric import Metric
from snapjudge.curate.labels import LabelEvent, append_labels
from snapjudge.errors import DataInvalid, InputInvalid, OptionInvalid
from snapjudge.flows.estimating import EstimateRequest, NextRequest, choose_next, estimate_rate
from snapjudge.flows.verdicts import read_verdicts

METRIC = Metric(name="m", version=1, type="boolean", inputs=("output",), question="?", labels={"bad": ("yes",), "fine": ("no",)})
RATE, ROWS = 0.25, 3000


@pytest.fixture
def traffic(tmp_path):
    """A folder with scores of two versions, texts, and the truth."""
    rng = np.random.default_rng(0)
    truth = rng.random(ROWS) < RATE
    margin = rng.normal(np.where(truth, 1.5, -1.5), 1.7) + 0.8
    scores = 1 / (1 + np.exp(-margin))

    def lines(values):
        rows = [
            {"id": str(n), "judge": "m@1", "label": "bad" if p > 0.5 else "fine", "score": p, "confidence": abs(2 * p - 1), "flagged": bool(p > 0.5)}
            for n, p in enumerate(values.tolist())
        ]
        return "".join(json.dumps(row) + "\n" for row in [*rows, {"id": "x", "judge": "m@1", "label": None, "score": None}])

    (tmp_path / "scores.jsonl").write_text(lines(scores))
    (tmp_path / "other.jsonl").write_text(lines(np.where(np.arange(ROWS) == 7, 1 - scores, scores)))
    texts = [f"parcel number {n} about delivery and post" if n % 10 else f"zebra safari trip {n} with elephants" for n in range(ROWS)]
    (tmp_path / "traffic.jsonl").write_text("".join(json.dumps({"id": str(n), "inputs": {"output": text}}) + "\n" for n, text in enumerate(texts)))
    return tmp_path, truth


def label_all(path, ids, truth):
    append_labels(
        path, [LabelEvent(example=n, label="bad" if truth[int(n)] else "fine", labeler="ana", time=datetime.now(UTC), criteria_version=1) for n in ids]
    )


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_random_share_of_a_queue_gives_the_true_rate(traffic, adaptive):
    folder, truth = traffic
    request = NextRequest(folder / "scores.jsonl", folder / "queue.jsonl", 400, METRIC, other=folder / "other.jsonl", random_share=0.7, adaptive=adaptive)
    found = choose_next(request)
    queue = [json.loads(line) for line in (folder / "queue.jsonl").read_text().splitlines()]
    assert found["chosen"] == len(queue) == 400
    assert 200 < found["reasons"]["random"] < 360
    assert {row["id"] for row in queue if row["reason"] == "disagreement"} | {row["id"] for row in queue if row["reason"] == "random"} >= {"7"}
    label_all(folder / "labels.jsonl", [row["id"] for row in queue], truth)
    result = estimate_rate(EstimateRequest(folder / "scores.jsonl", folder / "labels.jsonl", METRIC, folder / "queue.jsonl"))
    best = result["rates"][0]
    assert best["low"] <= truth.mean() <= best["high"]
    assert result["flagged_share"] > best["high"], "the judge alone is biased"
    assert result["abstained"] == 1
    assert best["high"] - best["low"] < result["rates"][1]["high"] - result["rates"][1]["low"]
    assert result["plan"][-1]["adaptive"] < result["plan"][-1]["uniform"]


def test_a_random_row_without_a_label_stops_the_estimate(traffic):
    folder, truth = traffic
    choose_next(NextRequest(folder / "scores.jsonl", folder / "queue.jsonl", 100, METRIC, random_share=1.0))
    ids = [json.loads(line)["id"] for line in (folder / "queue.jsonl").read_text().splitlines()]
    label_all(folder / "labels.jsonl", ids[1:], truth)
    with pytest.raises(InputInvalid, match="no agreed label"):
        estimate_rate(EstimateRequest(folder / "scores.jsonl", folder / "labels.jsonl", METRIC, folder / "queue.jsonl"))
    with pytest.raises(OptionInvalid, match="random sample"):
        estimate_rate(EstimateRequest(folder / "scores.jsonl", folder / "labels.jsonl", METRIC))
    assert estimate_rate(EstimateRequest(folder / "scores.jsonl", folder / "labels.jsonl", METRIC, all_random=True))["labels"] == len(ids) - 1


def test_kinds_of_text_that_labels_lack_are_chosen(traffic):
    folder, truth = traffic
    rows = [{"id": str(n), "inputs": {"output": f"parcel number {n} about delivery and post"}, "meta": {}} for n in range(1, 200) if n % 10]
    (folder / "ds").mkdir()
    (folder / "ds" / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    label_all(folder / "ds" / "labels.jsonl", [row["id"] for row in rows], truth)
    choose_next(NextRequest(folder / "scores.jsonl", folder / "q.jsonl", 60, METRIC, folder / "ds", traffic=folder / "traffic.jsonl", random_share=0))
    queue = [json.loads(line) for line in (folder / "q.jsonl").read_text().splitlines()]
    drifted = [row for row in queue if row["reason"] == "drift"]
    assert len(drifted) == 30
    assert all(int(row["id"]) % 10 == 0 for row in drifted)
    assert not {row["id"] for row in queue} & {row["id"] for row in rows}
    with pytest.raises(OptionInvalid, match="exists already"):
        choose_next(NextRequest(folder / "scores.jsonl", folder / "q.jsonl", 60, METRIC))


def test_the_proof_gives_a_rate_corrected_by_sensitivity_and_specificity(traffic):
    folder, truth = traffic
    figures = {"recall": {"value": 0.9}, "fpr": {"value": 0.3}}
    (folder / "proof.json").write_text(json.dumps({"contenders": [{"figures": figures}], "labels": {"bad": 200, "fine": 300}}))
    label_all(folder / "labels.jsonl", [str(n) for n in range(100)], truth)
    result = estimate_rate(EstimateRequest(folder / "scores.jsonl", folder / "labels.jsonl", METRIC, all_random=True, proof=folder / "proof.json"))
    assert result["rates"][2]["method"].startswith("corrected")
    with pytest.raises(OptionInvalid, match="no proof"):
        estimate_rate(EstimateRequest(folder / "scores.jsonl", folder / "labels.jsonl", METRIC, all_random=True, proof=folder / "traffic.jsonl"))


def test_a_file_that_no_score_wrote_is_refused(traffic, tmp_path):
    with pytest.raises(DataInvalid, match="score"):
        read_verdicts(traffic[0] / "traffic.jsonl")
    with pytest.raises(OptionInvalid, match="no file"):
        read_verdicts(tmp_path / "none.jsonl")
    text = (traffic[0] / "scores.jsonl").read_text()
    (tmp_path / "two.jsonl").write_text(text + text.replace("m@1", "n@1"))
    with pytest.raises(OptionInvalid, match="answers of"):
        read_verdicts(tmp_path / "two.jsonl")
    assert len(read_verdicts(tmp_path / "two.jsonl", "n").ids) == ROWS
    (tmp_path / "twice.jsonl").write_text(text + text)
    with pytest.raises(DataInvalid, match="twice"):
        read_verdicts(tmp_path / "twice.jsonl")
