"""Quotes: lines that add up to what is charged, never above the most, over HTTP as well."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.apps.refusals import install_refusals
from galerne.billing import ModelPrices, PriceBook, QuoteAsk, cost_nano, quote
from galerne.billing.rating.routes import rating_router
from galerne.billing.routes import router
from galerne.governance import ROLE_PERMISSIONS, SYSTEM, Role
from galerne.kernel import Database, ManualClock, open_reader
from galerne.models import ExternalModel, add_external
from tests.billing.books import CUSTOMER, START, TIERS, ZONES, books, full_book, rate
from tests.identity.tenants import NOW
from tests.journal.serving import Server

tokens = st.integers(0, 10**6)


@given(books, tokens, tokens, tokens, st.sampled_from(TIERS), st.sampled_from(ZONES))
def test_lines_add_up_to_what_is_charged_and_stay_below_the_most(
    book: PriceBook, prompt: int, cached: int, output: int, tier: str, zone: str
) -> None:
    ask = QuoteAsk(
        model_id="large", input_tokens=prompt, cached_tokens=cached, output_tokens=output, tier=tier, zone=zone
    )
    found = quote(book, CUSTOMER, ask, START)
    charged = ModelPrices(book, CUSTOMER, "large").rates("chat.completions", tier, zone, START)
    assert (found is None) == (charged is None)
    if found is not None and charged is not None:
        cached = min(cached, prompt)
        assert found.expected_nano == cost_nano(charged, prompt - cached, cached, output)
        assert found.expected_nano == sum(line.amount_nano for line in found.lines) <= found.most_nano


def test_other_quantities_are_quoted_too() -> None:
    ask = QuoteAsk(model_id="ocr", quantities={"pages": 1500})
    found = quote(PriceBook([rate(2_000_000_000, token_class="pages")]), CUSTOMER, ask, START)
    assert found is not None
    assert (found.currency, found.expected_nano, found.most_nano) == ("EUR", 3_000_000_000, 3_000_000_000)


def test_a_quote_takes_less_than_a_millisecond() -> None:
    book = full_book()
    ask = QuoteAsk(model_id="large", input_tokens=1000, output_tokens=500, tier="priority", zone="de")
    times: list[float] = []
    for _ in range(50):
        began = perf_counter()
        assert quote(book, CUSTOMER, ask, START)
        times.append(perf_counter() - began)
    assert min(times) < 0.001


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
async def server(database: Database, clock: ManualClock) -> AsyncGenerator[Server]:
    async with database.transaction() as session:
        await add_external(session, SYSTEM, ExternalModel(name="large", url="http://127.0.0.1:9/v1"), clock)
    server = Server(router, database, clock, SYSTEM)
    server.app.state.reader = reader = open_reader(database.url)
    server.app.include_router(rating_router)
    install_refusals(server.app)
    async with server.client:
        yield server
    await reader.close()


async def post(server: Server, path: str, **body: Any) -> Any:
    return await server.client.post(path, json=body)


RATES = [
    {"token_class": "input", "currency": "EUR", "price": "1"},
    {"token_class": "output", "currency": "EUR", "price": "4"},
    {"token_class": "output", "currency": "EUR", "price": "6", "service_tier": "priority"},
]


async def test_a_price_change_is_quoted_by_tier_and_zone(server: Server) -> None:
    modifiers = [{"kind": "zone", "value": "fr", "factor": "1.1"}]
    written = await post(server, "/v1/admin/prices/changes", rates=RATES, modifiers=modifiers)
    assert written.json() == {"object": "price.version", "version": 1, "rates": 3, "modifiers": 1}
    answer = await post(
        server,
        "/v1/admin/prices/quote",
        model="large",
        input_tokens=1000,
        cached_tokens=400,
        output_tokens=100,
        expected_output_tokens=50,
        service_tier="priority",
        zone="fr",
    )
    body = answer.json()
    assert [(line["token_class"], line["quantity"], line["price"], line["amount"]) for line in body["lines"]] == [
        ("input", 600, "1.925", "0.001155"),
        ("cached", 400, "0.1925", "0.000077"),
        ("output", 50, "6.6", "0.00033"),
    ]
    assert (body["currency"], body["expected"], body["most"]) == ("EUR", "0.001562", "0.002585")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rates": [RATES[0] | {"price": "-1"}]}, "input"),
        ({"rates": [RATES[0], RATES[0]]}, "rates"),
        ({"rates": [RATES[0] | {"currency": "euro"}]}, "currency"),
        ({"rates": [RATES[0] | {"effective_from": "2020-01-01T00:00:00Z"}]}, "effective_from"),
        ({"rates": [RATES[0] | {"volume": "graduated"}]}, "steps"),
        ({"modifiers": [{"kind": "zone", "factor": "1.1"}]}, "kind"),
        ({"modifiers": [{"kind": "batch", "factor": "11"}]}, "factor"),
        ({}, "rates"),
    ],
)
async def test_a_change_that_cannot_be_is_refused_and_leaves_the_book(
    server: Server, change: dict[str, Any], field: str
) -> None:
    answer = await post(server, "/v1/admin/prices/changes", **change)
    assert (answer.status_code, answer.json()["param"]) == (400, field)
    assert (await post(server, "/v1/admin/prices/quote", model="large")).status_code == 404


async def test_rating_is_the_operators_and_reports_before_it_applies(server: Server, clock: ManualClock) -> None:
    await post(server, "/v1/admin/prices/changes", rates=RATES)
    assert (await server.get("/v1/admin/rating"))["events"]["waiting"] == 0
    clock.current += timedelta(days=1)
    prices = {"rates": [RATES[0] | {"price": "2", "effective_from": NOW.isoformat()}]}
    report = (await post(server, "/v1/admin/rating/rerate", prices=prices)).json()
    assert (report["applied"], report["changed"]) == (False, 0)
    stale = await post(server, "/v1/admin/rating/rerate", prices=prices, digest="0" * 64)
    assert stale.status_code == 409
    done = (await post(server, "/v1/admin/rating/rerate", prices=prices, digest=report["digest"])).json()
    assert done["applied"] is True
    server.actor = replace(SYSTEM, permissions=ROLE_PERMISSIONS[Role.ORGANIZATION_ADMIN])
    assert await server.status("/v1/admin/rating") == 403
