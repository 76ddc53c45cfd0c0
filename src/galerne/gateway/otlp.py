"""Requests as OpenTelemetry spans and metrics, by its semantic conventions for generative AI, sent by OTLP over HTTP.

Names and buckets are those of the conventions' version 1.41, the last that was released together with all others:
https://github.com/open-telemetry/semantic-conventions/tree/v1.41.0/docs/gen-ai

A span is made when its request has ended. It waits in a bounded queue for a thread that sends it; what a slow or dead
collector does not take is dropped. Metrics are added up in plain numbers and sent by a thread of their own.
"""

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from galerne import __version__
from galerne.gateway.otlp_metrics import GenAiMetrics
from galerne.gateway.telemetry import Content, Finished
from galerne.kernel import Ids

__all__ = ["OtlpTelemetry", "attributes_of", "error_of", "operation_of"]

_SCHEMA = "https://opentelemetry.io/schemas/1.41.0"
_SCOPE = "galerne.gateway"
_PROVIDER = "galerne"  # of a request for which no model was found
_OPERATIONS = {
    "chat.completions": "chat",
    "completions": "text_completion",
    "fim.completions": "text_completion",
    "embeddings": "embeddings",
}
_BATCH = 64  # encoding a span takes 50 µs of a thread that holds the interpreter: a stream may wait for one batch
_INTERVAL_S = 60.0
_MOST_CONTENT_CHARACTERS = 16_384
_MOST_HELD_CHARACTERS = 16 * 1024 * 1024

_LONGEST_TRACEPARENT = 256  # today's has 55 characters; the SDK logs a line for each that is too long for it

AttributeValue = str | int | float | bool | Sequence[str]


class OtlpTelemetry:
    """Tells a collector, as OpenTelemetry's environment variables (`environment`) want it."""

    on = True

    def __init__(self, environment: Mapping[str, str]) -> None:
        resource = Resource.create(
            {
                "service.name": "galerne",
                "service.version": __version__,
                "service.instance.id": Ids().new(),
                **OTELResourceDetector().detect().attributes,
            },
            _SCHEMA,
        )
        self._spans = _Spans(resource, environment) if _wanted(environment, "TRACES") else None
        self._metrics = _Metrics(resource, environment) if _wanted(environment, "METRICS") else None

    def finished(self, one: Finished) -> None:
        """Count the request and, if the sampler picks it, make its span."""
        operation, error = operation_of(one), error_of(one)
        provider = one.provider or _PROVIDER
        if self._metrics is not None:
            self._metrics.sums.add(one, operation, provider, error)
        if self._spans is not None:
            self._spans.add(one, operation, provider, error)

    async def close(self, within_s: float = 2.0) -> None:
        """Send what waits, within `within_s`; then no try is repeated, and what a dead collector holds is given up."""
        parts = [part for part in (self._spans, self._metrics) if part is not None]
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            for part in parts:
                part.close()
            with suppress(RuntimeError):  # the loop may be gone by now
                loop.call_soon_threadsafe(sent.set)

        threading.Thread(target=send, name="telemetry-close", daemon=True).start()
        try:
            async with asyncio.timeout(within_s):
                await sent.wait()
        except TimeoutError:
            for part in parts:
                part.exporter.shutdown()


class _Spans:
    def __init__(self, resource: Resource, environment: Mapping[str, str]) -> None:
        batch = None if "OTEL_BSP_MAX_EXPORT_BATCH_SIZE" in environment else _BATCH
        self.exporter = OTLPSpanExporter()
        self._processor = BatchSpanProcessor(self.exporter, max_export_batch_size=batch)
        self._held = _HeldContent()
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(self._held)
        tracers.add_span_processor(self._processor)
        self._tracer = tracers.get_tracer(_SCOPE, __version__, _SCHEMA)
        self._propagator = TraceContextTextMapPropagator()

    def add(self, one: Finished, operation: str, provider: str, error: str | None) -> None:
        parent = Context()
        if one.traceparent is not None and len(one.traceparent) <= _LONGEST_TRACEPARENT:
            parent = self._propagator.extract({"traceparent": one.traceparent}, parent)
        sampled_by: dict[str, AttributeValue] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": provider,
        }
        name = operation
        if one.model is not None:
            sampled_by["gen_ai.request.model"] = one.model
            name = f"{operation} {one.model}"
        began_ns = int(one.started_at.timestamp() * 1_000_000) * 1_000
        span = self._tracer.start_span(name, parent, SpanKind.CLIENT, sampled_by, start_time=began_ns)
        if span.is_recording():
            self._fill(span, one, error)
        span.end(began_ns + int(one.total_ms * 1_000_000))

    def _fill(self, span: Span, one: Finished, error: str | None) -> None:
        span.set_attributes(attributes_of(one))
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))
        if one.content is not None and self._held.has_room():
            span.set_attributes(_content(one.content))

    def close(self) -> None:
        self._processor.shutdown()


class _HeldContent(SpanProcessor):
    """Knows how much text the spans hold that wait to be sent: their queue is bounded by number, not by size."""

    def __init__(self) -> None:
        self._held_characters = 0
        self._freed: deque[int] = deque()

    def has_room(self) -> bool:
        while self._freed:  # filled by whichever thread lets go of a span; only this one adds up
            self._held_characters -= self._freed.popleft()
        return self._held_characters < _MOST_HELD_CHARACTERS

    def on_end(self, span: ReadableSpan) -> None:
        attributes = span.attributes or {}
        texts = (attributes.get(name) for name in ("gen_ai.input.messages", "gen_ai.output.messages"))
        characters = sum(len(text) for text in texts if isinstance(text, str))
        if characters:
            self._held_characters += characters
            weakref.finalize(span, self._freed.append, characters).atexit = False


class _Exporter(Protocol):  # what is used of the SDK's, whose own types are open
    def export(self, metrics_data: MetricsData, /) -> object: ...

    def shutdown(self) -> None: ...


class _Metrics:
    def __init__(self, resource: Resource, environment: Mapping[str, str]) -> None:
        self.exporter: _Exporter = OTLPMetricExporter()
        self.sums = GenAiMetrics(resource, InstrumentationScope(_SCOPE, __version__, _SCHEMA))
        self._interval_s = _interval_s(environment.get("OTEL_METRIC_EXPORT_INTERVAL", ""))
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            self.exporter.export(self.sums.data())
        self.exporter.export(self.sums.data())

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self.exporter.shutdown()


def operation_of(one: Finished) -> str:
    """The conventions' name for what was asked: `chat`, `text_completion` or `embeddings`."""
    return _OPERATIONS.get(one.endpoint, one.endpoint)


def error_of(one: Finished) -> str | None:
    """The conventions' `error.type`: our code of the error, or the status; None where all went well."""
    if one.error_code is not None:
        return one.error_code
    return str(one.status) if one.status >= 400 else None


def attributes_of(one: Finished) -> dict[str, AttributeValue]:
    """What the conventions ask for beyond operation, provider and model, and whose request it was (`galerne.*`)."""
    count = one.count
    given: dict[str, AttributeValue | None] = {
        "gen_ai.response.id": one.request_id,
        "gen_ai.response.model": f"{one.model}@{one.model_version}" if one.model and one.model_version else None,
        "gen_ai.response.finish_reasons": None if one.finish_reason is None else (one.finish_reason,),
        "gen_ai.request.stream": one.streamed or None,
        "gen_ai.usage.input_tokens": count.input_tokens + count.cached_tokens,
        "gen_ai.usage.cache_read.input_tokens": count.cached_tokens,
        "gen_ai.usage.output_tokens": None if one.endpoint == "embeddings" else count.output_tokens,
        "gen_ai.response.time_to_first_chunk": one.ttft_ms / 1000 if one.streamed and one.ttft_ms is not None else None,
        "http.response.status_code": one.status,
        "galerne.organisation.id": one.organisation_id,
        "galerne.workspace.id": one.workspace_id,
        "galerne.key.id": one.key_id,
        "galerne.dialect": one.dialect,
        "galerne.service_tier": one.tier,
        "galerne.queue.duration": one.queue_ms / 1000,
    }
    return {name: value for name, value in given.items() if value is not None}


def _content(content: Content) -> dict[str, AttributeValue]:
    asked = [_message(role, text) for role, text in _newest(content.asked)]
    answered = [_message("assistant", text[:_MOST_CONTENT_CHARACTERS]) for text in content.answered]
    return {"gen_ai.input.messages": _json(asked), "gen_ai.output.messages": _json(answered)}


def _newest(messages: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The last messages, as many as there is room for; the first of them may be cut."""
    room, kept = _MOST_CONTENT_CHARACTERS, list[tuple[str, str]]()
    for role, text in reversed(messages):
        if room <= 0:
            break
        kept.append((role, text[-room:]))
        room -= len(text)
    return kept[::-1]


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def _json(messages: Sequence[dict[str, Any]]) -> str:
    return msgspec.json.encode(messages).decode()


def _wanted(environment: Mapping[str, str], signal: str) -> bool:
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")
    asked_for = environment.get(f"OTEL_{signal}_EXPORTER", "otlp").split(",")
    return "otlp" in asked_for and any(environment.get(name, "").strip() for name in endpoints)


def _interval_s(milliseconds: str) -> float:
    return int(milliseconds) / 1000 if milliseconds.isdigit() and int(milliseconds) else _INTERVAL_S
