"""What a request is charged: each token once, in one class, at the price of the tier that served it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from galerne.billing import Rates
from galerne.gateway import Replica
from galerne.gateway.admission import most_tokens
from galerne.gateway.settled import Payment, recovered
from galerne.gateway.wire.answer import TokenCount
from galerne.gateway.wire.shapes import ChatBody, Message
from galerne.kernel import Database
from tests.flights import flight_of
from tests.gateway.installation import Installation, model, running_gateway
from tests.gateway.paying import charged, new_payer, set_price
from tests.gateway.upstream import WORDS, MockEngine

CHAT = "/v1/chat/completions"
INPUT, CACHED, OUTPUT = 7, 4, len(WORDS)  # as the mock engine reports them: 11 tokens of prompt, 4 of them cached
PRICES = (1_000, 100, 3_000)
NANO = INPUT * PRICES[0] + CACHED * PRICES[1]
MOUNTS = ("/openai", "/mistral")
# plan, what is asked for, the tier that serves it, what OpenAI and Mistral call that, its modifier in per cent
TIERS = [
    ("developer", None, "standard", "default", "standard", 100),
    ("developer", "auto", "standard", "default", "standard", 100),
    ("developer", "default", "standard", "default", "standard", 100),
    ("developer", "standard_only", "standard", "default", "standard", 100),
    ("developer", "flex", "batch", "flex", "flex", 50),
    ("developer", "priority", "standard", "default", "standard", 100),
    ("team", None, "standard", "default", "standard", 100),
    ("team", "auto", "priority", "priority", "priority", 175),
    ("team", "default", "standard", "default", "standard", 100),
    ("team", "standard_only", "standard", "default", "standard", 100),
    ("team", "flex", "batch", "flex", "flex", 50),
    ("team", "priority", "priority", "priority", "priority", 175),
]


def body(name: str, **more: Any) -> dict[str, Any]:
    return {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 400, **more}


async def test_cached_tokens_are_priced_once_as_cached_in_both_dialects_streamed_or_not(
    gateway_on_both: Installation, engine: MockEngine
) -> None:
    gateway = gateway_on_both
    await set_price(gateway.database, "normal", PRICES)
    payer = await new_payer(gateway.database)
    for mount in MOUNTS:
        status, answer, _ = await gateway.post(mount + CHAT, body("normal"), key=payer.secret)
        assert (status, answer["usage"]["prompt_tokens"]) == (200, INPUT + CACHED)
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == CACHED
        options = {"stream_options": {"include_usage": True}} if mount == "/openai" else {}
        events = await gateway.events(
            mount + CHAT, body("normal", stream=True, **options), gateway.headers(payer.secret)
        )
        usage = next(found for event in reversed(events[:-1]) if (found := json.loads(event).get("usage")))
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (INPUT + CACHED, OUTPUT)
    events = await gateway.settled(4)
    assert {(each.input_tokens, each.cached_tokens, each.output_tokens) for each in events} == {(INPUT, CACHED, OUTPUT)}
    amounts = await charged(gateway.database, payer)
    assert amounts == {each.id: NANO + OUTPUT * PRICES[2] for each in events}


@pytest.mark.parametrize("mount", MOUNTS)
async def test_an_answer_that_is_cut_is_charged_for_what_was_sent(
    gateway_on_both: Installation, engine: MockEngine, mount: str
) -> None:
    gateway = gateway_on_both
    for name in ("dies", "slow"):
        await set_price(gateway.database, name, PRICES)
    payer = await new_payer(gateway.database)
    headers = gateway.headers(payer.secret)
    await gateway.events(mount + CHAT, body("dies", stream=True), headers)
    assert (await gateway.post(mount + CHAT, body("dies"), key=payer.secret))[0] == 502
    read = 0
    async with gateway.http.post(
        gateway.base_url + mount + CHAT, json=body("slow", stream=True), headers=headers
    ) as response:
        async for line in response.content:
            read += b'"content":" ' in line
            if read == 5:
                break
        response.close()
    events = await gateway.settled(3)
    assert [each.outcome for each in events] == ["failed", "failed", "cancelled"]
    died, nothing, left = ((each.input_tokens, each.cached_tokens, each.output_tokens) for each in events)
    assert died == (INPUT, CACHED, 3), "what had been sent when the engine died"
    assert nothing == (0, 0, 0), "nothing was sent of an answer that is not streamed"
    assert left[:2] == (INPUT, CACHED)
    assert read <= left[2] < 40
    amounts = await charged(gateway.database, payer)
    assert amounts == {each.id: NANO + each.output_tokens * PRICES[2] for each in (events[0], events[2])}


@pytest.mark.parametrize("plan", ["developer", "team"])
async def test_the_tier_that_served_is_reported_and_priced(
    gateway_on_both: Installation, engine: MockEngine, plan: str
) -> None:
    gateway = gateway_on_both
    await set_price(gateway.database, "normal", PRICES)
    payer = await new_payer(gateway.database, plan)
    expected: list[tuple[str, int]] = []
    for _, asked, tier, openai, mistral, per_cent in (row for row in TIERS if row[0] == plan):
        fields = {} if asked is None else {"service_tier": asked}
        for mount in MOUNTS:
            for streamed in (False, True):
                expected.append((tier, (NANO + OUTPUT * PRICES[2]) * per_cent // 100))
                told = await told_tier(gateway, mount, payer.secret, streamed, fields)
                assert told == (openai if mount == "/openai" else mistral), (asked, mount, streamed)
    events = await gateway.settled(len(expected))
    amounts = await charged(gateway.database, payer)
    assert [(each.tier, amounts[each.id]) for each in events] == expected
    assert len(amounts) == len(expected)
    lines = gateway.registry.collect()
    counted = {
        sample.labels["tier"]: sample.value
        for family in lines
        for sample in family.samples
        if sample.name == "galerne_gateway_requests_total"
    }
    assert counted == {tier: sum(each == tier for each, _ in expected) for tier in {each for each, _ in expected}}


async def test_a_request_that_nobody_could_pay_is_refused_and_stops_nobody_else(
    sqlite: Database, engine: MockEngine
) -> None:
    replica, models = Replica(id="r", base_url=engine.base_url), (model("normal", context_length=None),)
    async with running_gateway(sqlite, replica, models) as gateway:
        await set_price(sqlite, "normal", PRICES)
        payer = await new_payer(sqlite)
        beyond = {"model": "normal", "prompt": ["a"] * 100_000, "max_tokens": 2**31 - 1, "best_of": 128}
        status, answer, _ = await gateway.post("/v1/completions", beyond, key=payer.secret)
        assert (status, answer["code"]) == (429, "insufficient_quota")
        status, _, _ = await gateway.post(CHAT, body("normal"), key=payer.secret)
        assert status == 200


async def told_tier(gateway: Installation, mount: str, key: str, streamed: bool, fields: dict[str, str]) -> str | None:
    sent = body("normal", **fields)
    if not streamed:
        status, answer, _ = await gateway.post(mount + CHAT, sent, key=key)
        assert status == 200, answer
    else:
        events = await gateway.events(mount + CHAT, {**sent, "stream": True}, gateway.headers(key))
        answer = json.loads(events[-2])
    return answer["service_tier"] if mount == "/openai" else answer["usage"]["service_tier"]


def test_what_an_engine_uses_beyond_what_was_held_is_journalled_as_unpaid() -> None:
    rates = Rates(
        model_id="m",
        currency="EUR",
        effective_from=datetime(2026, 11, 1, tzinfo=UTC),
        input_nano_per_million=1_000_000,
        cached_nano_per_million=0,
        output_nano_per_million=0,
    )
    payment = Payment("hold", "prepaid:o:EUR", "revenue:EUR", 30)
    begun = datetime(2026, 11, 23, tzinfo=UTC)
    one = flight_of("a" * 32, "o", begun, model="m", rates=rates, payment=payment)
    end = recovered(one, TokenCount(50, 0, 1), datetime(2026, 11, 23, tzinfo=UTC))
    assert (end.paid_nano, end.entry.detail["paid_nano"], end.entry.detail["unpaid_nano"]) == (30, 30, 20)
    within = recovered(one, TokenCount(30, 0, 1), datetime(2026, 11, 23, tzinfo=UTC))
    assert "unpaid_nano" not in within.entry.detail


@pytest.mark.parametrize(
    ("content", "prompt"),
    [
        ("x" * 100, 100 + 512 + 16),
        ([{"type": "text", "text": "x"}], 100 + 512 + 16),
        ([{"type": "image_url", "image_url": "https://a/b.png"}], 8_000),
    ],
)
def test_a_picture_may_fill_the_context_however_short_its_address_is(content: Any, prompt: int) -> None:
    asked = ChatBody(model="m", messages=[Message(role="user", content=content)], max_tokens=7)
    assert most_tokens(asked, 100, model("m", context_length=8_000)) == (prompt, 7)
