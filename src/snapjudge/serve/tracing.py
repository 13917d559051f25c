"""OpenTelemetry: a span for each request, under the caller's, and an event for each answer. Nothing is recorded unless somebody has set up a provider:
`--traces`, opentelemetry-instrument, or the program that runs the server. No text is ever in one.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from snapjudge import __version__
from snapjudge.core.api import Answer
from snapjudge.errors import ExtraMissing

Traces = Literal["none", "otlp", "console"]
_REQUEST: ContextVar[Span] = ContextVar("request", default=trace.INVALID_SPAN)  # the framework has spans of its own below it
RESULT = "gen_ai.evaluation.result"  # of OpenTelemetry's semantic conventions for generative AI


@contextmanager
def request_span(method: str, headers: Mapping[bytes, bytes], request_id: str) -> Iterator[Span]:
    """The span of one request, current while it is answered."""
    carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items() if name in (b"traceparent", b"tracestate", b"baggage")}
    context = propagate.extract(carrier) if carrier else None
    own = trace.get_tracer("snapjudge", __version__)
    attributes = {"http.request.method": method, "snapjudge.request_id": request_id}
    with own.start_as_current_span(method, context, SpanKind.SERVER, attributes) as span:
        before = _REQUEST.set(span)
        try:
            yield span
        finally:
            _REQUEST.reset(before)


def note_end(span: Span, method: str, route: str, status: int, code: str) -> None:
    """Put down how a request ended."""
    if not span.is_recording():
        return
    span.update_name(f"{method} {route}")
    span.set_attributes({"http.route": route, "http.response.status_code": status, **({"error.type": code} if code else {})})
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR, code))


def note_results(answers: Iterable[Answer]) -> None:
    """Put down what was answered, as events of the request's span."""
    span = _REQUEST.get()
    if not span.is_recording():
        return
    for one in answers:
        found: dict[str, str | float | bool] = {
            "gen_ai.evaluation.name": one.judge.partition("@")[0],
            "snapjudge.judge": one.judge,
            "snapjudge.flagged": one.flagged,
        }
        if one.score is not None:
            found["gen_ai.evaluation.score.value"] = one.score
        if one.label is not None:
            found["gen_ai.evaluation.score.label"] = one.label
        if one.abstention is not None:
            found["error.type"] = one.abstention.code
        span.add_event(RESULT, found)


def set_up(traces: Traces) -> None:
    """Give spans somewhere to go: an OTLP collector (OTEL_EXPORTER_OTLP_ENDPOINT, else this machine's), or standard error.

    Raises:
        ExtraMissing.
    """
    if traces == "none":
        return
    try:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - for whoever traces
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter  # noqa: PLC0415

        exporter: SpanExporter
        if traces == "otlp":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

            exporter = OTLPSpanExporter()
        else:
            import sys  # noqa: PLC0415

            exporter = ConsoleSpanExporter(out=sys.stderr)
    except ImportError as error:
        raise ExtraMissing(f"--traces {traces} needs a package that is missing: {error.name}", hint="pip install 'snapjudge[traces]'") from error
    provider = TracerProvider(resource=Resource.create({"service.name": "snapjudge", "service.version": __version__}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
