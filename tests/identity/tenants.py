"""An installation with a second organisation, for tests about who may do what to whom."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import Actor
from galerne.identity import (
    KeyGrant,
    NewKey,
    NewOrganisation,
    bootstrap,
    create_key,
    create_organisation,
    find_installation_admin,
    resolve_key,
)
from galerne.journal import LeafFilter, read_all
from galerne.kernel import Database, Ids, ManualClock

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@dataclass
class Tenants:
    """The operator, and the administrator of another organisation, each as the actor that their key is."""

    database: Database
    ids: Ids
    clock: ManualClock
    operator: Actor
    stranger: Actor
    stranger_key: str

    async def key(self, session: AsyncSession, actor: Actor, **terms: Any) -> KeyGrant:
        """What a key that `actor` makes grants."""
        made = await create_key(session, actor, NewKey(name="n", **terms), self.ids, self.clock)
        return await resolve_key(session, made.secret, NOW)

    async def journal(self, action: str) -> list[dict[str, Any]]:
        """The details of every entry with that action, oldest first."""
        async with self.database.reading() as session:
            leaves = await read_all(session, LeafFilter(actions=[action], oldest_first=True), 100)
        return [leaf.detail for leaf in leaves]


async def two_tenants(database: Database, **terms: Any) -> Tenants:
    """Both of them, with `terms` for the second organisation."""
    ids, clock = Ids(), ManualClock(NOW)
    async with database.transaction() as session:
        await bootstrap(session, ids, clock, None)
        operator = await find_installation_admin(session)
        _, key = await create_organisation(session, NewOrganisation(name="other", **terms), ids, clock)
        stranger = (await resolve_key(session, key.secret, NOW)).actor
    return Tenants(database, ids, clock, operator, stranger, key.secret)
