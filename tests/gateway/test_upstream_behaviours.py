"""The table of what upstreams do: what a client sees and is billed, with one replica and with a second, good one."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text

from galerne.billing import NewRates, cost_nano, rates_of, set_rates
from galerne.gateway import Replica
from galerne.identity import resolve_key
from galerne.kernel import Database, Ids, SystemClock
from galerne.ledger import Grant, check_books, grant_credit
from tests.gateway import upstream_behaviours as behaviours
from tests.gateway.installation import Installation, model, running_gateway
from tests.gateway.upstream_behaviours import (
    ANSWER,
    CASES,
    ESTIMATED_INPUT,
    GUIDE,
    WHOLE,
    WORDS,
    Billed,
    Case,
    Seen,
    Upstream,
    upstream,
)

CHAT = "/openai/v1/chat/completions"
ALWAYS = 1_000
MESSAGES = [{"role": "user", "content": "Who are you?"}]
ESTIMATE = -(-len(json.dumps(MESSAGES, separators=(",", ":"))) // 4)
NAMES = [case.says for case in CASES]
STALLING = ("stalls", "says `[DONE]` and never", "sends something that is no chunk in mid", "reports an error in mid")
PATIENCE_S = 10.0


@asynccontextmanager
async def paid_gateway(
    database: Database, up: Upstream, replicas: int, patience_s: float = PATIENCE_S
) -> AsyncGenerator[Installation]:
    """A gateway with a model that costs something, whose replicas are all at `up`, and somebody with credit."""
    one = Replica(id="replica-0", base_url=up.base_url)
    models = (model("any"),)
    async with running_gateway(
        database, one, models, first_byte_timeout_s=patience_s, idle_timeout_s=patience_s
    ) as running:
        running.replicas.replicas += [
            Replica(id=f"replica-{each}", base_url=up.base_url) for each in range(1, replicas)
        ]
        clock = SystemClock()
        async with database.transaction() as session:
            actor = (await resolve_key(session, running.key, clock.now())).actor
            grant = Grant(id="credit", amount_nano=10**12, currency="EUR", reason="test")
            await grant_credit(session, actor, grant, clock)
            price = NewRates(
                currency="EUR",
                input_nano_per_million=500_000_000,
                cached_nano_per_million=50_000_000,
                output_nano_per_million=1_500_000_000,
            )
            await set_rates(session, actor, "any", price, Ids(), clock)
        yield running


def patience_s(case: Case) -> float:
    return 0.6 if case.says.startswith(STALLING) else PATIENCE_S


async def ask(gateway: Installation, *, stream: bool) -> tuple[str, Seen]:
    """The id of a request, and what its client saw."""
    body = {"model": "any", "messages": MESSAGES, "max_tokens": 100, "stream": stream}
    async with gateway.http.post(gateway.base_url + CHAT, json=body, headers=gateway.headers()) as response:
        content = (await response.read()).decode()
        request_id, retry_after = response.headers["x-request-id"], response.headers.get("retry-after")
        if response.status != 200:
            return request_id, Seen(response.status, json.loads(content)["error"]["code"], retry_after)
    if not stream:
        answer = json.loads(content)
        assert answer["choices"][0]["message"]["content"] == "".join(WORDS)
        assert answer["id"].endswith(request_id)
        return request_id, Seen(tokens=len(WORDS))
    return request_id, _streamed([line[6:] for line in content.split("\n") if line.startswith("data: ")])


def _streamed(events: Sequence[str]) -> Seen:
    done = events[-1] == "[DONE]"
    chunks = [json.loads(each) for each in (events[:-1] if done else events)]
    texts = [c["delta"].get("content") for each in chunks for c in each.get("choices", ()) if c["delta"].get("content")]
    code = None if done else chunks[-1]["error"]["code"]
    assert "".join(texts) == "".join(WORDS[: len(texts)])
    return Seen(200, code, None, len(texts))


async def check_billed(gateway: Installation, request_id: str, expected: Billed | None) -> None:
    """One usage event and one payment, under our own id, for exactly this."""
    async with gateway.database.reading() as session:
        rates = await rates_of(session, "any", datetime.now(UTC), "EUR")
        paid = "SELECT coalesce(sum(amount_nano), 0) FROM ledger_transfers WHERE id = :id"
        paid_nano = (await session.execute(text(paid), {"id": request_id})).scalar_one()
        problems = await check_books(session)
    rows = [row for row in await gateway.usage() if row.id == request_id]
    assert problems == []
    if expected is None:
        assert (rows, paid_nano) == ([], 0)
        return
    (row,) = rows
    fresh = ESTIMATE if expected.input == ESTIMATED_INPUT else expected.input
    found = (row.outcome, row.input_tokens, row.cached_tokens, row.output_tokens)
    assert found == (expected.outcome, fresh, expected.cached, expected.output)
    assert bool(row.estimated) == expected.estimated
    assert rates is not None
    assert paid_nano == cost_nano(rates, fresh, expected.cached, expected.output)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
async def test_with_one_replica(sqlite: Database, case: Case) -> None:
    async with upstream(case.behaviour, ALWAYS) as up, paid_gateway(sqlite, up, 1, patience_s(case)) as gateway:
        if not case.asked:
            gateway.replicas.replicas[:] = [Replica(id="closed", base_url="http://127.0.0.1:9/v1")]
        for stream, seen, billed in ((True, case.stream, case.billed), (False, case.whole, case.of_whole())):
            up.asked.clear()
            request_id, found = await ask(gateway, stream=stream)
            assert found == seen, f"stream: {stream}"
            assert up.asked == [request_id] * case.asked
            await check_billed(gateway, request_id, billed)
        assert len({row.id for row in await gateway.usage()}) == (2 if case.asked else 0)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("case", CASES, ids=NAMES)
async def test_with_a_second_replica_that_is_well(sqlite: Database, case: Case, stream: bool) -> None:
    async with upstream(case.behaviour, 1) as up, paid_gateway(sqlite, up, 2, patience_s(case)) as gateway:
        if not case.asked:
            gateway.replicas.replicas[0] = Replica(id="closed", base_url="http://127.0.0.1:9/v1")
            up.bad = 0
        request_id, found = await ask(gateway, stream=stream)
        if case.retried:
            assert found == ANSWER
            await check_billed(gateway, request_id, WHOLE)
            assert len(up.asked) == (2 if case.asked else 1)
        else:
            assert found == (case.stream if stream else case.whole)
            await check_billed(gateway, request_id, case.billed if stream else case.of_whole())
            assert len(up.asked) == 1
        assert len(await gateway.usage()) == 1


async def test_an_engine_that_never_stops_writing_is_paid_for_what_was_sent_and_never_beyond_the_hold(
    sqlite: Database,
) -> None:
    async def floods(wire: behaviours.Wire) -> None:
        await wire.words(())
        for number in range(1, 100_000):
            choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
            await wire.part(behaviours.event([choice], usage=behaviours.usage_of(number)))

    body = {"model": "any", "messages": MESSAGES, "max_tokens": 10, "stream": True}
    async with upstream(floods, ALWAYS) as up, paid_gateway(sqlite, up, 1) as gateway:
        received = 0
        async with gateway.http.post(gateway.base_url + CHAT, json=body, headers=gateway.headers()) as response:
            async for line in response.content:
                received += b'"content":"x"' in line.replace(b" ", b"")
                if received == 2_000:
                    break
        (row,) = await gateway.settled(1)
        assert row.outcome == "cancelled"
        assert received <= row.output_tokens < 100_000
        async with sqlite.reading() as session:
            paid, held = (
                await session.execute(
                    text(
                        "SELECT (SELECT sum(amount_nano) FROM ledger_transfers WHERE kind = 'settle'),"
                        " (SELECT sum(amount_nano) FROM ledger_holds)"
                    )
                )
            ).one()
            assert 0 < paid <= held
            assert await check_books(session) == []


def test_the_guide_holds_this_table() -> None:
    held: Any = GUIDE.read_text(encoding="utf-8").partition(behaviours.BEGIN)[2].partition(behaviours.END)[0]
    assert held.strip() == behaviours.table(), "python -m tests.gateway.upstream_behaviours writes it"
