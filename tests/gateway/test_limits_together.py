"""Every limit that bears on a request holds, whoever set it and whatever it counts; the tightest one answers."""

import asyncio
import itertools
import math
from dataclasses import dataclass
from typing import Any, get_args

import pytest

from galerne.billing import NewRates, set_rates
from galerne.gateway import Replica
from galerne.identity import (
    NewKey,
    NewOrganisation,
    create_key,
    create_organisation,
    find_installation_admin,
    list_workspaces,
    resolve_key,
)
from galerne.kernel import Database, Ids, SystemClock
from galerne.metering import NewLimit, Quantity, Scope, set_operator_limit
from galerne.metering.limit_windows import Window
from tests.gateway.installation import Installation, model, running_gateway
from tests.gateway.upstream import WORDS, MockEngine

CHAT = "/v1/chat/completions"
CAP = 50
OUTPUT_NANO = 1_000
PLENTY = 10**12
SCOPES: tuple[Scope, ...] = get_args(Scope)
WINDOWS: tuple[Window, ...] = ("minute", "5h", "day", "week", "month")
PLANS = ("free", "developer", "pro", "team", "enterprise")
MODELS = tuple(model(f"model-{number}", upstream_model="normal") for number in range(5))
LENGTH_S = {"minute": 60, "5h": 5 * 3600, "day": 86_400, "week": 7 * 86_400, "month": 31 * 86_400}
PER = {"minute": "per minute", "5h": "per 5 hours", "day": "per day", "week": "per week", "month": "per month"}
WHOSE = {
    "key": "This key's",
    "workspace": "This workspace's",
    "organisation": "This organisation's",
    "plan": "This organisation's",
    "model": "This model's",
}
# How much of a limit one request takes at first, how much of that it uses, and how a refusal writes the limit.
TIGHT: dict[Quantity, tuple[int, int, str]] = {
    "requests": (2, 2, "2 requests"),
    "tokens": (62, 1, "62 tokens"),
    "nano": (CAP * OUTPUT_NANO, 1, "0.00005 EUR"),
    "concurrent": (1, 0, "1 requests at once"),
}
_clock, _ids = SystemClock(), Ids()


@dataclass(frozen=True)
class Subject:
    """A key and everything that stands above it, all of them its own."""

    secret: str
    members: dict[Scope, str]
    model: str


def body(subject: Subject, **more: Any) -> dict[str, Any]:
    return {
        "model": subject.model,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": CAP,
        "service_tier": "default",
        **more,
    }


@pytest.fixture
async def priced(sqlite: Database, engine: MockEngine):
    slow = model("slow-one", upstream_model="slow")
    async with running_gateway(sqlite, Replica(id="r", base_url=engine.base_url), (*MODELS, slow)) as running:
        async with sqlite.transaction() as session:
            operator = await find_installation_admin(session)
            for each in (*MODELS, slow):
                new = NewRates(
                    currency="EUR",
                    input_nano_per_million=0,
                    cached_nano_per_million=0,
                    output_nano_per_million=OUTPUT_NANO * 1_000_000,
                )
                await set_rates(session, operator, each.id, new, _ids, _clock)
        yield running


async def subject_of(
    database: Database, plan: str, model_id: str, *limits: tuple[Scope, Quantity, Window, int]
) -> Subject:
    """Somebody new, under these limits."""
    async with database.transaction() as session:
        organisation, first = await create_organisation(
            session, NewOrganisation(name="tenant", plan=plan), _ids, _clock
        )
        actor = (await resolve_key(session, first.secret, _clock.now())).actor
        (workspace,) = await list_workspaces(session, actor)
        made = await create_key(session, actor, NewKey(name="test", workspace_id=workspace.id), _ids, _clock)
        members: dict[Scope, str] = {
            "key": made.row.id,
            "workspace": workspace.id,
            "organisation": organisation.id,
            "plan": plan,
            "model": model_id,
        }
        operator = await find_installation_admin(session)
        for scope, quantity, window, amount in limits:
            currency = "EUR" if quantity == "nano" else None
            new = NewLimit(
                scope=scope, scope_id=members[scope], quantity=quantity, window=window, amount=amount, currency=currency
            )
            await set_operator_limit(session, operator, new, _clock)
    return Subject(made.secret, members, model_id)


def wide(tight: tuple[Scope, Quantity, Window], turn: int) -> list[tuple[Scope, Quantity, Window, int]]:
    """A limit that nobody reaches for each scope and quantity, the window another one each time."""
    found: list[tuple[Scope, Quantity, Window, int]] = []
    for number, (scope, quantity) in enumerate(itertools.product(SCOPES, get_args(Quantity))):
        window = "none" if quantity == "concurrent" else WINDOWS[(number + turn) % len(WINDOWS)]
        if (scope, quantity, window) != tight:
            found.append((scope, quantity, window, PLENTY))
    return found


@pytest.mark.parametrize("quantity", ["requests", "tokens", "nano"])
@pytest.mark.parametrize("scope", SCOPES)
async def test_among_many_limits_the_one_that_is_reached_answers_in_both_dialects(
    priced: Installation, scope: Scope, quantity: Quantity
) -> None:
    amount, passes, shown = TIGHT[quantity]
    for turn, window in enumerate(WINDOWS):
        limits = [*wide((scope, quantity, window), turn), (scope, quantity, window, amount)]
        subject = await subject_of(priced.database, PLANS[turn], MODELS[turn].id, *limits)
        for _ in range(passes):
            status, answer, headers = await priced.post(CHAT, body(subject), key=subject.secret)
            assert status == 200, answer
        assert headers["x-ratelimit-tokens-query-cost"] == str(TIGHT["tokens"][0])
        for mount, code in (("/openai", "rate_limit_exceeded"), ("/mistral", "1300")):
            status, error, headers = await priced.post(mount + CHAT, body(subject), key=subject.secret)
            assert (status, error["code"]) == (429, code), (window, error)
            told = scope != "model"  # what everybody shares would tell of other people's use
            assert error["message"].startswith(f"{WHOSE[scope]} limit of {shown} {PER[window]} is reached")
            assert (" left, " in error["message"]) is told
            wait_ms = int(headers["retry-after-ms"])
            assert 0 < wait_ms <= LENGTH_S[window] * 1000
            assert int(headers["retry-after"]) == max(1, math.ceil(wait_ms / 1000))
            assert headers["x-should-retry"] == "true"
            if (quantity, window) == ("requests", "minute"):
                assert headers["x-ratelimit-limit-requests"] == headers["x-ratelimit-limit-req-minute"]
                assert headers["x-ratelimit-remaining-requests"] == headers["x-ratelimit-remaining-req-minute"]
                assert (headers["x-ratelimit-limit-requests"] == str(amount)) is told
                assert (headers["x-ratelimit-remaining-requests"] == "0") is told
            if (quantity, window) == ("tokens", "minute"):
                assert headers["x-ratelimit-limit-tokens"] == headers["x-ratelimit-limit-tokens-minute"]
                assert (headers["x-ratelimit-limit-tokens"] == str(amount)) is told
                left = int(headers["x-ratelimit-remaining-tokens-minute"])
                assert (left == int(headers["x-ratelimit-remaining-tokens"]) < amount) is told
            if (quantity, window) == ("tokens", "month"):
                assert (headers["x-ratelimit-limit-tokens-month"] == str(amount)) is told
                left = int(headers["x-ratelimit-remaining-tokens-month"])
                assert (left == amount - 11 - len(WORDS)) is told
    assert len(await priced.usage()) == passes * len(WINDOWS)


@pytest.mark.parametrize("scope", SCOPES)
async def test_the_limit_of_requests_at_once_answers_until_one_has_ended(
    priced: Installation, engine: MockEngine, scope: Scope
) -> None:
    engine.tokens = 10
    tight: tuple[Scope, Quantity, Window] = (scope, "concurrent", "none")
    subject = await subject_of(priced.database, "team", "slow-one", *wide(tight, 0), (*tight, 1))
    first = asyncio.create_task(priced.post(CHAT, body(subject), key=subject.secret))
    await begun(engine)
    status, error, headers = await priced.post(CHAT, body(subject), key=subject.secret)
    assert (status, error["code"]) == (429, "rate_limit_exceeded")
    assert error["message"].startswith(f"{WHOSE[scope]} limit of {TIGHT['concurrent'][2]} is reached")
    assert (": 0 left" in error["message"]) is (scope != "model")
    assert 0 < int(headers["retry-after-ms"]) <= 1000
    assert (await first)[0] == 200
    await asyncio.sleep(int(headers["retry-after-ms"]) / 1000)
    assert (await priced.post(CHAT, body(subject), key=subject.secret))[0] == 200


async def begun(engine: MockEngine) -> None:
    for _ in range(400):
        if engine.begun:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the engine was not asked")


async def test_of_several_limits_that_are_reached_the_one_that_lasts_longest_says_when_to_come_again(
    priced: Installation,
) -> None:
    limits: list[tuple[Scope, Quantity, Window, int]] = [
        ("key", "requests", "minute", 1),
        ("organisation", "requests", "month", 1),
        ("plan", "tokens", "day", 70),
        ("model", "nano", "5h", CAP * OUTPUT_NANO + 1),
    ]
    for turn, order in enumerate((limits, limits[::-1])):
        subject = await subject_of(priced.database, PLANS[turn], MODELS[turn].id, *order)
        status, answer, _ = await priced.post(CHAT, body(subject), key=subject.secret)
        assert status == 200, answer
        _, error, headers = await priced.post(CHAT, body(subject), key=subject.secret)
        assert error["message"].startswith("This organisation's limit of 1 requests per month is reached: ")
        assert int(headers["retry-after-ms"]) > 60_000
