"""From scored traffic to what people should label next, and from their labels to the true rate."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from snapjudge.core.example import plain_text
from snapjudge.core.metric import Metric
from snapjudge.curate.choosing import Candidates, Choice, choose
from snapjudge.curate.dataset import Dataset, is_dataset, read_dataset
from snapjudge.curate.labels import current_labels, read_labels
from snapjudge.errors import DataInvalid, InputInvalid, OptionInvalid, Problem
from snapjudge.flows.labelling import label_file
from snapjudge.flows.verdicts import Verdicts, read_verdicts, texts_by_id
from snapjudge.prove.estimates import Rate, Traffic, classical, corrected, expected_error, prediction_powered, sampling_plan
from snapjudge.store.files import write_file


@dataclass(frozen=True)
class NextRequest:
    """What is to be chosen from: scored traffic, and what helps to choose.

    Args:
        other: the same traffic scored by another version, or a shadow.
        traffic: the traffic's texts, by which kinds are found that labels lack.
        random_share: of the rows wanted; `adaptive` draws them where the judge is unsure, with known probability.
    """

    scores: Path
    out: Path
    count: int
    metric: Metric
    dataset: Path | None = None
    judge: str | None = None
    other: Path | None = None
    traffic: Path | None = None
    random_share: float = 0.3
    adaptive: bool = False
    seed: int = 0


def choose_next(request: NextRequest) -> dict[str, Any]:
    """Choose rows to label and write them, one {"id", "reason", "probability", "note"} a line.

    Raises:
        DataInvalid, OptionInvalid.
    """
    live = read_verdicts(request.scores, request.judge)
    if not live.ids:
        raise OptionInvalid(f"{request.scores} has no answers to choose from", hint="score some traffic first")
    if request.out.exists():
        raise OptionInvalid(f"{request.out} exists already", hint="label its rows first; its sampling probabilities are needed for the estimate")
    labels = {} if request.dataset is None else current_labels(read_labels(label_file(request.dataset)).events)
    at_random = round(request.count * request.random_share)
    drawn = sampling_plan(live.scores, at_random, uniform_share=0.2 if request.adaptive else 1.0)
    candidates = Candidates(
        live.ids,
        live.confidence,
        drawn,
        np.array([name in labels for name in live.ids], dtype=bool),
        None if request.other is None else _gap(live, read_verdicts(request.other)),
        None if request.traffic is None else texts_by_id(request.traffic, live.ids),
        _known_texts(request, set(labels)),
    )
    found = choose(candidates, request.count, seed=request.seed)
    write_file(request.out, "".join(json.dumps(one.model_dump(exclude_defaults=True)) + "\n" for one in found))
    return {
        "chosen": len(found),
        "reasons": dict(Counter(one.reason for one in found)),
        "judge": live.judge,
        "expected_error": expected_error(live.scores, drawn) if at_random else None,
        "out": str(request.out),
    }


def _gap(live: Verdicts, other: Verdicts) -> np.ndarray[Any, np.dtype[np.float64]]:
    by_id = dict(zip(other.ids, other.scores.tolist(), strict=True))
    return np.array([abs(score - by_id.get(name, score)) for name, score in zip(live.ids, live.scores.tolist(), strict=True)])


def _known_texts(request: NextRequest, labelled: set[str]) -> list[str]:
    if request.dataset is None or not is_dataset(request.dataset):
        return []
    return [plain_text(row.inputs) for row in read_dataset(Dataset(request.dataset), request.metric) if row.id in labelled]


@dataclass(frozen=True)
class EstimateRequest:
    """Scored traffic, labels, and the queue that says which of them were drawn at random and how likely; or the word that all of them were."""

    scores: Path
    labels: Path
    metric: Metric
    queue: Path | None = None
    all_random: bool = False
    judge: str | None = None
    proof: Path | None = None


def estimate_rate(request: EstimateRequest) -> dict[str, Any]:
    """How often traffic carries a flagged label: by the judge alone, by labels alone, prediction-powered, and corrected by the judge's proof.

    Raises:
        InputInvalid: too few random labels. OptionInvalid, DataInvalid.
    """
    metric = request.metric
    if not metric.positive_labels:
        raise OptionInvalid(f"{metric.name} flags nothing", hint="a rate is that of a flagged label")
    live = read_verdicts(request.scores, request.judge)
    now = current_labels(read_labels(label_file(request.labels)).events, metric.version)
    drawn = _drawn(request, live, set(now))
    places = {name: place for place, name in enumerate(live.ids)}
    used = {name: p for name, p in drawn.items() if name in places and name in now and now[name].label is not None}
    missing = sum(name in places and (name not in now or now[name].label is None) for name in drawn)
    if missing:
        raise InputInvalid(
            f"{missing} of {len(drawn)} rows of the random share have no agreed label yet",
            hint="label all of them: an estimate from those that were easy to label is biased",
        )
    order = list(used)
    truth = np.array([now[name].label in metric.positive_labels for name in order], dtype=bool)
    traffic = Traffic(live.scores, np.array([places[name] for name in order], dtype=np.int64), truth, np.array([used[name] for name in order], dtype=float))
    rates = [prediction_powered(traffic), classical(traffic)]
    if request.proof is not None:
        rates.append(_corrected(live, request.proof, metric))
    return {
        "judge": live.judge,
        "traffic": len(live.ids),
        "abstained": live.abstained,
        "labels": len(order),
        "flagged_share": float(live.flagged.mean()),
        "mean_score": float(live.scores.mean()),
        "rates": [rate.model_dump() for rate in rates],
        "plan": _plan(live, rates[0]),
    }


def _drawn(request: EstimateRequest, live: Verdicts, labelled: set[str]) -> dict[str, float]:
    """The rows of the random share and how likely each was to be drawn."""
    if request.queue is None and not request.all_random:
        raise OptionInvalid(
            "which labels are a random sample?",
            hint="give --queue as `snapjudge data next` wrote it, or --all-random if all labelled rows were drawn at random",
        )
    if request.queue is None:
        known = [name for name in live.ids if name in labelled]
        return dict.fromkeys(known, len(known) / max(1, len(live.ids)))
    try:
        choices = [Choice.model_validate_json(line) for line in request.queue.read_bytes().splitlines()]
    except (ValidationError, OSError) as error:
        problem = Problem("(queue)", str(error).splitlines()[0], "lines of `snapjudge data next`")
        raise DataInvalid(request.queue.name, [problem], hint="give the queue as it was written") from error
    return {one.id: one.probability for one in choices if one.probability is not None}


def _corrected(live: Verdicts, proof: Path, metric: Metric) -> Rate:
    """By the sensitivity and specificity that a proof found at its threshold."""
    try:
        data = json.loads(proof.read_bytes())
        figures = data["contenders"][0]["figures"]
        positives = sum(count for name, count in data["labels"].items() if name in metric.positive_labels)
        negatives = sum(data["labels"].values()) - positives
        hits, right = round(figures["recall"]["value"] * positives), round((1 - figures["fpr"]["value"]) * negatives)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise OptionInvalid(f"{proof} is no proof of this judge ({error})", hint="proof.json lies in the judge's bundle", received=str(proof)) from error
    return corrected(int(live.flagged.sum()), len(live.ids), hits, positives, right, negatives)


def _plan(live: Verdicts, now: Rate) -> list[dict[str, float]]:
    """How narrow the interval gets with more labels, drawn uniformly or where the judge is unsure, if its scores are calibrated."""
    counts: Sequence[int] = [count for count in (100, 200, 500, 1000, 2000) if now.labels < count <= len(live.ids)]
    return [
        {
            "labels": count,
            "uniform": 1.96 * expected_error(live.scores, sampling_plan(live.scores, count, uniform_share=1.0)),
            "adaptive": 1.96 * expected_error(live.scores, sampling_plan(live.scores, count)),
        }
        for count in counts
    ]
