"""Answers in the form that was asked for: with a language model's where a judge is not sure, with what they rest on, or as labels alone."""

import asyncio
from collections.abc import Sequence
from typing import Any

from snapjudge.core.api import Answer, Item, ItemAnswers, Mode
from snapjudge.errors import SnapjudgeError
from snapjudge.live.escalation import Escalation, answer_of
from snapjudge.live.evidence import with_evidence
from snapjudge.live.judges import LiveJudges
from snapjudge.live.judging import Asked, Spent


async def as_wanted(
    judges: LiveJudges,
    items: Sequence[Item],
    asked: Asked,
    results: list[ItemAnswers],
    *,
    mode: Mode,
    escalation: Escalation | None,
    deadline: float | None,
    below: float | None = None,
) -> tuple[list[ItemAnswers], Spent]:
    """The same answers in another form; what else it took.

    Args:
        escalation: who answers where a judge is not sure enough, or has no answer; nobody where None.
        below: the confidence that is not enough, for judges without a promise.

    Raises:
        As `LiveJudges.answer`.
    """
    spent = Spent()
    if escalation is not None:
        results = list(await asyncio.gather(*(_escalated(item, asked, one, escalation, deadline, below) for item, one in zip(items, results, strict=True))))
    if mode == "reasoning":
        explained = []
        for item, one in zip(items, results, strict=True):
            answers, part = await with_evidence(judges, item, asked, one.answers, deadline=deadline)
            spent.join(part)
            explained.append(one.model_copy(update={"answers": tuple(answers)}))
        results = explained
    if mode == "verdict":
        bare: dict[str, Any] = {"probabilities": {}, "raw": {}, "score": None, "confidence": None, "threshold": None}
        results = [one.model_copy(update={"answers": tuple(answer.model_copy(update=bare) for answer in one.answers)}) for one in results]
    return results, spent


async def _escalated(item: Item, asked: Asked, result: ItemAnswers, escalation: Escalation, deadline: float | None, below: float | None) -> ItemAnswers:
    """One item's answers, where language models answer in the place of judges that are not sure; what they leave open stays as it was."""
    answers = list(result.answers)

    async def one(place: int, name: str, answer: Answer) -> None:
        metric = next(judge.metric for at, _, judge in asked.judges if at == place)
        try:
            verdict = await escalation.ask(metric, item.inputs, deadline=deadline)
        except SnapjudgeError:
            return
        answers[place] = answer_of(name, metric, verdict, answer.flags, "failed" if answer.abstention is not None else "low_confidence")

    await asyncio.gather(*(one(place, name, answers[place]) for place, name, _ in asked.judges if _unsure(answers[place], below)))
    return result.model_copy(update={"answers": tuple(answers)})


def _unsure(answer: Answer, below: float | None) -> bool:
    if answer.abstention is not None:
        return answer.abstention.code not in ("input_invalid", "input_unreadable")
    return answer.unsure(below) or answer.flags.out_of_distribution
