"""What an answer says of its request's cost: what was settled and what rating finds, to the nano-unit, if asked for."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from galerne.billing import (
    Match,
    NewRate,
    PriceChange,
    assign_price_list,
    change_prices,
    create_price_list,
    month_of,
    nano_of,
    rate_batch,
)
from galerne.gateway.settled import Settled
from galerne.governance import SYSTEM
from galerne.kernel import Database, Ids, SystemClock
from tests.billing.rating.buckets import buckets_in
from tests.gateway.installation import Installation
from tests.gateway.paying import Payer, charged, new_payer, set_price_of_a_million
from tests.gateway.upstream import WORDS, MockEngine

CHAT, COMPLETIONS, FIM, EMBEDDINGS = "/chat/completions", "/completions", "/fim/completions", "/embeddings"
MOUNTS = ("/openai/v1", "/mistral/v1")
PRICES = (1_234_567, 234_567, 7_654_321)  # a token costs no whole number of nano-units
COUNTS = (7, 4, len(WORDS))
INCLUDE = {"usage": {"include": True}}
ASKS: list[tuple[dict[str, Any], dict[str, str]]] = [(INCLUDE, {}), ({}, {"x-usage-cost": "true"})]
# path, fields
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    (CHAT, {"messages": [{"role": "user", "content": "Hello"}]}),
    (CHAT, {"messages": [{"role": "user", "content": "Hello"}], "service_tier": "priority"}),
    (CHAT, {"messages": [{"role": "user", "content": "Hello"}], "service_tier": "flex"}),
    (COMPLETIONS, {"prompt": "Hello"}),
    (FIM, {"prompt": "Hello", "suffix": "!"}),
]


async def priced(gateway: Installation, *models: str) -> Payer:
    for name in models:
        await set_price_of_a_million(gateway.database, name, PRICES)
    return await new_payer(gateway.database, "team")


async def streamed(gateway: Installation, path: str, body: dict[str, Any], headers: dict[str, str]) -> list[Any]:
    events = await gateway.events(path, {**body, "stream": True}, headers)
    return [json.loads(event, parse_float=Decimal) for event in events if event != "[DONE]"]


async def rated(database: Database, payer: Payer) -> Counter[tuple[str, str]]:
    """What rating makes of all that was used, by token class and rate."""
    async with database.transaction() as session:
        await rate_batch(session, SystemClock(), after="")
        buckets = await buckets_in(session, month_of(datetime.now(UTC)), payer.organisation_id)
    found = Counter[tuple[str, str]]()
    for key, amounts in buckets.items():
        found[key.line.token_class, key.line.rate_id] += amounts.nano
    return found


def told(usage: dict[str, Any]) -> int:
    """The cost that an answer tells, in nano-units; its figures must agree."""
    details = usage["cost_details"]
    nano = nano_of(details["cost"], param="cost")
    assert nano_of(f"{Decimal(str(usage['cost'])):f}", param="cost") == nano
    assert sum(nano_of(line["amount"], param="amount") for line in details["lines"]) == nano
    return nano


async def test_the_cost_that_is_told_is_what_was_settled_and_what_is_rated(
    gateway_on_both: Installation, engine: MockEngine
) -> None:
    gateway = gateway_on_both
    payer = await priced(gateway, "normal", "embedder")
    usages: list[dict[str, Any]] = []
    for mount in MOUNTS:
        for fields, headers in ASKS:
            sent = gateway.headers(payer.secret) | headers
            for path, more in REQUESTS:
                body = {"model": "normal", "max_tokens": 400, **more, **fields}
                status, answer, _ = await gateway.post(mount + path, body, sent)
                assert status == 200, answer
                usages.append(answer["usage"])
                *others, last = await streamed(gateway, mount + path, body, sent)
                assert all(each.get("usage") is None for each in others)
                usages.append(last["usage"])
            body = {"model": "embedder", "input": ["a", "b"], **fields}
            usages.append((await gateway.post(mount + EMBEDDINGS, body, sent))[1]["usage"])
    amounts = await charged(gateway.database, payer)
    events = await gateway.settled(len(usages))
    assert [told(usage) for usage in usages] == [amounts[event.id] for event in events]
    assert all(usage["cost_details"]["charged"] == usage["cost_details"]["cost"] for usage in usages)
    assert {usage["cost_details"]["currency"] for usage in usages} == {"EUR"}
    lines = Counter[tuple[str, str]]()
    for usage in usages:
        for line in usage["cost_details"]["lines"]:
            lines[line["token_class"], line["rate"]] += nano_of(line["amount"], param="amount")
    assert +lines == await rated(gateway.database, payer)
    assert {"input", "cached", "output", "embeddings"} == {token_class for token_class, _ in lines}


async def test_a_line_says_its_class_quantity_price_and_rate(gateway_on_both: Installation, engine: MockEngine) -> None:
    payer = await priced(gateway_on_both, "normal")
    body = {"model": "normal", **REQUESTS[1][1], **INCLUDE, "max_tokens": 400}
    _, answer, _ = await gateway_on_both.post("/v1/chat/completions", body, key=payer.secret)
    lines = answer["usage"]["cost_details"]["lines"]
    assert [(line["token_class"], line["quantity"]) for line in lines] == list(
        zip(("input", "cached", "output"), COUNTS, strict=True)
    )
    assert all(line["rate"].endswith("*7/4") for line in lines)
    for line, price in zip(lines, PRICES, strict=True):
        assert Decimal(line["price"]) / line["per"] == Decimal(price) * 7 / 4 / 10**15
    exact = sum(count * price for count, price in zip(COUNTS, PRICES, strict=True)) * 7
    assert told(answer["usage"]) == round(Decimal(exact) / 4_000_000)


@pytest.mark.parametrize("mount", MOUNTS)
async def test_what_broke_tells_what_was_charged_and_what_nobody_got_costs_nothing(
    gateway_on_both: Installation, engine: MockEngine, mount: str
) -> None:
    gateway = gateway_on_both
    payer = await priced(gateway, "dies", "slow", "garbage")
    headers = gateway.headers(payer.secret)
    body = {"model": "dies", "max_tokens": 400, **REQUESTS[0][1], **INCLUDE}
    broken = (await streamed(gateway, mount + CHAT, body, headers))[-1]
    assert broken["error"]["code"]
    assert broken["usage"]["completion_tokens"] == 3
    status, refused, _ = await gateway.post(mount + CHAT, body, headers)
    assert (status, "usage" in refused) == (502, False)
    slow = {**body, "model": "slow", "stream": True}
    async with gateway.http.post(gateway.base_url + mount + CHAT, json=slow, headers=headers) as response:
        assert await response.content.readline()
        response.close()
    cut, nothing, left = await gateway.settled(3)
    amounts = await charged(gateway.database, payer)
    assert told(broken["usage"]) == amounts[cut.id] > 0
    assert nothing.id not in amounts
    assert sum((await rated(gateway.database, payer)).values()) == amounts[cut.id] + amounts[left.id]


@pytest.mark.parametrize("streams", [False, True])
async def test_what_costs_nothing_says_so(gateway_on_both: Installation, engine: MockEngine, streams: bool) -> None:
    gateway = gateway_on_both
    await set_price_of_a_million(gateway.database, "normal", (0, 0, 0))
    payer = await new_payer(gateway.database)
    for name, currency, lines in (("normal", "EUR", 3), ("thinks", None, 0)):
        body = {"model": name, "max_tokens": 400, **REQUESTS[0][1], **INCLUDE}
        if streams:
            usage = (await streamed(gateway, "/v1" + CHAT, body, gateway.headers(payer.secret)))[-1]["usage"]
        else:
            usage = (await gateway.post("/v1" + CHAT, body, key=payer.secret))[1]["usage"]
        assert (usage["cost"], told(usage)) == (0, 0)
        details = usage["cost_details"]
        assert (details["currency"], details["charged"], len(details["lines"])) == (currency, "0", lines)
    assert await charged(gateway.database, payer) == {}


async def test_what_a_plan_has_for_nothing_costs_nothing_and_others_pay(
    gateway_on_both: Installation, engine: MockEngine
) -> None:
    gateway = gateway_on_both
    payer = await priced(gateway, "normal")
    body = {"model": "normal", "max_tokens": 400, **REQUESTS[0][1], **INCLUDE}
    free = tuple(
        NewRate(match=Match(token_class=name), currency="EUR", nano=0) for name in ("input", "cached", "output")
    )
    async with gateway.database.transaction() as session:
        await create_price_list(session, SYSTEM, "included", "included", SystemClock())
        await change_prices(session, SYSTEM, PriceChange(rates=free, list_id="included"), Ids(), SystemClock())
        await assign_price_list(session, SYSTEM, ("plan", "developer"), "included", SystemClock())
    for whose, paid in ((payer, True), (await new_payer(gateway.database, "developer"), False)):
        usage = (await gateway.post("/v1" + CHAT, body, key=whose.secret))[1]["usage"]
        assert (told(usage) > 0) == paid
        assert sum((await charged(gateway.database, whose)).values()) == told(usage)
        assert sum((await rated(gateway.database, whose)).values()) == told(usage)


async def test_what_is_billed_later_is_told_as_cost_and_not_as_charged(
    gateway_on_both: Installation, engine: MockEngine
) -> None:
    await priced(gateway_on_both, "normal")
    body = {"model": "normal", "max_tokens": 400, **REQUESTS[0][1], **INCLUDE}
    _, answer, _ = await gateway_on_both.post("/v1" + CHAT, body)  # the operator's own organisation has no account
    assert told(answer["usage"]) > 0
    assert answer["usage"]["cost_details"]["charged"] == "0"


async def test_who_does_not_ask_is_told_nothing(gateway: Installation, engine: MockEngine) -> None:
    payer = await priced(gateway, "normal")
    body = {"model": "normal", "max_tokens": 400, **REQUESTS[0][1]}
    for fields, headers in (({}, {}), ({}, {"x-usage-cost": "false"}), ({"usage": {"include": False}}, ASKS[1][1])):
        sent = gateway.headers(payer.secret) | headers
        _, answer, _ = await gateway.post("/v1" + CHAT, body | fields, sent)
        assert answer["usage"].keys().isdisjoint({"cost", "cost_details"})
        assert all("usage" not in each for each in await streamed(gateway, "/v1" + CHAT, body | fields, sent))


async def test_a_strict_key_may_ask_and_the_engine_hears_nothing_of_it(
    gateway: Installation, engine: MockEngine
) -> None:
    strict = await gateway.new_key(strict=True)
    body = {"model": "normal", "max_tokens": 400, **REQUESTS[0][1], **INCLUDE}
    status, answer, _ = await gateway.post("/v1" + CHAT, body, key=strict)
    assert (status, "cost" in answer["usage"]) == (200, True)
    assert "usage" not in engine.requests[-1]


@pytest.mark.parametrize(
    ("fields", "headers", "param"),
    [
        ({"usage": True}, {}, "usage"),
        ({"usage": {"include": "yes"}}, {}, "usage.include"),
        ({}, {"x-usage-cost": "maybe"}, "x-usage-cost"),
    ],
)
async def test_an_ask_that_says_neither_yes_nor_no_is_refused(
    gateway: Installation, engine: MockEngine, fields: dict[str, Any], headers: dict[str, str], param: str
) -> None:
    body = {"model": "normal", **REQUESTS[0][1], **fields}
    status, answer, _ = await gateway.post("/v1" + CHAT, body, headers)
    assert (status, answer["error"]["param"]) == (400, param)
    assert engine.requests == []


async def test_what_the_ledger_took_only_in_another_way_is_what_is_told(
    gateway: Installation, engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    payer = await priced(gateway, "normal")
    begin = gateway.gateway._settlements.begin

    async def unpaid(one: Settled, written: Any) -> Settled:
        return (await begin(one, written)).unpaid()

    monkeypatch.setattr(
        gateway.gateway._settlements, "begin", lambda one, written: asyncio.ensure_future(unpaid(one, written))
    )
    body = {"model": "normal", "max_tokens": 400, **REQUESTS[0][1], **INCLUDE}
    _, answer, _ = await gateway.post("/v1" + CHAT, body, key=payer.secret)
    assert told(answer["usage"]) > 0
    assert answer["usage"]["cost_details"]["charged"] == "0"
