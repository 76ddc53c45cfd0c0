"""Requests of a running gateway as a collector sees them; their text only where a workspace asked for that."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest
from sqlalchemy import text

from galerne.gateway import Replica
from galerne.identity import resolve_key
from galerne.kernel import Database, SystemClock
from tests.gateway.collector import Collector, plain, running_collector
from tests.gateway.conftest import MODELS
from tests.gateway.installation import Installation, running_gateway
from tests.gateway.upstream import MockEngine

CHAT = "/v1/chat/completions"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        yield collector


@pytest.fixture
async def traced(collector: Collector, sqlite: Database, engine: MockEngine) -> AsyncGenerator[Installation]:
    async with running_gateway(sqlite, Replica(id="r", base_url=engine.base_url), MODELS) as running:
        yield running


def body(name: str, **more: Any) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": "Who are you?"}], **more}


async def spans(collector: Collector, count: int) -> list[dict[str, Any]]:
    for _ in range(300):
        if len(collector.spans) >= count:
            break
        await asyncio.sleep(0.02)
    return [{**plain(span.attributes), "name": span.name, "trace": span.trace_id.hex()} for span in collector.spans]


async def test_each_request_is_a_span_below_its_callers_without_its_text(
    traced: Installation, collector: Collector
) -> None:
    parent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    await traced.post(CHAT, body("normal"), parent)
    await traced.events(CHAT, body("normal", stream=True), parent)
    await traced.post(CHAT, body("nothing-like-it"), parent)
    found = await spans(collector, 3)
    assert [each["name"] for each in found] == ["chat normal", "chat normal", "chat"]
    assert {each["trace"] for each in found} == {TRACE}
    assert [each["http.response.status_code"] for each in found] == [200, 200, 404]
    assert found[2]["error.type"] == "model_not_found"
    assert "Who are you" not in repr(found)
    assert not any("messages" in name for each in found for name in each)


@pytest.mark.parametrize("opted_in", [True, False])
async def test_the_text_is_in_the_trace_only_of_a_workspace_that_wants_it(
    traced: Installation, collector: Collector, opted_in: bool
) -> None:
    async with traced.database.transaction() as session:
        await session.execute(text("UPDATE workspaces SET trace_content = :on"), {"on": opted_in})
        workspace = await session.scalar(text("SELECT id FROM workspaces"))
        await resolve_key(session, traced.key, SystemClock().now())
    key = await traced.new_key(workspace_id=workspace)
    await traced.post(CHAT, body("normal"), key=key)
    (span,) = await spans(collector, 1)
    assert ("Who are you?" in span.get("gen_ai.input.messages", "")) is opted_in
    assert ("Bonjour, je suis le vent." in span.get("gen_ai.output.messages", "")) is opted_in
