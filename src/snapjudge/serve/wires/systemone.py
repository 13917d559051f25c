"""`POST /v1/systemone` as the `typesafe-sdk` package speaks it: noul (yes or no), choice and score. Each answer also says by which `judge` it is."""

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field, model_validator

from snapjudge.core.api import Answer
from snapjudge.core.frozen import Frozen
from snapjudge.core.question import OpenQuestion
from snapjudge.errors import InputInvalid, Problem, RequestInvalid
from snapjudge.serve.bodies import answered, read_body, takes
from snapjudge.serve.wires.material import of_json
from snapjudge.serve.wires.questions import expected_level, first_probability, level_confidence, put, question_of

router = APIRouter(tags=["typesafe"])
Content = str | dict[str, Any] | list[Any]
REQUEST_ID = "x-typesafe-request-id"


class NoulCriteria(Frozen):
    """What counts as a yes, and what as a no."""

    true: Content | None = None
    false: Content | None = None


class Noul(Frozen):
    """A question to be answered with yes or no, or a statement. What counts as a yes is asked beside it, and the mean of both answers."""

    type: Literal["noul"]
    instructions: Content | None = None
    criteria: NoulCriteria | None = None

    @model_validator(mode="after")
    def _asked(self) -> "Noul":
        if self.instructions is None and (self.criteria is None or self.criteria.true is None):
            raise ValueError("neither instructions nor what counts as a yes")
        return self


class Choice(Frozen):
    """Options with their descriptions."""

    type: Literal["choice"]
    instructions: Content | None = None
    criteria: dict[str, Content | None] = Field(min_length=1, max_length=255)


class Score(Frozen):
    """Descriptions of levels, lowest first."""

    type: Literal["score"]
    instructions: Content | None = None
    criteria: tuple[Content, ...] = Field(min_length=1, max_length=10)


Question = Annotated[Noul | Choice | Score, Field(discriminator="type")]


class SystemOneRequest(Frozen):
    """Questions about one state."""

    model: str = Field(default="snapjudge", min_length=1, max_length=256)
    state: Content | int | float | bool
    questions: dict[str, Question] = Field(min_length=1, max_length=400)
    assets: dict[str, Any] | None = None


class SystemOneResponse(Frozen):
    """The answers by the questions' names."""

    model: str
    answers: dict[str, dict[str, Any]]
    usage: dict[str, int]


@router.post("/v1/systemone", openapi_extra=takes(SystemOneRequest), summary="Answer, as the typesafe-sdk package asks")
async def answer(request: Request) -> Response:
    """Questions that a loaded judge was trained for, or whose name is one's, go to it; others to the backbone, zero-shot."""
    body = await read_body(request, SystemOneRequest)
    if body.assets:
        raise InputInvalid("an image", hint="send texts only; images are not judged")
    asked = {name: _asked(name, one) for name, one in body.questions.items()}
    several = {name: one for name, one in asked.items() if one is not None}
    found = await put(request, of_json(body.state), body.model, list(several.values()))
    by_name = dict(zip(several, found.answers, strict=True))
    answers = {name: _told(name, one, by_name.get(name)) for name, one in body.questions.items()}
    told = SystemOneResponse(model=found.model, answers=answers, usage={"input_tokens": found.spent.tokens, "output_tokens": 0})
    return answered(told, headers={REQUEST_ID: request.state.request_id})


def _asked(name: str, question: Noul | Choice | Score) -> OpenQuestion | None:
    """What is put; None where there is only one answer."""
    text = _text(question.instructions) or name
    if isinstance(question, Noul):
        yes = _text(question.criteria.true) if question.criteria is not None else ""
        asked = _text(question.instructions) or yes
        return question_of(instructions=asked, rewordings=(yes,) if yes and yes != asked else (), name=name)
    if len(question.criteria) == 1:
        return None
    if isinstance(question, Choice):
        meanings = {option: _text(told) for option, told in question.criteria.items() if told is not None}
        return question_of(instructions=text, type="choice", options=tuple(question.criteria), meanings=meanings, name=name)
    levels = tuple(f"level_{level}" for level in range(len(question.criteria)))
    return question_of(instructions=text, type="score", options=levels, meanings=dict(zip(levels, map(_text, question.criteria), strict=True)), name=name)


def _told(name: str, question: Noul | Choice | Score, found: Answer | None) -> dict[str, Any]:
    if found is not None and found.abstention is not None:
        raise RequestInvalid("the request", [Problem(f"questions.{name}", found.abstention.message, "a state that it can be asked about")])
    own = {"type": question.type} if found is None else {"type": question.type, "judge": found.judge, "zero_shot": found.flags.zero_shot}
    if isinstance(question, Noul):
        assert found is not None
        return {**own, "noul": first_probability(found)}
    if isinstance(question, Choice):
        shares = {next(iter(question.criteria)): 1.0} if found is None else dict(zip(question.criteria, found.probabilities.values(), strict=True))
        return {
            **own,
            "choice": max(shares, key=lambda option: shares[option]),
            "probabilities": shares,
            "confidence": 1.0 if found is None else found.confidence,
        }
    legend = {str(level): told for level, told in enumerate(question.criteria)}
    levels = {"0": 1.0} if found is None else dict(zip(legend, found.probabilities.values(), strict=True))
    return {
        **own,
        "score": 0.0 if found is None else expected_level(found),
        "legend": legend,
        "probabilities": levels,
        "confidence": 1.0 if found is None else level_confidence(found),
    }


def _text(content: Content | None) -> str:
    if content is None or isinstance(content, str):
        return (content or "").strip()
    return json.dumps(content, ensure_ascii=False)
