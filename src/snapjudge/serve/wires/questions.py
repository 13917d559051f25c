"""How foreign questions are put to judges and to the backbone, and what their probabilities become. Knows no wire."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from pydantic import ValidationError

from snapjudge.core.api import Answer, Item, ItemAnswers
from snapjudge.core.question import OpenQuestion
from snapjudge.errors import JudgeUnknown
from snapjudge.live.judging import Asked, Spent
from snapjudge.live.roster import Loaded, fits
from snapjudge.serve.bodies import invalid
from snapjudge.serve.service import Service, caller_of, service_of
from snapjudge.serve.wires.material import Material

FOREIGN = ("gpt-6-luna", "jev-latest", "omni-moderation-latest", "text-moderation-latest")  # what the official clients ask for unless told otherwise
OURS = ("snapjudge", "generalist")


@dataclass(frozen=True)
class Answered:
    """What came back: an answer for each question, in order."""

    answers: tuple[Answer, ...]
    spent: Spent
    model: str


def question_of(**fields: Any) -> OpenQuestion:
    """A foreign question as one of ours.

    Raises:
        RequestInvalid: it cannot be one, for an option without a name, or the same one twice.
    """
    try:
        return OpenQuestion(**fields)
    except ValidationError as error:
        raise invalid(error) from None


async def put(request: Request, material: Material, model: str, questions: Sequence[OpenQuestion]) -> Answered:
    """Put some questions about one material.

    Those that a loaded judge was trained for, or that name one, go to it; where the model is a judge, so do all that its labels answer. The rest go to the
    backbone. `model` of the result is who answered, where that was one.

    Raises:
        JudgeUnknown: the model is neither a judge nor one of the backbone's names. KeyForbidden. As `LiveJudges.answer`.
    """
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    named = model_of(service, model)
    asked = service.judges.asked((), questions)
    if named is not None:
        mine = tuple((place, question.name or question.instructions, named) for place, question in asked.questions if fits(question, named.metric))
        taken = {place for place, _, _ in mine}
        asked = Asked((*asked.judges, *mine), tuple(one for one in asked.questions if one[0] not in taken))
    caller.check_judges([judge.judge for _, _, judge in asked.judges])
    (item,), spent = await ask(request, [material], asked)
    by = {one.judge for one in item.answers}
    return Answered(item.answers, spent, by.pop() if len(by) == 1 else model)


async def ask(request: Request, materials: Sequence[Material], asked: Asked) -> tuple[list[ItemAnswers], Spent]:
    """Ask about some materials, and count the answers.

    Raises:
        As `LiveJudges.answer`.
    """
    service = service_of(request)
    items = [Item(id=str(place), inputs={}) for place, _ in enumerate(materials)]
    found, spent = await service.judges.answer(
        items, asked, deadline=service.deadline(request), inputs_of=lambda item, metric: materials[int(item.id)].inputs_of(metric)
    )
    for one in found:
        service.count(one.answers)
    service.timings(request, spent)
    return found, spent


def model_of(service: Service, model: str) -> Loaded | None:
    """The judge that a model's name stands for; None where it stands for the backbone.

    Raises:
        JudgeUnknown: it stands for neither.
    """
    backbone = service.judges.generalist.name
    try:
        return service.judges.roster.find(model)
    except JudgeUnknown as error:
        if model in (*OURS, *FOREIGN, backbone, f"generalist@{backbone}"):
            return None
        raise JudgeUnknown(f"no model {model!r}", hint=f"a loaded judge, or {OURS[0]} for open questions; GET /v1/models lists them", received=model) from error


def expected_level(answer: Answer) -> float:
    """The mean level of a score's answer, 0 for the lowest."""
    return sum(level * p for level, p in enumerate(answer.probabilities.values()))


def level_confidence(answer: Answer) -> float:
    """How narrow a score's answer is: 1 - sum p_i |i - m| / D around its mean m, where D is that of even shares around the middle; at least 0."""
    shares = list(answer.probabilities.values())
    count, mean = len(shares), expected_level(answer)
    even = sum(abs(level - (count - 1) / 2) for level in range(count)) / count
    return max(0.0, 1 - sum(p * abs(level - mean) for level, p in enumerate(shares)) / even)


def first_probability(answer: Answer) -> float:
    """P of a yes: a boolean's first label."""
    return next(iter(answer.probabilities.values()))
