from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from galerne.governance import ROLE_PERMISSIONS, Actor, ActorKind, Permission, Role
from galerne.identity import (
    NewKey,
    bootstrap,
    create_key,
    find_installation_admin,
    list_keys,
    resolve_key,
    revoke_key,
)
from galerne.identity.tables import Organisation, User, Workspace
from galerne.kernel import BadRequest, Database, Forbidden, Ids, ManualClock, NotFound, Unauthenticated

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
async def admin(database: Database, ids: Ids, clock: ManualClock) -> Actor:
    async with database.transaction() as session:
        await bootstrap(session, ids, clock, "an-admin-key-for-tests")
        return await find_installation_admin(session)


async def other_tenant(database: Database, ids: Ids) -> Actor:
    organisation, user = ids.new(), ids.new()
    async with database.transaction() as session:
        session.add(Organisation(id=organisation, name="other", created_at=NOW))
        await session.flush()
        session.add(User(id=user, organisation_id=organisation, name="o", role=Role.ORGANIZATION_ADMIN, created_at=NOW))
    return Actor(ActorKind.USER, user, organisation, None, ROLE_PERMISSIONS[Role.ORGANIZATION_ADMIN])


async def test_the_first_start_makes_one_administrator_whose_key_works(
    database: Database, ids: Ids, clock: ManualClock
) -> None:
    async with database.transaction() as session:
        secret = await bootstrap(session, ids, clock, None)
        assert secret is not None
        grant = await resolve_key(session, secret, NOW)
        assert await bootstrap(session, ids, clock, "another-admin-key") is None
    assert grant.actor.permissions == frozenset(Permission)
    assert secret.startswith(grant.prefix)


async def test_the_operator_may_choose_the_first_key_but_not_a_short_one(
    database: Database, ids: Ids, clock: ManualClock
) -> None:
    async with database.transaction() as session:
        for weak in ("short", "has a space", "clé-accentuée"):
            with pytest.raises(BadRequest, match="GALERNE_ADMIN_KEY"):
                await bootstrap(session, ids, clock, weak)
        assert await bootstrap(session, ids, clock, "chosen-by-operator") == "chosen-by-operator"
        assert (await resolve_key(session, "chosen-by-operator", NOW)).actor.permissions == frozenset(Permission)


async def test_no_table_holds_a_key_in_clear(database: Database, admin: Actor, ids: Ids, clock: ManualClock) -> None:
    async with database.transaction() as session:
        secret = (await create_key(session, admin, NewKey(name="n"), ids, clock)).secret
    async with database.reading() as session:
        for table in ("api_keys", "journal_leaves", "users", "organisations"):
            rows = (await session.execute(text(f"SELECT * FROM {table}"))).all()
            assert secret not in repr(rows)
            assert secret[12:] not in repr(rows)


async def test_a_key_carries_the_scopes_it_was_given_and_no_other(
    database: Database, admin: Actor, ids: Ids, clock: ManualClock
) -> None:
    scopes = frozenset({Permission.INFERENCE_RUN})
    async with database.transaction() as session:
        made = await create_key(
            session, admin, NewKey(name="n", scopes=scopes, strict=True, dialect="mistral"), ids, clock
        )
        grant = await resolve_key(session, made.secret, NOW)
    assert grant.actor.permissions == scopes
    assert grant.actor.organisation_id == admin.organisation_id
    assert (grant.strict, grant.dialect) == (True, "mistral")


async def test_nobody_grants_what_they_do_not_hold(
    database: Database, admin: Actor, ids: Ids, clock: ManualClock
) -> None:
    limited = Actor(ActorKind.USER, admin.id, admin.organisation_id, None, frozenset({Permission.KEYS_MANAGE}))
    async with database.transaction() as session:
        with pytest.raises(Forbidden, match="inference:run"):
            await create_key(
                session, limited, NewKey(name="n", scopes=frozenset({Permission.INFERENCE_RUN})), ids, clock
            )
        inherited = await create_key(session, limited, NewKey(name="n"), ids, clock)
        assert inherited.row.scopes == [Permission.KEYS_MANAGE]


async def test_a_key_loses_what_its_owners_role_loses(
    database: Database, admin: Actor, ids: Ids, clock: ManualClock
) -> None:
    async with database.transaction() as session:
        made = await create_key(session, admin, NewKey(name="n"), ids, clock)
        user = await session.get_one(User, admin.id)
        user.role = Role.BILLING
        await session.flush()
        assert (await resolve_key(session, made.secret, NOW)).actor.permissions == ROLE_PERMISSIONS[Role.BILLING]


async def test_an_unknown_a_revoked_and_an_expired_key_are_refused_each_with_its_reason(
    database: Database, admin: Actor, ids: Ids, clock: ManualClock
) -> None:
    soon = NewKey(name="soon over", expires_at=NOW + timedelta(seconds=5))
    async with database.transaction() as session:
        revoked = await create_key(session, admin, NewKey(name="revoked"), ids, clock)
        expiring = await create_key(session, admin, soon, ids, clock)
        await revoke_key(session, admin, revoked.row.id, clock)
        await resolve_key(session, expiring.secret, NOW + timedelta(seconds=4.9))
        refusals = [
            (revoked.secret, NOW, "revoked_api_key"),
            (expiring.secret, NOW + timedelta(seconds=5), "expired_api_key"),
            ("gal_never_made", NOW, "invalid_api_key"),
        ]
        for secret, at, code in refusals:
            with pytest.raises(Unauthenticated) as refusal:
                await resolve_key(session, secret, at)
            assert refusal.value.code == code


async def test_revoking_twice_keeps_the_first_time(
    database: Database, admin: Actor, ids: Ids, clock: ManualClock
) -> None:
    async with database.transaction() as session:
        made = await create_key(session, admin, NewKey(name="n"), ids, clock)
        first = (await revoke_key(session, admin, made.row.prefix, clock)).revoked_at
        clock.current += timedelta(hours=1)
        assert (await revoke_key(session, admin, made.row.id, clock)).revoked_at == first


async def test_another_tenants_key_is_not_found(database: Database, admin: Actor, ids: Ids, clock: ManualClock) -> None:
    stranger = await other_tenant(database, ids)
    async with database.transaction() as session:
        made = await create_key(session, admin, NewKey(name="n"), ids, clock)
        for name in (made.row.id, made.row.prefix):
            with pytest.raises(NotFound):
                await revoke_key(session, stranger, name, clock)
        assert list(await list_keys(session, stranger)) == []


async def test_a_workspaces_actor_sees_and_makes_keys_of_that_workspace_only(
    database: Database, admin: Actor, ids: Ids, clock: ManualClock
) -> None:
    mine, theirs = ids.new(), ids.new()
    async with database.transaction() as session:
        for each in (mine, theirs):
            session.add(Workspace(id=each, organisation_id=admin.organisation_id, name=each, created_at=NOW))
        await session.flush()
        bound = Actor(ActorKind.USER, admin.id, admin.organisation_id, mine, admin.permissions)
        made = await create_key(session, bound, NewKey(name="n"), ids, clock)
        assert made.row.workspace_id == mine
        assert [row.id for row in await list_keys(session, bound)] == [made.row.id]
        with pytest.raises(NotFound, match="workspace"):
            await create_key(session, bound, NewKey(name="n", workspace_id=theirs), ids, clock)


@pytest.mark.parametrize(
    ("new", "field"),
    [
        (NewKey(name=" "), "name"),
        (NewKey(name="x" * 101), "name"),
        (NewKey(name="n", expires_at=NOW), "expires_at"),
        (NewKey(name="n", requests_per_minute=0), "requests_per_minute"),
        (NewKey(name="n", tokens_per_minute=-1), "tokens_per_minute"),
        (NewKey(name="n", scopes=frozenset()), "scopes"),
    ],
)
async def test_a_key_that_cannot_be_is_refused_naming_the_field(
    new: NewKey, field: str, database: Database, admin: Actor, ids: Ids, clock: ManualClock
) -> None:
    async with database.transaction() as session:
        with pytest.raises(BadRequest) as refusal:
            await create_key(session, admin, new, ids, clock)
    assert refusal.value.param == field


async def test_making_and_revoking_a_key_are_in_the_journal(
    database: Database, admin: Actor, ids: Ids, clock: ManualClock
) -> None:
    async with database.transaction() as session:
        made = await create_key(session, admin, NewKey(name="n"), ids, clock)
        await revoke_key(session, admin, made.row.id, clock)
        actions = (await session.execute(text("SELECT action FROM journal_leaves ORDER BY seq"))).scalars().all()
    assert actions == ["installation.created", "api_key.created", "api_key.revoked"]
