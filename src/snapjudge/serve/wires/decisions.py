"""`POST /v1/decisions` as the `openai` package speaks it (`client.decisions.create`, 3.52 and later): predicates, choices and scores.

What cannot be answered is a refusal. Each answer also says by which `judge` it is, and whether it was `zero_shot`.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field, StrictBool, StrictStr

from snapjudge.core.api import Answer
from snapjudge.core.frozen import Frozen
from snapjudge.core.question import OpenQuestion
from snapjudge.errors import InputInvalid
from snapjudge.live.judging import Spent
from snapjudge.serve.bodies import answered, read_body, takes
from snapjudge.serve.wires.material import Material, of_messages, text_of_parts
from snapjudge.serve.wires.questions import expected_level, first_probability, level_confidence, put, question_of

router = APIRouter(tags=["openai"])
Parts = str | list[Any]
Value = StrictStr | StrictBool


class Predicate(Frozen):
    """A statement that is more or less likely true."""

    type: Literal["predicate"]
    name: str | None = Field(default=None, max_length=256)
    instructions: Parts


class ChoiceOption(Frozen):
    """One choice: a text or a boolean, which are not the same."""

    value: Value
    description: str | None = None


class Choice(Frozen):
    """Some options, one of which fits."""

    type: Literal["choice"]
    name: str | None = Field(default=None, max_length=256)
    instructions: Parts
    choices: tuple[ChoiceOption, ...] = Field(min_length=2, max_length=255)


class Level(Frozen):
    """One level of a score."""

    label: str = Field(min_length=1)
    description: str | None = None


class Score(Frozen):
    """Levels in order, lowest first."""

    type: Literal["score"]
    name: str | None = Field(default=None, max_length=256)
    instructions: Parts
    levels: tuple[Level, ...] = Field(min_length=2, max_length=10)


Question = Annotated[Predicate | Choice | Score, Field(discriminator="type")]


class DecisionRequest(Frozen):
    """Questions about one input."""

    model: str = Field(min_length=1, max_length=256)
    input: str | list[dict[str, Any]]
    questions: tuple[Question, ...] = Field(min_length=1, max_length=400)
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    safety_identifier: str | None = None


@router.post("/v1/decisions", openapi_extra=takes(DecisionRequest), summary="Decide, as the openai package asks")
async def decide(request: Request) -> Response:
    """Questions that a loaded judge was trained for go to it; others to the backbone, zero-shot."""
    body = await read_body(request, DecisionRequest)
    material = Material(body.input) if isinstance(body.input, str) else of_messages(_messages(body.input))
    questions: dict[int, OpenQuestion] = {}
    for place, one in enumerate(body.questions):
        try:
            questions[place] = _asked(one)
        except InputInvalid:
            continue  # an image among its instructions: refused
    found = await put(request, material, body.model, list(questions.values()))
    by_place = dict(zip(questions, found.answers, strict=True))
    answers = [_told(one, by_place.get(place)) for place, one in enumerate(body.questions)]
    return answered(Decision(model=found.model, answers=answers, usage=_usage(found.spent)))


class Decision(Frozen):
    """The answers, in the questions' order."""

    model: str
    answers: list[dict[str, Any]]
    usage: dict[str, Any]


def _asked(question: Predicate | Choice | Score) -> OpenQuestion:
    text, name = text_of_parts(question.instructions).strip() or "Is it true?", question.name or ""
    if isinstance(question, Predicate):
        return question_of(instructions=text, name=name)
    if isinstance(question, Choice):
        options = _option_texts(question.choices)
        meanings = {option: one.description for option, one in zip(options, question.choices, strict=True) if one.description}
        return question_of(instructions=text, type="choice", options=options, meanings=meanings, name=name)
    labels = tuple(one.label for one in question.levels)
    meanings = {one.label: one.description for one in question.levels if one.description}
    return question_of(instructions=text, type="score", options=labels, meanings=meanings, name=name)


def _option_texts(choices: Sequence[ChoiceOption]) -> tuple[str, ...]:
    """A text for every choice; a boolean's beside a text that reads the same is told apart."""
    texts = [one.value for one in choices if isinstance(one.value, str)]
    return tuple(
        one.value if isinstance(one.value, str) else f"{str(one.value).lower()} (boolean)" if str(one.value).lower() in texts else str(one.value).lower()
        for one in choices
    )


def _told(question: Predicate | Choice | Score, answer: Answer | None) -> dict[str, Any]:
    if answer is None or answer.abstention is not None:
        reason = {} if answer is None or answer.abstention is None else {"reason": answer.abstention.message}
        return {"type": "refusal", "name": question.name, **reason}
    own = {"type": question.type, "name": question.name, "judge": answer.judge, "zero_shot": answer.flags.zero_shot}
    if isinstance(question, Predicate):
        return {**own, "probability": first_probability(answer)}
    if isinstance(question, Choice):
        pairs = list(zip((one.value for one in question.choices), answer.probabilities.values(), strict=True))
        best = max(pairs, key=lambda pair: pair[1])[0]
        return {**own, "choice": best, "confidence": answer.confidence, "probabilities": [{"value": value, "probability": p} for value, p in pairs]}
    levels = [
        {"value": level, "label": one.label, "probability": p}
        for level, (one, p) in enumerate(zip(question.levels, answer.probabilities.values(), strict=True))
    ]
    return {**own, "score": expected_level(answer), "confidence": level_confidence(answer), "probabilities": levels}


def _messages(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages, calls and their outputs as turns of a conversation."""
    turns: list[dict[str, Any]] = []
    for one in items:
        kind = one.get("type", "message")
        if kind == "message":
            turns.append({"role": one.get("role", "user"), "content": one.get("content")})
        elif kind in ("function_call", "custom_tool_call"):
            called = {"name": one.get("name", ""), "arguments": one.get("arguments", one.get("input", ""))}
            turns.append({"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": called}]})
        elif kind in ("function_call_output", "custom_tool_call_output"):
            turns.append({"role": "tool", "content": one.get("output")})
        else:
            raise InputInvalid(f"an input of type {str(kind)[:40]!r}", hint="messages, function_call, custom_tool_call and their outputs are read")
    return turns


def _usage(spent: Spent) -> dict[str, Any]:
    return {
        "input_tokens": spent.tokens,
        "input_tokens_details": {"cached_tokens": spent.cached, "cache_write_tokens": spent.tokens - spent.cached},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": spent.tokens,
    }
