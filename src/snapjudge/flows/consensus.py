"""Consensus: prompted judges label a data set, but only after their agreement with people has been measured and told."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Progress
from snapjudge.curate.agreement import MISSING, Floats, Ints, agreement, majority, vote_counts
from snapjudge.curate.consensus import Method, consensus
from snapjudge.curate.dataset import Dataset, add_to_review, check_criteria, read_dataset
from snapjudge.curate.labels import PEOPLE, LabelEvent, append_labels, current_labels, read_labels
from snapjudge.curate.split import hashed
from snapjudge.errors import OptionInvalid
from snapjudge.llm.asking import Answer, Ask, Bill, ask_all, check_budget
from snapjudge.llm.endpoints import Endpoint
from snapjudge.llm.judging import Opinion, judging_prompt, read_opinion
from snapjudge.llm.memory import Memory
from snapjudge.prove.figures import wilson

FEWEST_CHECKED = 20
_AGAIN = ("over_budget", "rate_limited", "timeout", "unreachable", "server_error")  # the next run may get an answer


@dataclass(frozen=True)
class ConsensusRequest:
    """What is labelled by whom, within which limits.

    Args:
        check: human-labelled examples on which agreement is measured first.
        bulk: go on to label what has no label, if the consensus agrees with people at least by `fewest_kappa`.
        limit: rows labelled in bulk at most.
        share: of the votes that a label needs; below it the row goes to the review queue.
    """

    dataset: Dataset
    metric: Metric
    endpoints: Sequence[Endpoint]
    method: Method = "majority"
    check: int = 100
    bulk: bool = False
    limit: int | None = None
    share: float = 2 / 3
    fewest_kappa: float = 0.6
    max_cost: float | None = None
    unchecked: bool = False


@dataclass
class ConsensusResult:
    """What was asked, what it cost, how far each judge and the consensus agree with people, and what was labelled."""

    check: int
    bulk: int
    questions: int
    remembered: int
    expected_cost: float
    spent: float = 0.0
    ended: dict[str, dict[str, int]] = field(default_factory=dict)
    agreement: dict[str, dict[str, Any]] = field(default_factory=dict)
    between: dict[str, Any] | None = None
    labelled: int = 0
    review: int = 0
    without_vote: int = 0
    waiting: int = 0
    stopped: str = ""


class _Round:
    """The rows of a run with the questions they need."""

    def __init__(self, request: ConsensusRequest) -> None:
        self.request = request
        rows = read_dataset(request.dataset, request.metric)
        events = read_labels(request.dataset.labels).events
        people = current_labels([event for event in events if event.source in PEOPLE], request.metric.version)
        anyone = {event.example for event in events}
        known = sorted((row for row in rows if row.id in people and people[row.id].label is not None), key=lambda row: hashed(row.id, "consensus"))
        self.check = known[: request.check]
        self.truth = [request.metric.label_names.index(str(people[row.id].label)) for row in self.check]
        self.bulk = [row for row in rows if row.id not in anyone][: request.limit]

    def asks(self, rows: Sequence[Example]) -> list[Ask]:
        """Row by row, so that a run cut short has whole rows."""
        return [
            Ask(endpoint, judging_prompt(self.request.metric, row.inputs), repeat)
            for row in rows
            for endpoint in self.request.endpoints
            for repeat in range(endpoint.repeats)
        ]

    @property
    def per_row(self) -> int:
        """Questions about one row."""
        return sum(endpoint.repeats for endpoint in self.request.endpoints)


def plan_consensus(request: ConsensusRequest, memory: Memory) -> ConsensusResult:
    """What a run would ask and about what it would cost; nothing is asked."""
    return _planned(_Round(request), memory)


def _planned(found: _Round, memory: Memory) -> ConsensusResult:
    asks = found.asks([*found.check, *found.bulk])
    remembered = [memory.get(ask.key) is not None for ask in asks]
    cost = sum(ask.expected_cost for ask, known in zip(asks, remembered, strict=True) if not known)
    return ConsensusResult(len(found.check), len(found.bulk), len(asks), sum(remembered), cost)


def run_consensus(request: ConsensusRequest, memory: Memory, progress: Progress, stop: Callable[[], bool] = lambda: False) -> ConsensusResult:
    """Measure agreement with people; then, if asked to, label in bulk. Killed or stopped, the same call goes on without asking anything twice.

    Raises:
        OptionInvalid: no human labels to measure agreement on. BudgetSpent: priced endpoints without a budget.
        EndpointFailed, Interrupted, DataInvalid.
    """
    check_criteria(request.dataset, request.metric)
    found, bill = _Round(request), Bill()
    result = _planned(found, memory)
    if len(found.check) < FEWEST_CHECKED and not request.unchecked:
        raise OptionInvalid(
            f"{len(found.check)} examples have a label by people; agreement needs {FEWEST_CHECKED} at least",
            hint="label some first: `snapjudge data label`; or pass --unchecked to go on without knowing",
        )
    check_budget(request.endpoints, request.max_cost, result.expected_cost)

    def answers(rows: Sequence[Example], stage: str) -> list[Answer]:
        return ask_all(found.asks(rows), memory, bill, progress, stage=stage, max_cost=request.max_cost, stop=stop)

    checked = _votes(answers(found.check, "check"), found, request)
    _tell(result, bill, [checked])
    result.agreement, result.between = _agreement(checked, found, request)
    kappa = result.agreement.get("consensus", {}).get("kappa", {}).get("value")
    if not request.bulk:
        return result
    usable = result.agreement.get("consensus", {}).get("usable", 0)
    if not request.unchecked and usable < FEWEST_CHECKED:
        result.stopped = f"only {usable} of {len(found.check)} checked rows got a usable vote, {FEWEST_CHECKED} are needed: nothing was labelled in bulk"
        return result
    if not request.unchecked and (kappa is None or kappa < request.fewest_kappa):
        told = "is not defined" if kappa is None else f"is {kappa:.2f}"
        result.stopped = f"the consensus' kappa with people {told}, below {request.fewest_kappa:g}: nothing was labelled in bulk"
        return result
    judged = _votes(answers(found.bulk, "label"), found, request)
    _tell(result, bill, [checked, judged])
    _label(checked, judged, found, request, result)
    return result


@dataclass(frozen=True)
class _Votes:
    """Votes by question [N, Q] and collapsed by endpoint [N, R]; which rows had all their questions asked; what was unusable; rationales."""

    asked_NQ: Ints
    votes_NR: Ints
    whole_N: np.ndarray[Any, np.dtype[np.bool_]]
    unusable: dict[str, Counter[str]]
    reasons: list[str]


def _votes(answers: Sequence[Answer], found: _Round, request: ConsensusRequest) -> _Votes:
    """Answers as votes; the repeats of an endpoint are one vote of its own majority, none on a tie."""
    metric, width = request.metric, found.per_row
    owner = [number for number, endpoint in enumerate(request.endpoints) for _ in range(endpoint.repeats)]
    count = len(answers) // width if width else 0
    asked_NQ = np.full((count, width), MISSING, dtype=np.int64)
    whole_N = np.ones(count, dtype=bool)
    unusable: dict[str, Counter[str]] = {endpoint.name: Counter() for endpoint in request.endpoints}
    reasons = [""] * count
    for place, answer in enumerate(answers):
        row, column = divmod(place, width)
        if answer.text is None:
            whole_N[row] &= answer.failure not in _AGAIN
            continue
        opinion: Opinion = read_opinion(answer.text, metric)
        if opinion.label is None:
            unusable[request.endpoints[owner[column]].name][str(opinion.unusable)] += 1
        else:
            asked_NQ[row, column] = metric.label_names.index(opinion.label)
            reasons[row] = reasons[row] or opinion.rationale
    columns = [asked_NQ[:, [place for place, one in enumerate(owner) if one == number]] for number in range(len(request.endpoints))]
    votes_NR = np.stack([majority(vote_counts(some, len(metric.labels))) for some in columns], 1) if count else np.empty((0, len(columns)), dtype=np.int64)
    return _Votes(asked_NQ, votes_NR, whole_N, unusable, reasons)


def _shares(asked_NQ: Ints, votes_NR: Ints, request: ConsensusRequest) -> Floats:
    """Label shares [N, K]: of all single answers for majority and weighted, of the endpoints' own majorities for Dawid-Skene."""
    labels = len(request.metric.labels)
    if request.method == "dawid_skene":
        return consensus(votes_NR, labels, "dawid_skene").shares
    weights = np.array(
        [(endpoint.weight if request.method == "weighted" else 1.0) / endpoint.repeats for endpoint in request.endpoints for _ in range(endpoint.repeats)]
    )
    return consensus(asked_NQ, labels, "weighted", weights).shares


def _agreement(votes: _Votes, found: _Round, request: ConsensusRequest) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None]:
    """Each endpoint and the consensus against people (equal labels, Cohen's kappa, with intervals); and the endpoints among themselves."""
    if not found.check:
        return {}, None
    labels = len(request.metric.labels)
    shares = _shares(votes.asked_NQ, votes.votes_NR, request)
    together = np.where(shares.max(1) > 0, shares.argmax(1), MISSING)
    truth = np.array(found.truth, dtype=np.int64)
    rows = {endpoint.name: votes.votes_NR[:, place] for place, endpoint in enumerate(request.endpoints)} | {"consensus": together}
    told = {}
    for name, own in rows.items():
        usable = own != MISSING
        hits, total = int((own[usable] == truth[usable]).sum()), int(usable.sum())
        one: dict[str, Any] = {"examples": len(truth), "usable": total, "equal": None, "kappa": {"value": None, "low": None, "high": None}}
        if total:
            low, high = wilson(hits, total)
            pairs = agreement(np.stack([truth, own], 1), labels).pairs
            one |= {"equal": {"value": hits / total, "low": low, "high": high}, "kappa": asdict(pairs[0][3]) if pairs else one["kappa"]}
        told[name] = one
    several = (votes.votes_NR != MISSING).sum(1) >= 2
    between = asdict(agreement(votes.votes_NR, labels).alpha) if several.any() else None
    return told, between


def _label(checked: _Votes, judged: _Votes, found: _Round, request: ConsensusRequest, result: ConsensusResult) -> None:
    """Labels for what the votes agree on, the review queue for the rest; rows that were not asked to the end wait for the next run."""
    metric = request.metric
    both = np.vstack([checked.asked_NQ, judged.asked_NQ]), np.vstack([checked.votes_NR, judged.votes_NR])
    shares_NK = _shares(*both, request)[len(checked.asked_NQ) :]
    signed = f"consensus {' '.join(endpoint.name for endpoint in request.endpoints)}"
    events, queue = [], []
    for place, (row, shares) in enumerate(zip(found.bulk, shares_NK, strict=True)):
        if not judged.whole_N[place]:
            result.waiting += 1
            continue
        told = {name: round(float(share), 4) for name, share in zip(metric.label_names, shares, strict=True) if share > 0}
        if not told:
            result.without_vote += 1
        elif max(told.values()) + 1e-9 < request.share or list(told.values()).count(max(told.values())) > 1:
            queue.append({"id": row.id, "reason": "disagreement", "shares": told})
        else:
            events.append(_event(row, told, signed, metric, judged.reasons[place]))
    result.labelled = append_labels(request.dataset.labels, events, ignore_time=True)
    add_to_review(request.dataset, queue)
    result.review = len(queue)


def _event(row: Example, shares: dict[str, float], signed: str, metric: Metric, reason: str) -> LabelEvent:
    best = max(shares, key=lambda name: shares[name])
    return LabelEvent(
        example=row.id,
        label=best,
        labeler=signed,
        time=datetime.now(UTC),
        criteria_version=metric.version,
        confidence=shares[best],
        rationale=reason,
        source="consensus",
        shares=shares if len(shares) > 1 else None,
    )


def _tell(result: ConsensusResult, bill: Bill, parts: Sequence[_Votes]) -> None:
    result.spent = bill.spent
    unusable: dict[str, Counter[str]] = {}
    for part in parts:
        for name, counts in part.unusable.items():
            unusable.setdefault(name, Counter()).update({f"unusable: {kind}": count for kind, count in counts.items()})
    result.ended = {name: {**counts, **unusable.get(name, {})} for name, counts in bill.ended.items()}
