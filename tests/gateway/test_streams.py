"""What happens to streams: relayed as they come, cut by either side, settled once whatever happens."""

import asyncio
import json
from itertools import pairwise
from typing import Any

import pytest

from galerne.gateway import Replica, exchange, settlement
from galerne.gateway.commit import Commit
from galerne.gateway.reservations import Answers
from galerne.kernel import Database
from tests.gateway.installation import Installation, model, running_gateway
from tests.gateway.upstream import WORDS, MockEngine, running_engine

CHAT = "/v1/chat/completions"
TEXT = "".join(WORDS)


def body(name: str, **more: Any) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": "Who are you?"}], **more}


async def cut_after(gateway: Installation, chunks: int) -> int:
    """Read `chunks` chunks of a slow stream, hang up, and say how many tokens had arrived."""
    seen = 0
    async with gateway.http.post(
        gateway.base_url + CHAT, json=body("slow", stream=True), headers=gateway.headers()
    ) as response:
        async for line in response.content:
            seen += line.startswith(b"data: {")
            if seen >= chunks:
                break
        response.close()
    return seen


async def test_forty_streams_cut_by_the_client_stop_forty_engines_and_are_metered_for_what_was_sent(
    gateway_on_both: Installation, engine: MockEngine
) -> None:
    gateway = gateway_on_both
    seen = await asyncio.gather(*(cut_after(gateway, 2 + number % 7) for number in range(40)))
    events = await gateway.settled(40)
    assert len(events) == 40
    assert engine.begun == engine.cut == 40
    assert {event.outcome for event in events} == {"cancelled"}
    assert all(event.partial and event.status == 499 and not event.estimated for event in events)
    assert sum(seen) <= sum(event.output_tokens for event in events) <= engine.sent_chunks
    assert sum(seen) + 80 >= sum(event.output_tokens for event in events), "more was metered than had been sent"
    assert await gateway.journal() == ["inference.cancelled"] * 40
    assert gateway.registry.get_sample_value("galerne_gateway_upstream_cancellations_total") == 40


async def test_an_answer_that_nobody_waits_for_any_more_stops_the_engine(
    gateway: Installation, engine: MockEngine
) -> None:
    asking = asyncio.create_task(gateway.post(CHAT, body("slow")))
    for _ in range(2_000):
        await asyncio.sleep(0.01)
        if engine.sent_chunks >= 5:
            break
    asking.cancel()
    (event,) = await gateway.settled(1)
    assert (event.outcome, event.streamed, engine.cut) == ("cancelled", False, 1)
    assert event.output_tokens > 0


async def test_two_hundred_requests_at_once_leave_two_hundred_rows(
    gateway_on_both: Installation, engine: MockEngine
) -> None:
    gateway = gateway_on_both

    async def one(number: int) -> str:
        if number % 2:
            return json.loads((await gateway.events(CHAT, body("repeats-ids", stream=True)))[0])["id"]
        status, answer, _ = await gateway.post(CHAT, body("repeats-ids"))
        assert (status, answer["choices"][0]["message"]["content"]) == (200, TEXT)
        return answer["id"]

    ids = await asyncio.gather(*(one(number) for number in range(200)))
    events = await gateway.usage()
    assert len(set(ids)) == len(events) == 200
    assert {f"chatcmpl-{event.id}" for event in events} == set(ids)
    assert len(await gateway.journal()) == 200
    commits = gateway.registry.get_sample_value("galerne_gateway_settlement_batch_size_count")
    assert commits is not None
    assert commits < 200, "requests that wait at the same time share commits"


async def test_each_chunk_is_relayed_when_it_comes(gateway: Installation, engine: MockEngine) -> None:
    engine.tokens = 4
    arrived: list[float] = []
    async with gateway.http.post(
        gateway.base_url + CHAT, json=body("slow", stream=True), headers=gateway.headers()
    ) as response:
        async for line in response.content:
            if b'"content"' in line:
                arrived.append(asyncio.get_running_loop().time())
    gaps = [later - earlier for earlier, later in pairwise(arrived)]
    assert len(arrived) == 4
    assert min(gaps) > 0.01, "the engine writes a chunk every 20 ms"


BROKEN = {
    "dies": 502,
    "reports-error": 502,
    "garbage": 502,
    "unfinished": 502,
    "hangs": 504,
}


@pytest.mark.parametrize("agent", ["OpenAI/Python 3.54.0", "mistral-client-python/3.7.0"])
async def test_a_stream_that_breaks_ends_with_an_error_event_and_no_done(
    impatient: Installation, engine: MockEngine, agent: str
) -> None:
    for name in BROKEN:
        events = await impatient.events(CHAT, body(name, stream=True), {"user-agent": agent})
        last = json.loads(events[-1])
        assert last["error"]["code"] in ("upstream_lost", "upstream_failed", "upstream_garbage", "upstream_timeout")
        assert "/opt/engine" not in last["error"]["message"]
        assert "[DONE]" not in events
        if agent.startswith("mistral"):
            assert last["choices"][0]["finish_reason"] == "error"
    settled = await impatient.settled(len(BROKEN))
    assert {(event.outcome, event.partial) for event in settled} == {("failed", True)}
    assert all(1 <= event.output_tokens <= 3 for event in settled)
    assert await impatient.journal() == ["inference.failed"] * len(BROKEN)


async def test_a_whole_answer_that_breaks_is_an_error_with_a_status(
    impatient: Installation, engine: MockEngine
) -> None:
    for name, status in {**BROKEN, "never-answers": 504}.items():
        answered, error, headers = await impatient.post(CHAT, body(name))
        assert (answered, error["raw_status_code"], headers["x-should-retry"]) == (status, status, "true"), name
    settled = await impatient.settled(len(BROKEN) + 1)
    assert [(event.outcome, event.status) for event in settled] == [
        ("failed", status) for status in (*BROKEN.values(), 504)
    ]


async def test_an_error_before_the_first_token_of_a_stream_is_an_error_with_a_status(
    gateway: Installation, engine: MockEngine
) -> None:
    status, error, _ = await gateway.post(CHAT, body("error-first", stream=True))
    assert (status, error["error"]["param"]) == (400, "messages")
    (event,) = await gateway.settled(1)
    assert (event.input_tokens, event.output_tokens) == (0, 0)


async def test_an_engine_that_does_not_count_is_counted_for_and_the_event_says_so(
    gateway_on_both: Installation, engine: MockEngine
) -> None:
    gateway = gateway_on_both
    _, answer, _ = await gateway.post(CHAT, body("no-usage"))
    (event,) = await gateway.settled(1)
    assert event.estimated
    assert event.output_tokens == answer["usage"]["completion_tokens"] == len(WORDS)
    assert event.input_tokens > 0


@pytest.mark.parametrize("name", ["refuses-options", "refuses-options-by-place", "refuses-running-usage"])
async def test_an_engine_that_refuses_stream_options_is_asked_again_without_and_remembered(
    gateway: Installation, engine: MockEngine, name: str
) -> None:
    for _ in range(2):
        status, answer, _ = await gateway.post(CHAT, body(name))
        assert (status, answer["choices"][0]["message"]["content"]) == (200, TEXT)
    options = [request.get("stream_options") for request in engine.requests]
    least = {"include_usage": True} if name == "refuses-running-usage" else None
    assert options == [{"include_usage": True, "continuous_usage_stats": True}, least, least]
    assert len(await gateway.usage()) == 2


REFUSED = [
    ("says-400", 400, "invalid_request"),
    ("says-too-long", 400, "context_length_exceeded"),
    ("says-401", 502, "upstream_credentials"),
    ("says-404", 502, "upstream_lacks_model"),
    ("says-429", 429, "rate_limit_exceeded"),
    ("says-500", 502, "upstream_failed"),
    ("says-503", 503, "unavailable"),
]


async def test_what_an_engine_refuses_becomes_a_typed_error(gateway: Installation, engine: MockEngine) -> None:
    for name, status, code in REFUSED:
        answered, error, headers = await gateway.post(CHAT, body(name, stream=True))
        assert (answered, error["code"]) == (status, code)
        assert "sk-upstream-secret" not in error["message"]
        assert headers.get("retry-after") == {"says-429": "7", "says-503": "3"}.get(name)
        if name == "says-400":
            assert (error["message"], error["param"]) == ("logit_bias: unknown token", "logit_bias")
    settled = await gateway.settled(len(REFUSED))
    assert [event.status for event in settled] == [status for _, status, _ in REFUSED]
    assert {(event.outcome, event.output_tokens) for event in settled} == {("failed", 0)}


async def test_a_dead_replica_does_not_take_requests_down(gateway: Installation, engine: MockEngine) -> None:
    gateway.replicas.replicas.insert(0, Replica(id="dead", base_url="http://127.0.0.1:9/v1"))
    for _ in range(4):
        status, _, _ = await gateway.post(CHAT, body("normal"))
        assert status == 200


async def test_no_replica_that_can_be_reached_is_503_and_nothing_to_settle(gateway: Installation) -> None:
    gateway.replicas.replicas[:] = [Replica(id="dead", base_url="http://127.0.0.1:9/v1")]
    status, error, headers = await gateway.post(CHAT, body("normal"))
    assert (status, error["code"], headers["retry-after"]) == (503, "upstream_unreachable", "1")
    gateway.replicas.replicas[:] = [Replica(id="r", base_url="http://127.0.0.1:9/v1", ready=False)]
    status, error, headers = await gateway.post(CHAT, body("normal"))
    assert (status, error["code"], headers["retry-after"]) == (503, "model_not_ready", "2")
    assert await gateway.usage() == []
    assert await gateway.journal() == []


async def test_an_engine_on_a_unix_socket_is_reached_with_its_key(sqlite: Database, tmp_path: Any) -> None:
    socket = tmp_path / "engine.sock"
    async with running_engine(socket) as engine:
        replica = Replica(id="r", base_url=engine.base_url, socket=socket, api_key="upstream-secret")
        assert "upstream-secret" not in repr(replica)
        async with running_gateway(sqlite, replica, [model("normal")]) as gateway:
            status, answer, headers = await gateway.post(CHAT, body("normal"))
            assert (status, answer["choices"][0]["message"]["content"]) == (200, TEXT)
        assert engine.headers[0]["authorization"] == "Bearer upstream-secret"
        assert engine.headers[0]["x-request-id"] == headers["x-request-id"]


async def test_stopping_lets_streams_end_and_refuses_new_ones(gateway: Installation, engine: MockEngine) -> None:
    engine.tokens = 20
    stream = asyncio.create_task(gateway.events(CHAT, body("slow", stream=True)))
    await asyncio.sleep(0.1)
    stopping = asyncio.create_task(gateway.gateway.stop(drain_s=5))
    await asyncio.sleep(0.02)
    status, error, _ = await gateway.post(CHAT, body("normal"))
    assert (status, error["code"]) == (503, "shutting_down")
    assert (await stream)[-1] == "[DONE]"
    await stopping
    assert [event.outcome for event in await gateway.usage()] == ["completed"]


async def test_stopping_cuts_what_takes_too_long_and_settles_it(
    gateway_on_both: Installation, engine: MockEngine
) -> None:
    gateway = gateway_on_both
    stream = asyncio.create_task(gateway.events(CHAT, body("slow", stream=True)))
    await asyncio.sleep(0.2)
    await gateway.gateway.stop(drain_s=0.1)
    events = await stream
    assert json.loads(events[-1])["error"]["code"] == "shutting_down"
    (event,) = await gateway.usage()
    assert (event.outcome, event.output_tokens, engine.cut) == ("cancelled", len(events) - 1, 1)


async def test_a_slow_reader_is_not_an_idle_engine(impatient: Installation, engine: MockEngine) -> None:
    engine.tokens = 5
    async with impatient.http.post(
        impatient.base_url + CHAT, json=body("slow", stream=True), headers=impatient.headers()
    ) as response:
        await response.content.readline()
        await asyncio.sleep(1.5)
        rest = await response.read()
    assert rest.rstrip().endswith(b"data: [DONE]")


async def test_a_client_that_stops_reading_does_not_hold_an_engine_for_ever(
    impatient: Installation, engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "STALL_S", 0.2)
    gateway, engine.tokens = impatient, 100
    sent = json.dumps(body("floods", stream=True)).encode()
    host, port = gateway.base_url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1024)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
    writer.write(f"{head}content-length: {len(sent)}\r\n\r\n".encode() + sent)
    (event,) = await gateway.settled(1)
    assert (event.outcome, event.status, engine.cut) == ("cancelled", 499, 1)
    writer.close()


async def test_the_answer_is_not_sent_before_its_commit(
    gateway: Installation, engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, may_commit = gateway.gateway._settlements, asyncio.Event()
    write = queue._write

    async def wait_first(commit: Commit) -> Answers:
        if commit.settled:
            await may_commit.wait()
        return await write(commit)

    monkeypatch.setattr(queue, "_write", wait_first)
    whole = asyncio.create_task(gateway.post(CHAT, body("normal")))
    stream = asyncio.create_task(gateway.events(CHAT, body("normal", stream=True)))
    await asyncio.sleep(0.3)
    assert len(queue) == 2
    assert not whole.done()
    assert not stream.done()
    may_commit.set()
    assert (await whole)[0] == 200
    assert (await stream)[-1] == "[DONE]"


async def test_an_answer_whose_use_can_be_recorded_nowhere_ends_with_an_error(
    gateway: Installation, engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = gateway.gateway._settlements._write

    async def fail(commit: Commit) -> Answers:
        if commit.settled:
            raise OSError("the disk is gone")
        return await write(commit)

    def refuse(*_: object) -> None:
        raise OSError("this disk too")

    monkeypatch.setattr(gateway.gateway._settlements, "_write", fail)
    monkeypatch.setattr(settlement, "save_unsettled", refuse)
    whole, events = await asyncio.gather(
        gateway.post(CHAT, body("normal")), gateway.events(CHAT, body("normal", stream=True))
    )
    assert (whole[0], whole[1]["code"]) == (503, "settlement_failed")
    assert json.loads(events[-1])["error"]["code"] == "settlement_failed"
    assert "[DONE]" not in events
    assert not any('"finish_reason":"stop"' in event for event in events)


async def test_a_client_that_hangs_up_in_mid_body_leaves_nothing(gateway: Installation, engine: MockEngine) -> None:
    host, port = gateway.base_url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\ncontent-length: 100\r\n\r\n{{"
    writer.write(head.encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    for _ in range(100):
        await asyncio.sleep(0.1)
        if gateway.registry.get_sample_value("galerne_gateway_in_flight") == 0:
            break
    assert gateway.registry.get_sample_value("galerne_gateway_in_flight") == 0
    assert engine.requests == []


async def test_metrics_count_requests_tokens_and_times(gateway: Installation, engine: MockEngine) -> None:
    await gateway.post(CHAT, body("normal"))
    await gateway.post(CHAT, body("nothing-like-it"))
    value = gateway.registry.get_sample_value
    labels = {"endpoint": "chat.completions", "model": "normal", "tier": "standard", "status": "200"}
    assert value("galerne_gateway_requests_total", labels) == 1
    assert value("galerne_gateway_requests_total", {**labels, "model": "", "tier": "", "status": "404"}) == 1
    assert value("galerne_gateway_tokens_total", {"model": "normal", "class": "output"}) == len(WORDS)
    assert value("galerne_gateway_ttft_seconds_count", {"model": "normal"}) == 1
    assert value("galerne_gateway_in_flight") == 0
