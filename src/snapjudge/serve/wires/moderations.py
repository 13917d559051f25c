"""`POST /v1/moderations` as the `openai` package speaks it, answered by the judges of toxicity and unsafe requests that are loaded.

A category whose judge is not loaded, or that no judge asks about, has the score 0 and applies to no input type. A category is flagged where its judge flags the
text and it is the likeliest kind.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from pydantic import Field

from snapjudge.core.api import Answer
from snapjudge.core.frozen import Frozen
from snapjudge.errors import InputInvalid, JudgeUnknown
from snapjudge.live.judging import Asked
from snapjudge.serve.bodies import answered, read_body, takes
from snapjudge.serve.service import caller_of, service_of
from snapjudge.serve.wires.material import Material, text_of_parts
from snapjudge.serve.wires.questions import ask

router = APIRouter(tags=["openai"])
GUARDS = ("toxicity", "unsafe_prompt")  # whose flag is the whole's
CATEGORIES: dict[str, tuple[str, tuple[str, ...]]] = {  # category -> judge of kinds, its labels
    "harassment": ("toxicity_category", ("insult", "offensive")),
    "harassment/threatening": ("toxicity_category", ("threat",)),
    "hate": ("toxicity_category", ("hate",)),
    "hate/threatening": ("", ()),
    "illicit": ("unsafe_prompt_category", ("nonviolent_crimes",)),
    "illicit/violent": ("unsafe_prompt_category", ("violent_crimes", "indiscriminate_weapons")),
    "self-harm": ("unsafe_prompt_category", ("suicide_self_harm",)),
    "self-harm/intent": ("", ()),
    "self-harm/instructions": ("", ()),
    "sexual": ("unsafe_prompt_category", ("sexual_content", "sex_crimes")),
    "sexual/minors": ("unsafe_prompt_category", ("child_exploitation",)),
    "violence": ("unsafe_prompt_category", ("violent_crimes",)),
    "violence/graphic": ("", ()),
}


class ModerationRequest(Frozen):
    """A text, several, or parts."""

    input: str | list[str] | list[dict[str, Any]] = Field(min_length=1)
    model: str | None = None


class Moderation(Frozen):
    """One result for each text."""

    id: str
    model: str
    results: list[dict[str, Any]]


@router.post("/v1/moderations", openapi_extra=takes(ModerationRequest), summary="Moderate, as the openai package asks")
async def moderate(request: Request) -> Response:
    """The judges `toxicity`, `toxicity_category`, `unsafe_prompt` and `unsafe_prompt_category`, as far as they are loaded and the key may ask them."""
    service, caller = service_of(request), caller_of(request)
    caller.check("judge")
    body = await read_body(request, ModerationRequest)
    roster = service.judges.roster
    wanted = dict.fromkeys([*GUARDS, *(judge for judge, _ in CATEGORIES.values() if judge)])
    judges = [roster.find(name) for name in wanted if name in {one.name for one in roster.judges.values()}]
    if not judges:
        raise JudgeUnknown("no judge that moderates is loaded", hint=f"load one of {', '.join(wanted)}")
    caller.check_judges([one.judge for one in judges])
    asked = Asked(tuple((place, one.name, one) for place, one in enumerate(judges)))
    found, _ = await ask(request, [Material(text) for text in _texts(body.input)], asked)
    results = [_result({one.asked: one for one in item.answers}) for item in found]
    return answered(Moderation(id=f"modr-{uuid4().hex}", model=body.model or "snapjudge", results=results))


def _texts(given: str | Sequence[str] | Sequence[Mapping[str, Any]]) -> list[str]:
    if isinstance(given, str):
        return [given]
    if all(isinstance(one, str) for one in given):
        return [str(one) for one in given]
    return [text_of_parts(list(given))]


def _result(answers: Mapping[str, Answer]) -> dict[str, Any]:
    if all(one.abstention is not None for one in answers.values()):
        first = next(iter(answers.values())).abstention
        assert first is not None
        raise InputInvalid(first.message, hint=first.hint)
    scores, flags, applied = {}, {}, {}
    for category, (judge, labels) in CATEGORIES.items():
        answer = answers.get(judge)
        there = answer is not None and answer.abstention is None
        scores[category] = sum(answer.probabilities[label] for label in labels) if there and answer is not None else 0.0
        flags[category] = bool(there and answer is not None and answer.flagged and answer.label in labels)
        applied[category] = ["text"] if there else []
    whole = any(flags.values()) or any(answers[name].flagged for name in GUARDS if name in answers)
    return {"flagged": whole, "categories": flags, "category_scores": scores, "category_applied_input_types": applied}
