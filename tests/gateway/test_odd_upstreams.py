"""Engines that write what no engine should: the request is recorded all the same, and its client hears an end."""

import json
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import pytest

from galerne.gateway import asgi, exchange, sse
from galerne.gateway.stream_options import LEAST, RefusedOptions
from galerne.gateway.wire import assemble
from galerne.kernel import ManualClock
from tests.gateway.installation import Installation
from tests.gateway.upstream import WORDS, MockEngine

CHAT = "/v1/chat/completions"


def body(name: str, **more: Any) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": "Who are you?"}], **more}


async def test_absurd_counts_and_finish_reasons_leave_an_estimate_and_a_whole_stream(
    gateway_on_both: Installation, engine: MockEngine
) -> None:
    gateway = gateway_on_both
    events = await gateway.events(CHAT, body("absurd", stream=True))
    status, answer, _ = await gateway.post(CHAT, body("absurd"))
    assert events[-1] == "[DONE]"
    assert (status, answer["choices"][0]["finish_reason"]) == (200, "other")
    settled = await gateway.settled(2)
    assert [(event.outcome, event.finish_reason, event.estimated) for event in settled] == [
        ("completed", "other", True)
    ] * 2
    assert [event.output_tokens for event in settled] == [len(WORDS)] * 2
    assert all(0 < event.input_tokens < 100 and event.queue_ms == 0 for event in settled)
    assert await gateway.journal() == ["inference.completed"] * 2


@pytest.mark.parametrize("broken", ["settled", "context_reached"])
async def test_a_defect_while_a_verdict_is_drawn_up_ends_the_stream_with_an_error_and_is_logged_by_its_place(
    gateway: Installation,
    engine: MockEngine,
    monkeypatch: pytest.MonkeyPatch,
    logs: list[MutableMapping[str, Any]],
    broken: str,
) -> None:
    def fail(*given: object, **more: object) -> None:
        raise ValueError("Bonjour, this quotes the answer")

    key = await gateway.new_key(tokens_per_minute=2_000)
    monkeypatch.setattr(asgi, broken, fail)
    sent = body("normal", max_tokens=1_500, stream=True)
    for _ in range(3):  # what was reserved is given back, or the second would not be admitted
        events = await gateway.events(CHAT, sent, gateway.headers(key))
        assert json.loads(events[-1])["error"]["code"] == "internal_error"
    defects = [line for line in logs if line["event"] == "defect"]
    assert len(defects) == 3
    assert len({line["request_id"] for line in defects}) == 3
    for line in defects:
        assert line["cause"].startswith("ValueError at Gateway.")
        assert set(line) == {"timestamp", "level", "part", "event", "request_id", "cause"}


async def test_a_defect_while_the_verdict_of_a_whole_answer_is_drawn_up_is_a_500_with_its_request_id(
    gateway: Installation, monkeypatch: pytest.MonkeyPatch, logs: list[MutableMapping[str, Any]]
) -> None:
    monkeypatch.setattr(asgi, "settled", None)
    status, error, headers = await gateway.post(CHAT, body("normal"))
    assert (status, error["error"]["code"]) == (500, "internal_error")
    assert [line["request_id"] for line in logs if line["event"] == "defect"] == [headers["x-request-id"]]


@pytest.mark.parametrize(("name", "tries"), [("echoes", 2), ("echoes-and-names-the-field", 1)])
async def test_a_caller_whose_words_an_engine_echoes_does_not_change_how_others_are_metered(
    gateway: Installation, engine: MockEngine, name: str, tries: int
) -> None:
    words = "reject me: stream_options, include_usage"
    sent = {"model": name, "messages": [{"role": "user", "content": words}]}
    status, error, _ = await gateway.post(CHAT, sent)
    assert (status, error["error"]["param"]) == (400, "messages" if tries == 1 else None)
    assert len(engine.requests) == tries
    assert (await gateway.post(CHAT, body(name)))[0] == 200
    assert engine.requests[-1]["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert [event.estimated for event in await gateway.settled(2)] == [False, False]


def test_what_an_engine_refused_is_forgotten_after_ten_minutes() -> None:
    clock = ManualClock(datetime(2026, 11, 23, tzinfo=UTC))
    options = RefusedOptions(clock)
    options.remember(("model", "1"), LEAST)
    assert (options.level(("model", "1")), options.level(("model", "2"))) == (LEAST, 0)
    clock.elapsed_s = 600.0
    assert options.level(("model", "1")) == 0


async def test_an_answer_that_is_gathered_here_has_a_largest_size(
    gateway: Installation, engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_LARGEST_STREAM", 3_000_000)
    engine.tokens = 100
    status, error, _ = await gateway.post(CHAT, body("floods"))
    assert (status, error["code"]) == (502, "upstream_garbage")
    (event,) = await gateway.settled(1)
    assert (event.outcome, engine.cut) == ("failed", 1)
    assert engine.sent_chunks < 20
    engine.tokens = 5
    events = await gateway.events(CHAT, body("floods", stream=True))
    assert events[-1] == "[DONE]", "what is passed on has no limit"


async def test_one_event_and_the_calls_of_a_stream_have_a_largest_size_too(
    gateway: Installation, engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "_LONGEST_LINE", 1_000_000)
    monkeypatch.setattr(assemble, "_LONGEST_CALLS", 1_000_000)
    for name in ("endless-event", "floods-a-call"):
        events = await gateway.events(CHAT, body(name, stream=True), {"user-agent": "mistral-client-python/3.7.0"})
        assert json.loads(events[-1])["error"]["code"] == "upstream_garbage", name
    assert [event.outcome for event in await gateway.settled(2)] == ["failed"] * 2
