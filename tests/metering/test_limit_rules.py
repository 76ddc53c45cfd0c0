"""Who may limit whom, what each sees of it, and what the journal says."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from galerne.governance import ROLE_PERMISSIONS, SYSTEM, Actor, ActorKind, Role
from galerne.identity import (
    NewKey,
    NewOrganisation,
    NewWorkspace,
    bootstrap,
    create_key,
    create_organisation,
    create_workspace,
    operator_in,
)
from galerne.journal import read_all
from galerne.kernel import BadRequest, Database, Forbidden, Ids, ManualClock, NotFound, run_in_session
from galerne.metering import (
    LimitSubject,
    NewLimit,
    list_every_limit,
    list_limits,
    pool_specs,
    remove_limit,
    remove_operator_limit,
    rules_script,
    set_limit,
    set_operator_limit,
)
from galerne.metering import limit_rules as limit_rules_module
from tests.metering.limit_fleet import NOON_MS, read, take
from tests.metering.takes import take_script

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@dataclass
class Bank:
    """One organisation: its administrators, and ids of what they may limit."""

    clock: ManualClock
    id: str
    workspace: str
    other_workspace: str
    key: str
    other_key: str
    admin: Actor
    workspace_admin: Actor

    @property
    def subject(self) -> LimitSubject:
        return LimitSubject(key_id=self.key, workspace_id=self.workspace, organisation_id=self.id, plan="team")


@pytest.fixture
async def bank(database: Database, ids: Ids) -> Bank:
    clock = ManualClock(NOON)
    async with database.transaction() as session:
        await bootstrap(session, ids, clock, None)
        made, _ = await create_organisation(session, NewOrganisation(name="Banque X", plan="team"), ids, clock)
        operator = await operator_in(session, made.id)
        spaces = [await create_workspace(session, operator, NewWorkspace(name=name), ids, clock) for name in "ab"]
        keys = [
            await create_key(session, operator, NewKey(name="k", workspace_id=space.id), ids, clock) for space in spaces
        ]
    admin = Actor(ActorKind.USER, "u1", made.id, None, ROLE_PERMISSIONS[Role.ORGANIZATION_ADMIN])
    bound = Actor(ActorKind.USER, "u2", made.id, spaces[0].id, ROLE_PERMISSIONS[Role.WORKSPACE_ADMIN])
    return Bank(clock, made.id, spaces[0].id, spaces[1].id, keys[0].row.id, keys[1].row.id, admin, bound)


def tokens(scope: Any, scope_id: str, amount: int = 1000, **changes: Any) -> NewLimit:
    return replace(
        NewLimit(scope=scope, scope_id=scope_id, quantity="tokens", window="month", amount=amount), **changes
    )


async def test_rules_of_a_key_and_all_above_it_are_read_at_once(database: Database, bank: Bank) -> None:
    async with database.transaction() as session:
        for limit in (
            tokens("key", bank.key),
            tokens("key", bank.other_key),
            tokens("workspace", bank.workspace),
            tokens("organisation", bank.id),
        ):
            await set_limit(session, bank.admin, limit, bank.clock)
        for limit in (tokens("plan", "team"), tokens("plan", "free"), tokens("model", "brise"), tokens("model", "m")):
            await set_operator_limit(session, SYSTEM, limit, bank.clock)
        found = await run_in_session(session, rules_script(bank.subject, "brise"))
        without_workspace = await run_in_session(
            session, rules_script(replace(bank.subject, key_id="other", workspace_id=None), "brise")
        )
    assert {(rule.scope, rule.scope_id) for rule in found} == {
        ("key", bank.key),
        ("workspace", bank.workspace),
        ("organisation", bank.id),
        ("plan", "team"),
        ("model", "brise"),
    }
    assert {rule.scope for rule in without_workspace} == {"organisation", "plan", "model"}
    assert len(pool_specs(found, bank.subject, "brise", (1, 1))) == 7


async def test_a_limit_set_again_is_the_same_one_with_another_amount(database: Database, bank: Bank) -> None:
    async with database.transaction() as session:
        first = await set_limit(session, bank.admin, tokens("key", bank.key, 10), bank.clock)
        again = await set_limit(session, bank.admin, tokens("key", bank.key, 20), bank.clock)
        await set_limit(session, bank.admin, tokens("key", bank.key, 20), bank.clock)
        leaves = [leaf for leaf in await read_all(session) if leaf.action.startswith("limit.")]
    assert again == replace(first, amount=20)
    assert (first.created_at, first.set_by) == (NOON, "organization")
    assert [leaf.action for leaf in leaves] == ["limit.set", "limit.set"]
    assert b'"amount_was":"10"' in leaves[0].leaf


async def test_a_workspaces_administrator_limits_what_is_in_it_and_nothing_above(
    database: Database, bank: Bank
) -> None:
    async with database.transaction() as session:
        made = await set_limit(session, bank.workspace_admin, tokens("key", bank.key), bank.clock)
        assert made.set_by == "workspace"
        await set_limit(session, bank.workspace_admin, tokens("workspace", bank.workspace), bank.clock)
        for scope, scope_id in (("key", bank.other_key), ("workspace", bank.other_workspace)):
            with pytest.raises(NotFound):
                await set_limit(session, bank.workspace_admin, tokens(scope, scope_id), bank.clock)
        with pytest.raises(Forbidden):
            await set_limit(session, bank.workspace_admin, tokens("organisation", bank.id), bank.clock)


async def test_nobody_removes_a_limit_set_above_them(database: Database, bank: Bank) -> None:
    async with database.transaction() as session:
        operators = await set_operator_limit(session, SYSTEM, tokens("organisation", bank.id), bank.clock)
        admins = await set_limit(session, bank.admin, tokens("key", bank.key), bank.clock)
        workspaces = await set_limit(session, bank.workspace_admin, tokens("key", bank.key), bank.clock)
        assert len({operators.id, admins.id, workspaces.id}) == 3
        for actor, rule in ((bank.admin, operators), (bank.workspace_admin, operators), (bank.workspace_admin, admins)):
            with pytest.raises(NotFound):
                await remove_limit(session, actor, rule.id, bank.clock)
        assert await remove_limit(session, bank.admin, workspaces.id, bank.clock) == workspaces
        assert await remove_operator_limit(session, SYSTEM, operators.id, bank.clock) == operators
        assert await run_in_session(session, rules_script(bank.subject, "brise")) == (admins,)


@pytest.mark.parametrize("scope", ["plan", "model"])
async def test_limits_of_plans_and_models_are_the_operators(database: Database, bank: Bank, scope: Any) -> None:
    async with database.transaction() as session:
        with pytest.raises(Forbidden, match="operator"):
            await set_limit(session, bank.admin, tokens(scope, "team"), bank.clock)


async def test_another_organisations_subjects_do_not_exist(database: Database, bank: Bank) -> None:
    stranger = replace(bank.admin, organisation_id="0" * 32)
    async with database.transaction() as session:
        mine = await set_limit(session, bank.admin, tokens("key", bank.key), bank.clock)
        for scope, scope_id in (("key", bank.key), ("workspace", bank.workspace), ("organisation", bank.id)):
            with pytest.raises(NotFound):
                await set_limit(session, stranger, tokens(scope, scope_id), bank.clock)
        with pytest.raises(NotFound):
            await remove_limit(session, stranger, mine.id, bank.clock)


async def test_a_list_shows_what_bears_on_the_reader_and_how_much_is_used(database: Database, bank: Bank) -> None:
    async with database.transaction() as session:
        for limit in (tokens("key", bank.key), tokens("key", bank.other_key), tokens("organisation", bank.id)):
            await set_limit(session, bank.admin, limit, bank.clock)
        plan = await set_operator_limit(session, SYSTEM, tokens("plan", "team"), bank.clock)
        await set_operator_limit(session, SYSTEM, tokens("plan", "free"), bank.clock)
        await set_operator_limit(session, SYSTEM, tokens("model", "brise"), bank.clock)
        rules = await run_in_session(session, rules_script(bank.subject, "brise"))
        for spec in pool_specs(rules, bank.subject, "brise", (1, 1)):
            await run_in_session(session, take_script(take(spec, 1 if spec.window == "minute" else 30), NOON_MS))
        seen = {(use.rule.scope, use.rule.scope_id): use for use in await list_limits(session, bank.admin, NOON)}
        bound = await list_limits(session, bank.workspace_admin, NOON)
        every = await list_every_limit(session, NOON)
    assert len(seen) == 5
    assert (seen["key", bank.key].used, seen["key", bank.key].remaining) == (30, 970)
    assert seen["key", bank.key].resets_at == datetime(2026, 12, 1, tzinfo=UTC)
    assert (seen["key", bank.other_key].used, seen["key", bank.other_key].resets_at) == (0, None)
    assert (seen["plan", "team"].subject, seen["plan", "team"].used) == (bank.id, 30)
    assert seen["model", "brise"].used is None
    assert [use.rule.scope_id for use in bound] == [bank.key]
    assert len(every) == 6
    assert [(use.subject, use.used) for use in every if use.rule == plan] == [(bank.id, 30)]
    assert [use.used for use in every if use.rule.scope == "model"] == [30]


async def test_a_removed_limit_forgets_what_was_counted(database: Database, bank: Bank) -> None:
    async with database.transaction() as session:
        rule = await set_limit(session, bank.admin, tokens("key", bank.key, quantity="requests"), bank.clock)
        subject = LimitSubject(key_id=bank.key, workspace_id=None, organisation_id=bank.id, plan="team")
        [spec] = [each for each in pool_specs([rule], subject, "brise", (1, 1)) if each.window == "month"]
        await run_in_session(session, take_script(take(spec, 30), NOON_MS))
        await remove_limit(session, bank.admin, rule.id, bank.clock)
    assert await read(database, "SELECT 1 FROM limit_pools UNION ALL SELECT 1 FROM limit_leases") == []


async def test_one_subject_has_no_more_rules_than_its_requests_can_bear(
    database: Database, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit_rules_module, "MOST_RULES", 2)
    async with database.transaction() as session:
        for model in ("a", "b"):
            await set_limit(session, bank.admin, tokens("key", bank.key, model=model), bank.clock)
        with pytest.raises(BadRequest, match="remove one"):
            await set_limit(session, bank.admin, tokens("key", bank.key, model="c"), bank.clock)
        await set_limit(session, bank.admin, tokens("key", bank.key, 7, model="b"), bank.clock)


async def test_a_key_is_named_by_its_id(database: Database, bank: Bank) -> None:
    async with database.transaction() as session:
        prefix = (await read(database, "SELECT prefix FROM api_keys WHERE id = :id", id=bank.key))[0][0]
        with pytest.raises(BadRequest, match=bank.key):
            await set_limit(session, bank.admin, tokens("key", prefix), bank.clock)
