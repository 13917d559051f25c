"""LiteLLM's generic guardrail call: `POST /beta/litellm_basic_guardrail_api`, answered by a policy.

The policy is named in the guardrail's `additional_provider_specific_params` (`policy: support_bot`); where one policy alone is loaded it need not be. Texts of
a request are looked at as inputs, those of a response as outputs, tool calls at the stage `tool_call`.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from snapjudge.core.api import GuardResponse
from snapjudge.core.frozen import Frozen
from snapjudge.core.policy import Policy, Stage
from snapjudge.errors import InputInvalid, PolicyUnknown
from snapjudge.serve.bodies import answered, read_body, takes
from snapjudge.serve.guarding import guarded
from snapjudge.serve.service import Service, caller_of, service_of
from snapjudge.serve.wires.material import of_messages

router = APIRouter(tags=["litellm"])


class GuardrailRequest(Frozen):
    """What LiteLLM sends; further fields are its own affair."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    input_type: Literal["request", "response"]
    texts: list[str] | None = Field(default=None, max_length=256)
    images: list[str] | None = None
    tool_calls: list[dict[str, Any]] | None = Field(default=None, max_length=256)
    structured_messages: list[dict[str, Any]] | None = None
    additional_provider_specific_params: dict[str, Any] | None = None


class GuardrailResponse(Frozen):
    """What LiteLLM is to do; `texts` where some were changed."""

    action: Literal["BLOCKED", "NONE", "GUARDRAIL_INTERVENED"]
    blocked_reason: str | None = None
    texts: list[str] | None = None
    images: list[str] | None = None


@router.post("/beta/litellm_basic_guardrail_api", response_model=GuardrailResponse, openapi_extra=takes(GuardrailRequest), summary="A LiteLLM guardrail")
async def guardrail(request: Request) -> Response:
    """Blocked and escalated texts are BLOCKED; redacted and overridden ones come back changed."""
    caller_of(request).check("judge")
    body = await read_body(request, GuardrailRequest)
    if body.images:
        raise InputInvalid("an image", hint="send texts only; images are not judged")
    policy = policy_for(service_of(request), (body.additional_provider_specific_params or {}).get("policy"))
    stage: Stage = "input" if body.input_type == "request" else "output"
    asked = _asked(body.structured_messages)
    texts = [guarded(request, policy, stage, _inputs(stage, text, asked)) for text in body.texts or ()]
    calls = [guarded(request, policy, "tool_call", {"output": _call(one), **asked}) for one in body.tool_calls or ()]
    found = await asyncio.gather(*texts, *calls)
    return answered(_told(found[: len(texts)], found[len(texts) :], body.texts))


def policy_for(service: Service, name: object) -> Policy:
    """The policy of a name; the only one where none is named.

    Raises:
        PolicyUnknown: none is named and there is not exactly one.
    """
    if isinstance(name, str) and name:
        return service.policies.find(name)
    known = list(service.policies)
    if len(known) != 1:
        there = ", ".join(one.name for one in known) or "none"
        raise PolicyUnknown(f"no policy is named, and {len(known)} are loaded: {there}", hint="name one: additional_provider_specific_params: {policy: NAME}")
    return known[0]


def _told(texts: list[GuardResponse], calls: list[GuardResponse], given: list[str] | None) -> GuardrailResponse:
    for one in (*texts, *calls):
        if one.action in ("block", "escalate"):
            return GuardrailResponse(action="BLOCKED", blocked_reason=one.message or _why(one))
    left = [one.text if one.text is not None else "" for one in texts]
    return GuardrailResponse(action="NONE" if left == (given or []) else "GUARDRAIL_INTERVENED", texts=left if left != (given or []) else None)


def _why(response: GuardResponse) -> str:
    names = [one.name for one in response.rulesets if one.taken]
    return f"escalated to {response.escalate_to}" if response.action == "escalate" else f"{response.policy}: {', '.join(names)}"


def _asked(messages: list[dict[str, Any]] | None) -> dict[str, Any]:
    """What was asked last, for judges of answers that read it."""
    found = of_messages(messages or []) if messages else None
    text = None if found is None else found.text if found.text is not None else found.fields.get("input")
    return {"input": text} if text else {}


def _inputs(stage: Stage, text: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    return {"input": text} if stage == "input" else {"output": text, **asked}


def _call(call: Mapping[str, Any]) -> str:
    called = call.get("function") if isinstance(call.get("function"), Mapping) else call
    assert isinstance(called, Mapping)
    arguments = called.get("arguments", "")
    return f"{called.get('name', '')}({arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)})"
