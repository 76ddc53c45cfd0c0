"""Each request is metered once, with what was sent, however many come at once and however they end."""

from pathlib import Path

import aiohttp
import pytest

from tests.processes import Process, wait_for
from tests.serving import Server
from tests.system.traffic import at_once, embedding, session, stream, whole

STREAMS = 40
REQUESTS = 200


async def test_streams_cut_by_the_client_are_billed_for_what_was_sent(server: Server) -> None:
    key = server.new_key("cut")
    cancelled = server.metric("galerne_gateway_upstream_cancellations_total")
    async with session(server, key.secret) as http:
        wanted = {"max_tokens": 1500, "min_tokens": 1500}
        received = await at_once(*(stream(http, cut_after=3 + number % 5, **wanted) for number in range(STREAMS)))
    wait_for(lambda: server.metric("galerne_gateway_in_flight") == 0, 30, "no request is under way")
    rows = {row["id"]: row for row in server.usage(key)}
    assert len(rows) == STREAMS
    assert {one.request_id for one in received} == set(rows)
    for one in received:
        row = rows[one.request_id]
        assert (row["outcome"], row["partial"], row["status"], row["streamed"]) == ("cancelled", True, 499, True)
        assert one.chunks <= row["output_tokens"] < 750, "what was sent, not what was asked for"
        assert row["input_tokens"] + row["cached_tokens"] > 0
        assert not row["estimated"]
    assert server.metric("galerne_gateway_upstream_cancellations_total") == cancelled + STREAMS
    engine = brise_of(server)
    assert await engine_metric(engine, "galerne_engine_requests_running") == 0
    assert await engine_metric(engine, "galerne_engine_requests_waiting") == 0


async def test_two_hundred_requests_at_once_are_two_hundred_rows(server: Server) -> None:
    key = server.new_key("many")
    async with session(server, key.secret) as http:
        kinds = [stream, whole, embedding, embedding]
        received = await at_once(*(kinds[number % 4](http) for number in range(REQUESTS)))
    assert {one.status for one in received} == {200}
    rows = server.usage(key)
    assert len(rows) == REQUESTS
    assert {row["id"] for row in rows} == {one.request_id for one in received}
    assert all(row["outcome"] == "completed" and not row["partial"] for row in rows)
    chats = [row for row in rows if row["endpoint"] == "chat.completions"]
    assert {row["output_tokens"] for row in chats} == {4}
    verified = server.cli("journal", "verify", "--json")
    assert verified.returncode == 0, verified.stdout


async def test_an_answer_that_nobody_waits_for_is_stopped_too(server: Server) -> None:
    key = server.new_key("impatient")
    async with session(server, key.secret) as http:
        with pytest.raises(TimeoutError):
            await http_post_for(http, 0.4)
    wait_for(lambda: len(server.usage(key)) == 1, 30, "the usage of the request that was left")
    (row,) = server.usage(key)
    assert (row["outcome"], row["partial"], row["streamed"]) == ("cancelled", True, False)


async def http_post_for(http: aiohttp.ClientSession, seconds: float) -> None:
    body = {
        "model": "brise",
        "messages": [{"role": "user", "content": "Go on."}],
        "min_tokens": 1500,
        "max_tokens": 1500,
    }
    async with http.post("/v1/chat/completions", json=body, timeout=aiohttp.ClientTimeout(total=seconds)) as response:
        await response.read()


def brise_of(server: Server) -> Process:
    (engine,) = [engine for engine in server.engines() if any(part.endswith("brise.sock") for part in engine.command)]
    return engine


async def engine_metric(engine: Process, name: str) -> float:
    socket = Path(engine.command[engine.command.index("--socket") + 1])
    connector = aiohttp.UnixConnector(str(socket))
    async with aiohttp.ClientSession("http://engine", connector=connector) as http, http.get("/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))
