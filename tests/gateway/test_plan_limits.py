"""A change of plan changes what the gateway admits and how it is served, without a restart."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from galerne.billing import Plan
from galerne.billing.subscriptions import Ask, Fee, Offer, Order, UsageWindow, ask, publish_plan, subscribe
from galerne.gateway import Replica
from galerne.gateway import terms as gateway_terms
from galerne.identity import find_installation_admin, resolve_key
from galerne.kernel import Database, Ids, SystemClock
from tests.gateway.installation import model, running_gateway
from tests.gateway.paying import new_payer
from tests.gateway.upstream import MockEngine

CHAT = "/v1/chat/completions"
_clock, _ids = SystemClock(), Ids()
_FREE = (Fee(interval="month", currency="EUR", nano=0),)


def window(amount: int) -> tuple[UsageWindow, ...]:
    return (UsageWindow(quantity="requests", window="day", amount=amount),)


async def test_an_upgrade_changes_what_is_admitted_and_how_it_is_served(
    database: Database, engine: MockEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_terms, "TERMS_STALENESS_S", 0.0)
    replica = Replica(id="r", base_url=engine.base_url)
    async with running_gateway(database, replica, (model("normal"),), key_staleness_s=0.001) as gateway:
        payer = await new_payer(database, "free")
        async with database.transaction() as session:
            operator = await find_installation_admin(session)
            for name, weight, tier, amount in (("small", 1, "standard", 1), ("large", 8, "priority", 3)):
                plan = Plan(id=name, weight=weight, tier=tier, description="")  # type: ignore[arg-type]  # tiers
                offer = Offer(fees=_FREE, windows=window(amount))
                await publish_plan(session, operator, plan, offer, _clock)

        async def wish(plan: str | None) -> None:
            async with database.transaction() as session:
                actor = (await resolve_key(session, payer.secret, datetime.now(UTC))).actor
                if plan is None:
                    await subscribe(session, actor, Order(plan_id="small"), _ids, _clock)
                else:
                    await ask(session, actor, Ask(what="change", plan_id=plan), _ids, _clock)

        async def tried(**more: Any) -> tuple[int, str | None]:
            body = {"model": "normal", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5, **more}
            status, answer, _ = await gateway.post("/openai" + CHAT, body, key=payer.secret)
            return status, answer.get("service_tier")

        await wish(None)
        assert await tried(service_tier="priority") == (200, "default")
        assert (await tried())[0] == 429
        await wish("large")
        upgraded = await tried(service_tier="priority")
        for _ in range(40):  # the process keeps in mind for a moment that the pool was used up
            if upgraded[0] == 200:
                break
            await asyncio.sleep(0.1)
            upgraded = await tried(service_tier="priority")
        assert upgraded == (200, "priority")
        assert (await tried())[0] == 200
        assert (await tried())[0] == 429
