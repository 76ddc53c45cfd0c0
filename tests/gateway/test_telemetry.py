import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from galerne.gateway.otlp import OtlpTelemetry
from galerne.gateway.telemetry import Content, Finished, TelemetryOff, content_of, open_telemetry
from galerne.gateway.wire.answer import TokenCount
from galerne.gateway.wire.shapes import ChatBody, EmbeddingBody, Message
from tests.gateway.collector import Collector, plain, running_collector

STARTED = datetime(2026, 11, 23, 12, 0, 0, 250_000, tzinfo=UTC)
STARTED_NS = 1_795_435_200_250_000_000
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def finished(**changes: Any) -> Finished:
    values: dict[str, Any] = {
        "request_id": "0" * 32,
        "organisation_id": "org",
        "workspace_id": "space",
        "key_id": "key",
        "model": "brise",
        "model_version": "7",
        "provider": "llamacpp",
        "endpoint": "chat.completions",
        "dialect": "openai",
        "tier": "standard",
        "status": 200,
        "error_code": None,
        "count": TokenCount(10, 5, 21),
        "started_at": STARTED,
        "queue_ms": 3.0,
        "ttft_ms": 50.0,
        "total_ms": 450.0,
        "finish_reason": "stop",
        "streamed": True,
    }
    return Finished(**{**values, **changes})


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "TRACES_ENDPOINT", "METRICS_ENDPOINT", "PROTOCOL"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        yield collector


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with running_collector(hangs=True) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        yield collector
        collector.released.set()
        for thread in threading.enumerate():
            if thread.name.startswith(("telemetry", "OtelBatch")):
                thread.join(5)


async def told(*requests: Finished) -> None:
    telemetry = open_telemetry()
    assert telemetry.on
    for one in requests:
        telemetry.finished(one)
    await telemetry.close(within_s=5)


async def only_span(collector: Collector, one: Finished) -> tuple[Span, dict[str, Any]]:
    await told(one)
    (span,) = collector.spans
    return span, plain(span.attributes)


async def test_a_request_becomes_a_span_by_the_conventions(collector: Collector) -> None:
    span, attributes = await only_span(collector, finished())
    assert (span.name, span.kind) == ("chat brise", Span.SPAN_KIND_CLIENT)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (STARTED_NS, STARTED_NS + 450_000_000)
    assert span.parent_span_id == b""
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llamacpp",
        "gen_ai.request.model": "brise",
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "0" * 32,
        "gen_ai.response.model": "brise@7",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.05,
        "gen_ai.usage.input_tokens": 15,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.output_tokens": 21,
        "http.response.status_code": 200,
        "galerne.organisation.id": "org",
        "galerne.workspace.id": "space",
        "galerne.key.id": "key",
        "galerne.dialect": "openai",
        "galerne.service_tier": "standard",
        "galerne.queue.duration": 0.003,
    }
    assert collector.resources[0]["service.name"] == "galerne"
    assert collector.resources[0]["service.instance.id"]
    assert collector.schemas == {"https://opentelemetry.io/schemas/1.41.0"}
    assert collector.scopes[0].name == "galerne.gateway"


@pytest.mark.parametrize(
    ("changes", "name", "kind"),
    [
        ({"endpoint": "completions"}, "text_completion brise", "text_completion"),
        ({"endpoint": "fim.completions"}, "text_completion brise", "text_completion"),
        ({"endpoint": "embeddings", "streamed": False}, "embeddings brise", "embeddings"),
        ({"model": None, "provider": None, "status": 404, "error_code": "model_not_found"}, "chat", "chat"),
    ],
)
async def test_a_span_is_named_after_what_was_asked_of_which_model(
    collector: Collector, changes: dict[str, Any], name: str, kind: str
) -> None:
    span, attributes = await only_span(collector, finished(**changes))
    assert (span.name, attributes["gen_ai.operation.name"]) == (name, kind)


async def test_the_caller_s_span_is_the_parent(collector: Collector) -> None:
    span, _ = await only_span(collector, finished(traceparent=f"00-{TRACE}-{PARENT}-01"))
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01" * 500])
async def test_a_traceparent_that_is_none_begins_a_trace(collector: Collector, header: str) -> None:
    span, _ = await only_span(collector, finished(traceparent=header))
    assert span.parent_span_id == b""
    assert span.trace_id.hex() != TRACE


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"status": 429, "error_code": "rate_limited"}, "rate_limited"),
        ({"status": 499}, "499"),
        ({"status": 200, "error_code": "upstream_lost"}, "upstream_lost"),
    ],
)
async def test_a_failed_request_names_its_kind_of_error(
    collector: Collector, changes: dict[str, Any], error: str
) -> None:
    span, attributes = await only_span(collector, finished(**changes))
    assert attributes["error.type"] == error
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert span.status.message == ""
    (point,) = collector.metrics["gen_ai.server.request.duration"].histogram.data_points
    assert plain(point.attributes)["error.type"] == error
    assert "gen_ai.server.time_to_first_token" not in collector.metrics


async def test_no_text_is_told_unless_it_is_given(collector: Collector) -> None:
    _, attributes = await only_span(collector, finished())
    assert not [name for name in attributes if "messages" in name]


async def test_text_of_a_workspace_that_opted_in_is_told_as_messages(collector: Collector) -> None:
    content = Content([("system", "Be brief."), ("user", "Où ?")], ["Là."])
    _, attributes = await only_span(collector, finished(content=content))
    assert "Où" not in repr(finished(content=content))
    assert json.loads(attributes["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "Où ?"}]},
    ]
    assert json.loads(attributes["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Là."}]}
    ]


async def test_long_text_is_cut_and_the_newest_kept(collector: Collector) -> None:
    content = Content([("user", "a" * 50_000), ("user", "b" * 16_000)], ["c" * 50_000])
    _, attributes = await only_span(collector, finished(content=content))
    asked = json.loads(attributes["gen_ai.input.messages"])
    assert [message["parts"][0]["content"] for message in asked] == ["a" * 384, "b" * 16_000]
    assert json.loads(attributes["gen_ai.output.messages"])[0]["parts"][0]["content"] == "c" * 16_384


def test_content_is_the_text_of_messages_prompts_and_inputs() -> None:
    picture: dict[str, Any] = {"type": "image_url", "image_url": "data:secret"}
    parts: list[dict[str, Any]] = [{"type": "text", "text": "What is"}, picture, {"type": "text", "text": "this?"}]
    messages = [Message("user", parts), Message("assistant", None)]
    assert content_of(ChatBody(model="m", messages=messages), ["A cat."]) == Content(
        [("user", "What is\nthis?"), ("assistant", "")], ["A cat."]
    )
    assert content_of(EmbeddingBody(model="m", input=["one", "two"]), []).asked == [("user", "one"), ("user", "two")]


async def test_metrics_have_the_conventions_names_units_buckets_and_attributes(collector: Collector) -> None:
    await told(finished(), finished(), finished(status=503, error_code="model_not_ready", ttft_ms=None))
    common = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "llamacpp",
        "gen_ai.request.model": "brise",
    }
    found = {
        (name, *plain(point.attributes).items()): point
        for name, metric in collector.metrics.items()
        for point in metric.histogram.data_points
    }
    assert {name: metric.unit for name, metric in collector.metrics.items()} == {
        "gen_ai.server.request.duration": "s",
        "gen_ai.server.time_to_first_token": "s",
        "gen_ai.server.time_per_output_token": "s",
        "gen_ai.client.token.usage": "{token}",
    }
    assert {metric.histogram.aggregation_temporality for metric in collector.metrics.values()} == {2}, "cumulative"
    duration = found[("gen_ai.server.request.duration", *common.items())]
    assert (duration.count, duration.sum) == (2, pytest.approx(0.9))
    assert list(duration.explicit_bounds)[:3] == [0.01, 0.02, 0.04]
    assert [n for n in duration.bucket_counts if n] == [2]
    assert found[("gen_ai.server.request.duration", *common.items(), ("error.type", "model_not_ready"))].count == 1
    assert found[("gen_ai.server.time_to_first_token", *common.items())].sum == pytest.approx(0.1)
    assert found[("gen_ai.server.time_per_output_token", *common.items())].sum == pytest.approx(0.04)
    usage = "gen_ai.client.token.usage"
    assert found[(usage, *common.items(), ("gen_ai.token.type", "input"))].sum == 45
    output = found[(usage, *common.items(), ("gen_ai.token.type", "output"))]
    assert (output.count, output.sum, len(output.explicit_bounds)) == (3, 63, 14)
    assert not output.HasField("min")
    assert output.start_time_unix_nano <= output.time_unix_nano


async def test_the_sampler_of_the_environment_decides_about_spans_alone(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    await told(finished())
    assert collector.spans == []
    assert collector.metrics["gen_ai.server.request.duration"].histogram.data_points[0].count == 1


async def test_a_caller_that_is_not_sampled_is_followed(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    await told(finished(traceparent=f"00-{TRACE}-{PARENT}-00"), finished())
    assert len(collector.spans) == 1


async def test_each_signal_can_be_left_out(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    await told(finished())
    assert (len(collector.spans), collector.metrics) == (1, {})


async def test_the_installation_may_name_itself(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "galerne-paris")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=production")
    await told(finished())
    assert collector.resources[0]["service.name"] == "galerne-paris"
    assert collector.resources[0]["deployment.environment.name"] == "production"


async def test_a_hanging_collector_delays_nobody_and_fills_no_memory(
    hanging: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "200")
    telemetry = open_telemetry()
    assert isinstance(telemetry, OtlpTelemetry)
    telemetry.finished(finished())
    assert hanging.asked.wait(5), "the first span is on its way, and stays there"
    slowest_s = 0.0
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(3_000):
        began_s = time.perf_counter()
        telemetry.finished(finished())
        slowest_s = max(slowest_s, time.perf_counter() - began_s)
    gc.collect()
    assert slowest_s < 5, "waiting for the collector would take ten seconds"
    # 3,000 spans that waited would be 30,000 objects and more; the queue has room for 200.
    assert len(gc.get_objects()) - before < 10_000
    began_s = time.monotonic()
    await telemetry.close(within_s=0.2)
    assert time.monotonic() - began_s < 8


async def test_the_text_that_waits_for_a_hanging_collector_is_bounded(hanging: Collector) -> None:
    telemetry = open_telemetry()
    assert isinstance(telemetry, OtlpTelemetry)
    spans = telemetry._spans
    assert spans is not None
    for number in range(700):
        content = Content([("user", f"{number} " + "x" * 20_000)], ["y" * 20_000])
        telemetry.finished(finished(content=content))
    assert not spans._held.has_room()
    assert spans._held._held_characters < 17 * 1024 * 1024
    for _ in range(2_200):  # push out those that hold text
        telemetry.finished(finished())
    gc.collect()
    assert spans._held.has_room()
    await telemetry.close(within_s=0.1)


async def test_a_dead_collector_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    telemetry = open_telemetry()
    telemetry.finished(finished())
    await telemetry.close(within_s=0.2)
    telemetry.finished(finished())


async def test_nothing_named_means_nobody_listens() -> None:
    telemetry = open_telemetry()
    assert not telemetry.on
    telemetry.finished(finished())
    await telemetry.close()


def test_the_sdk_can_be_switched_off(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert isinstance(open_telemetry(), TelemetryOff)


def test_offline_allows_a_collector_on_this_machine_alone(
    monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example:4318")
    assert not open_telemetry(offline=True).on
    assert [line["event"] for line in logs] == ["telemetry_off"]


def test_another_protocol_is_refused_in_one_line(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert not open_telemetry().on
    assert "http/protobuf" in logs[0]["problem"]


@pytest.mark.timeout(60)  # imports the gateway in a process of its own, which takes long where cores are few
def test_without_the_extra_the_server_says_what_to_install_and_goes_on() -> None:
    program = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('opentelemetry.sdk') or name.startswith('opentelemetry.exporter'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from galerne.gateway.telemetry import open_telemetry\n"
        "assert not open_telemetry().on\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry.sdk')]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("galerne[otel]") == 1
