"""What webhooks are tested with: settings that let loopback through, and a customer who is told."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from galerne.billing.budgets import NewBudget, set_budget
from galerne.governance import SYSTEM
from galerne.identity import bootstrap
from galerne.kernel import Database, Ids, Settings, SystemClock
from galerne.kernel.sealing import open_sealer
from galerne.notices import NewEndpoint, add_endpoint
from tests.billing.invoices.customers import OCTOBER, house_in
from tests.notices.receiver import receiving
from tests.notices.telling import Told


@pytest.fixture
async def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("GALERNE_WEBHOOKS_INSIDE", "1")
    monkeypatch.setenv("GALERNE_DATA", str(tmp_path / "data"))
    return Settings()


@pytest.fixture
async def told(database: Database, settings: Settings) -> AsyncGenerator[Told]:
    async with database.transaction() as session:
        await bootstrap(session, Ids(), SystemClock(), None)
    house = await house_in(database)
    house.clock.current = OCTOBER
    own = await house.customer("Erdre")
    actor = replace(SYSTEM, organisation_id=own)
    async with receiving() as receiver:
        async with database.transaction() as session:
            new = NewBudget(scope="organisation", scope_id=own, window="month", nano=1_000_000, currency="EUR")
            await set_budget(session, actor, new, house.ids, house.clock)
            to = NewEndpoint(receiver.url, (), True)
            endpoint, secret = await add_endpoint(session, actor, to, open_sealer(settings), house.ids, house.clock)
        yield Told(house, settings, own, endpoint.id, secret, receiver)
