"""Spans and evaluation events of a running server, as an exporter sees them; no text is in any."""

import json

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from typer.testing import CliRunner

from snapjudge.cli.main import app

pytestmark = pytest.mark.flow


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def test_a_request_is_a_span_under_its_callers_with_an_event_for_each_answer(server, spans):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = {"inputs": {"output": "You are a complete idiot."}, "judges": ["toxicity", "tone", "prompt_injection"]}
    httpx.post(f"{server}/v1/judge", json=body, headers={"traceparent": parent, "x-request-id": "mine"})
    httpx.post(f"{server}/v1/judge", json={})
    httpx.get(f"{server}/none/such")
    judged, refused, lost = (one for one in spans.get_finished_spans() if one.instrumentation_scope.name == "snapjudge")
    assert judged.name == "POST /v1/judge"
    assert f"{judged.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{judged.parent.span_id:016x}" == "b7ad6b7169203331"
    assert judged.attributes["http.response.status_code"] == 200
    assert judged.attributes["snapjudge.request_id"] == "mine"
    events = {event.attributes["gen_ai.evaluation.name"]: event for event in judged.events}
    assert {event.name for event in judged.events} == {"gen_ai.evaluation.result"}
    assert events["toxicity"].attributes["gen_ai.evaluation.score.label"] == "toxic"
    assert events["toxicity"].attributes["gen_ai.evaluation.score.value"] > 0.5
    assert (refused.attributes["http.response.status_code"], refused.attributes["error.type"]) == (422, "request_invalid")
    assert lost.name == "GET other"
    assert "idiot" not in json.dumps([json.loads(one.to_json()) for one in spans.get_finished_spans()])


def test_traces_go_nowhere_unless_that_was_said():
    found = CliRunner().invoke(app, ["serve", "toxicity", "--traces", "everywhere", "--json"])
    assert found.exit_code != 0
    assert "none, otlp, console" in found.output
