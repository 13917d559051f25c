"""Synthetic rows: perturbed from real ones or written by a language model, cleaned, and used only after a person has verified a sample."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from snapjudge.core.example import Example, Provenance, content_key
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Progress
from snapjudge.curate.batches import SAMPLE, Batch, read_rows, verdicts_of, write_batch
from snapjudge.curate.dataset import Dataset, add_to_review, check_criteria, labelled, read_dataset, writing
from snapjudge.curate.labels import LabelEvent, append_labels
from snapjudge.curate.near import common_shingles, index_of, near_text
from snapjudge.curate.perturb.rows import Kind, perturb
from snapjudge.curate.split import hashed
from snapjudge.errors import BudgetSpent, OptionInvalid, RunConflict
from snapjudge.flows.splitting import splits_of
from snapjudge.llm.asking import Answer, Ask, Bill, ask_all, check_budget
from snapjudge.llm.endpoints import Endpoint
from snapjudge.llm.generating import Plan, read_examples, wishes, writing_prompt
from snapjudge.llm.judging import judging_prompt, read_opinion
from snapjudge.llm.memory import Memory
from snapjudge.prove.figures import wilson
from snapjudge.store.files import write_file

_SEEDS = 4
_KEEPS_LABEL: tuple[Kind, ...] = ("noise",)


@dataclass(frozen=True)
class SynthesisResult:
    """What became of the rows that were made, and where they wait."""

    batch: str
    rows: int
    labels: dict[str, int]
    methods: dict[str, int]
    sample: int
    counts: dict[str, int] = field(default_factory=dict)
    spent: float = 0.0
    expected_cost: float = 0.0


@dataclass(frozen=True)
class PerturbRequest:
    """Perturbation of real rows: of which label, into which (the same where the kind keeps it)."""

    dataset: Dataset
    metric: Metric
    kind: Kind
    name: str
    of: str | None = None
    label: str | None = None
    count: int = 200
    seed: int = 0
    sample: int = SAMPLE


def perturb_data(request: PerturbRequest) -> SynthesisResult:
    """Make a batch from labelled rows that are in no test. Rows that nearly repeat a test row are dropped.

    Raises:
        OptionInvalid: a label the metric does not have, or a kind that changes labels without one. RunConflict.
    """
    metric = request.metric
    for option, name in (("--of", request.of), ("--label", request.label)):
        if name is not None and name not in metric.labels:
            raise OptionInvalid(f"{option} {name!r}: {metric.name} has no such label", hint=f"its labels are {', '.join(metric.labels)}", received=name)
    if request.label is None and request.kind not in _KEEPS_LABEL:
        raise OptionInvalid(f"perturbation {request.kind!r} changes what a row is", hint="say what it then is with --label", received=request.kind)
    known, splits = labelled(request.dataset, metric).examples, splits_of(request.dataset, metric)
    test = [example for example in known if splits.get(example.id) == "test"]
    parents = [e for e in _to_learn_from(known, splits) if request.of is None or metric.label_names[e.label_index] == request.of]
    by_id = {parent.id: parent for parent in parents}
    made = perturb(parents, request.kind, request.count, request.seed)
    near = index_of(test, common_shingles([near_text(row.inputs) for row in known]))
    kept = [row for row in made if near.near(near_text(row.inputs)) is None]
    rows = [
        row.model_copy(
            update={"id": f"{request.name}/{row.id}", "target": metric.target(request.label) if request.label else by_id[row.provenance.parent].target}
        )
        for row in kept
    ]
    write_batch(request.dataset, request.name, rows, metric, sample=request.sample, seed=request.seed)
    return _result(request.name, rows, metric, request.sample, {"made": len(made), "near the test": len(made) - len(kept)})


def _to_learn_from(examples: Sequence[Example], splits: Mapping[str, str]) -> list[Example]:
    """Examples that rows may be made from: none of the test, none that is held out."""
    return [example for example in examples if splits.get(example.id) not in ("test", "held")]


def _result(name: str, rows: Sequence[Example], metric: Metric, sample: int, counts: dict[str, int], spent: float = 0.0) -> SynthesisResult:
    labels = Counter(metric.label_names[row.label_index] for row in rows)
    methods = Counter(row.provenance.method for row in rows)
    return SynthesisResult(name, len(rows), dict(labels), dict(methods), min(sample, len(rows)), counts, spent)


@dataclass(frozen=True)
class WriteRequest:
    """Rows written by a language model.

    Args:
        writer: the endpoint that writes, and judges its own rows afresh (self-reflection).
        judges: others that judge them too; a row they do not agree on goes to the review queue.
    """

    dataset: Dataset
    metric: Metric
    writer: Endpoint
    judges: Sequence[Endpoint]
    plan: Plan
    name: str
    count: int = 200
    seed: int = 0
    sample: int = SAMPLE
    max_cost: float | None = None


def expected_cost(request: WriteRequest) -> float:
    """About what a run would cost, in dollars: the questions, and every row judged by all."""
    return _cost(request, _questions(request))


def _cost(request: WriteRequest, asks: Sequence[Ask]) -> float:
    row = 3 * request.writer.max_tokens // 4
    judging = sum(one.price.of(400 + row, one.max_tokens // 2) for one in (request.writer, *request.judges))
    return sum(ask.expected_cost for ask in asks) + request.count * judging


def _questions(request: WriteRequest) -> list[Ask]:
    """What the writer is asked, a few seeds with each; never rows of the test."""
    known = _to_learn_from(labelled(request.dataset, request.metric).examples, splits_of(request.dataset, request.metric))
    asks = []
    for number, wish in enumerate(wishes(request.plan, request.metric, request.count, request.seed)):
        order = sorted(known, key=lambda example: hashed(example.id, f"{request.seed}:{number}"))
        seeds = [(example.inputs, request.metric.label_names[example.label_index]) for example in order[:_SEEDS]]
        asks.append(Ask(request.writer, writing_prompt(request.metric, wish, seeds, number), repeat=request.seed))
    return asks


def write_data(request: WriteRequest, memory: Memory, progress: Progress, stop: Callable[[], bool] = lambda: False) -> SynthesisResult:
    """Write, clean and judge rows, and put those that all agree on into a batch. Stopped or over budget, the same call goes on.

    Raises:
        BudgetSpent: priced endpoints without a budget, or one that does not cover the run; what was answered is kept. EndpointFailed, Interrupted, RunConflict.
    """
    asks = _questions(request)
    cost = _cost(request, asks)
    check_budget((request.writer, *request.judges), request.max_cost, cost)
    bill, counts = Bill(), Counter[str]()
    answers = ask_all(asks, memory, bill, progress, stage="write", max_cost=request.max_cost, stop=stop)
    rows = _written(request, answers, counts)
    kept = _distinct(rows, request, counts)
    agreed, queue = _judged(kept, request, memory, bill, counts, progress, stop)
    add_to_review(request.dataset, queue)
    write_batch(request.dataset, request.name, agreed, request.metric, sample=request.sample, seed=request.seed)
    result = _result(request.name, agreed, request.metric, request.sample, dict(counts), bill.spent)
    return replace(result, expected_cost=cost)


def _written(request: WriteRequest, answers: Sequence[Answer], counts: Counter[str]) -> list[Example]:
    """The usable examples of all answers, as rows that name their method, seed and cell of the plan."""
    found: list[Example] = []
    for number, (wish, answer) in enumerate(zip(wishes(request.plan, request.metric, request.count, request.seed), answers, strict=True)):
        if answer.failure == "over_budget":
            raise BudgetSpent(f"${request.max_cost} are spent after {number} of {len(answers)} questions", hint="raise --max-cost; the same command goes on")
        if answer.text is None:
            counts[f"answers {answer.failure}"] += 1
            continue
        written, bad = read_examples(answer.text, request.metric)
        counts["unusable"] += bad
        for place, one in enumerate(written):
            group = f"{request.name}-{number}-{one.pair}" if one.pair is not None else f"{request.name}-{number}-{place}"
            method = "written pair" if one.pair is not None else "written"
            provenance = Provenance(source=f"{request.writer.model}", group=group, category=wish.told, method=method, seed=f"{request.seed}.{number}")
            found.append(Example(id=f"{request.name}-{number}-{place}", inputs=one.inputs, target=request.metric.target(one.label), provenance=provenance))
    counts["written"] = len(found)
    return found


def _distinct(rows: Sequence[Example], request: WriteRequest, counts: Counter[str]) -> list[Example]:
    """Without near duplicates of the data set (its test among it) and of each other; the two of a pair may be near."""
    everything = read_dataset(request.dataset, request.metric)
    index = index_of(everything, common_shingles([near_text(row.inputs) for row in (*everything, *rows)]))
    groups: dict[str, str] = {}
    kept = []
    for row in rows:
        near = index.near(near_text(row.inputs))
        if near is not None and groups.get(near[0]) != row.group:
            counts["near duplicates"] += 1
            continue
        groups[row.id] = row.group
        index.add(row.id, near_text(row.inputs))
        kept.append(row)
    return kept


def _judged(
    rows: Sequence[Example], request: WriteRequest, memory: Memory, bill: Bill, counts: Counter[str], progress: Progress, stop: Callable[[], bool]
) -> tuple[list[Example], list[dict[str, Any]]]:
    """Rows whose label the writer finds again and all judges give too; and those to review. What the writer itself takes back is dropped."""
    metric, judges = request.metric, (request.writer, *request.judges)
    asks = [Ask(judge, judging_prompt(metric, row.inputs), repeat=-1) for row in rows for judge in judges]
    answers = ask_all(asks, memory, bill, progress, stage="judge", max_cost=request.max_cost, stop=stop)
    if any(answer.failure == "over_budget" for answer in answers):
        raise BudgetSpent(f"${request.max_cost} are spent while rows were judged", hint="raise --max-cost; the same command goes on")
    agreed, queue = [], []
    for place, row in enumerate(rows):
        own = [read_opinion(a.text, metric).label if a.text is not None else None for a in answers[place * len(judges) : (place + 1) * len(judges)]]
        claimed = metric.label_names[row.label_index]
        if own[0] != claimed:
            counts["taken back by the writer" if own[0] else "not judged by the writer"] += 1
        elif any(label != claimed for label in own[1:]):
            counts["to review"] += 1
            votes = {judge.name: label for judge, label in zip(judges, own, strict=True)}
            queue.append({"id": row.id, "reason": "judges differ on a written row", "inputs": row.inputs, "claimed": claimed, "votes": votes})
        else:
            agreed.append(row)
    return agreed, queue


@dataclass(frozen=True)
class Acceptance:
    """How much of a batch's sample a person found right, with Wilson's interval, and whether that opens the batch."""

    verified: int
    right: int
    low: float
    high: float
    opens: bool
    added: int = 0


def accept(dataset: Dataset, metric: Metric, batch: Batch, *, fewest: float) -> Acceptance:
    """Put a batch's rows into the data set if the lower end of the acceptance is high enough; rows found wrong stay out.

    Verified rows are labelled by the person who verified them, the others by the batch. Doing it again adds nothing.

    Raises:
        OptionInvalid: the sample is not verified yet. CriteriaChanged.
    """
    said = {row["id"]: row for row in verdicts_of(batch)}
    sample = json.loads(batch.sample.read_text(encoding="utf-8"))
    missing = [name for name in sample if name not in said]
    if missing:
        raise OptionInvalid(f"{len(missing)} of {len(sample)} rows of the sample are not verified yet", hint="`snapjudge data verify` asks for them one by one")
    check_criteria(dataset, metric)
    right = sum(said[name]["right"] for name in sample)
    low, high = wilson(right, len(sample))
    if low < fewest:
        return Acceptance(len(sample), right, low, high, opens=False)
    rows = [row for row in read_rows(batch) if said.get(row["id"], {"right": True})["right"]]
    with writing(dataset) as writer:
        other = next((row["id"] for row in rows if writer.known.get(row["id"], content_key(row["inputs"])) != content_key(row["inputs"])), None)
        if other is not None:
            raise RunConflict(f"{other!r} is another text in the data set", hint="make the batch again under another --name")
        new = [{key: row[key] for key in ("id", "inputs", "meta")} for row in rows if row["id"] not in writer.known]
        writer.add(new)
    now = datetime.now(UTC)
    events = [
        LabelEvent(
            example=row["id"],
            label=row["label"],
            labeler=said[row["id"]]["by"] if row["id"] in said else f"batch {batch.folder.name}",
            time=now,
            criteria_version=metric.version,
            source="expert" if row["id"] in said else "synthetic",
        )
        for row in rows
    ]
    append_labels(dataset.labels, events, ignore_time=True)
    write_file(batch.used, json.dumps({"right": right, "verified": len(sample), "low": low, "added": len(new), "time": now.isoformat()}) + "\n")
    return Acceptance(len(sample), right, low, high, opens=True, added=len(new))
