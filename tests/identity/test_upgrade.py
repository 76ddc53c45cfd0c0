from sqlalchemy import text

from galerne.governance import Role
from galerne.identity import find_installation_admin
from galerne.kernel import Database
from galerne.migrations.versions import v0002_zones_plans_and_tracing as upgrade
from tests.identity.tenants import two_tenants


async def test_the_first_administrator_of_an_older_installation_becomes_the_installations_and_nobody_else(
    database: Database,
) -> None:
    first = (await two_tenants(database)).operator
    async with database.transaction() as session:
        await session.execute(text("UPDATE users SET role = 'organization_admin'"))
        await session.execute(text(upgrade.FIRST_ADMINISTRATOR))
        assert (await find_installation_admin(session)).id == first.id
        roles = (await session.execute(text("SELECT role FROM users ORDER BY created_at, id"))).scalars().all()
    assert roles == [Role.INSTALLATION_ADMIN, Role.ORGANIZATION_ADMIN]
