"""Granting credit, seeing it over HTTP and at the command line, and checking the books there."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from galerne.apps.cli import main
from galerne.apps.commands.credits import BooksBroken, app
from galerne.governance import ROLE_PERMISSIONS, Actor, ActorKind, Permission, Role
from galerne.identity import NewOrganisation, bootstrap, create_organisation
from galerne.journal import read_all
from galerne.kernel import BadRequest, Conflict, Database, Ids, ManualClock, SystemClock
from galerne.ledger import Grant, amount_of, amount_text, grant_credit, hold_script
from galerne.ledger.routes import router
from tests.journal.serving import Server
from tests.ledger.ledgers import NOON, PREPAID, REVENUE, problems, run, sums, wish

READER = Actor(ActorKind.API_KEY, "key-1", "org-1", None, frozenset({Permission.BILLING_READ}))
GRANT = Grant(id="transfer-17", amount_nano=12_500_000_000, currency="EUR", reason="bank transfer")
runner = CliRunner()


@pytest.fixture
async def server(database: Database) -> AsyncGenerator[Server]:
    server = Server(router, database, ManualClock(NOON), READER)
    async with server.client:
        yield server


@pytest.fixture
def organisation(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    async def start() -> str:
        database = Database(database_url)
        async with database.transaction() as session:
            await bootstrap(session, Ids(), SystemClock(), None)
            made, _ = await create_organisation(session, NewOrganisation(name="customer"), Ids(), SystemClock())
        await database.close()
        return made.id

    monkeypatch.setenv("GALERNE_DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "160")
    return asyncio.run(start())


async def grant(database: Database, wanted: Grant = GRANT) -> bool:
    async with database.transaction() as session:
        return await grant_credit(session, READER, wanted, ManualClock(NOON))


@pytest.mark.parametrize(
    ("written", "nano"),
    [("12.5", 12_500_000_000), ("0.000000001", 1), ("007", 7_000_000_000), ("4611686018.427387903", 2**62 - 1)],
)
def test_an_amount_is_read_exactly(written: str, nano: int) -> None:
    assert amount_of(written) == nano


@pytest.mark.parametrize(
    "written",
    ["", "0", "0.0", "-1", "+1", "1e3", "1,5", ".5", "5.", "٣", "1.0000000001", "4611686018.427387904", "NaN"],
)
def test_what_is_no_amount_is_refused(written: str) -> None:
    with pytest.raises(BadRequest, match="is no amount"):
        amount_of(written)


@pytest.mark.parametrize(
    ("nano", "shown"), [(0, "0.00"), (12_500_000_000, "12.50"), (1, "0.000000001"), (-1_250_000_000, "-1.25")]
)
def test_an_amount_is_shown_with_two_digits_at_least(nano: int, shown: str) -> None:
    assert amount_text(nano) == shown


async def test_a_grant_is_given_once_and_journalled_once(database: Database) -> None:
    assert await grant(database) is True
    assert await grant(database) is False
    assert await sums(database) == (0, 0, 12_500_000_000, 0)
    with pytest.raises(Conflict):
        await grant(database, replace(GRANT, amount_nano=1))
    async with database.reading() as session:
        leaves = [json.loads(leaf.leaf) for leaf in await read_all(session)]
    assert [(leaf["action"], leaf["resource"], leaf["detail"]) for leaf in leaves] == [
        (
            "credit.granted",
            f"account:{PREPAID.id}",
            {"amount": "12.50", "currency": "EUR", "transfer": "transfer-17"},
        )
    ]
    assert await problems(database) == []


async def test_the_same_grant_by_many_at_once_is_given_once(database: Database) -> None:
    given = await asyncio.gather(*(grant(database) for _ in range(5)))
    assert sorted(given) == [False, False, False, False, True]
    assert await sums(database) == (0, 0, 12_500_000_000, 0)


@pytest.mark.parametrize("change", [{"id": ""}, {"id": "a" * 201}, {"reason": ""}, {"reason": "a\nb"}])
def test_a_grant_has_a_name_and_a_reason(change: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        replace(GRANT, **change)  # type: ignore[arg-type]  # texts alone are changed


def test_administrators_and_billing_may_read_balances_and_developers_may_not() -> None:
    may = {role for role, permissions in ROLE_PERMISSIONS.items() if Permission.BILLING_READ in permissions}
    assert may == {Role.INSTALLATION_ADMIN, Role.ORGANIZATION_ADMIN, Role.BILLING}


async def test_an_organisation_sees_its_own_accounts(server: Server, database: Database) -> None:
    assert await server.get("/v1/admin/balance") == {"object": "balance", "data": []}
    await grant(database)
    await run(database, hold_script(wish(2_000_000_000)))
    assert (await server.get("/v1/admin/balance"))["data"] == [
        {
            "object": "account",
            "id": PREPAID.id,
            "kind": "prepaid",
            "currency": "EUR",
            "balance": "12.50",
            "held": "2.00",
            "credit_limit": "0.00",
            "available": "10.50",
        }
    ]
    server.actor = replace(READER, organisation_id="org-2")
    assert (await server.get("/v1/admin/balance"))["data"] == []


@pytest.mark.parametrize("change", [{"permissions": frozenset({Permission.USAGE_READ})}, {"workspace_id": "w-1"}])
async def test_who_may_not_see_the_balance_is_refused(server: Server, change: dict[str, object]) -> None:
    server.actor = replace(READER, **change)  # type: ignore[arg-type]  # the table's columns differ
    assert await server.status("/v1/admin/balance") == 403


def test_the_command_grants_once_lists_and_checks(organisation: str) -> None:
    words = ["grant", organisation, "250", "--currency", "EUR", "--reason", "paid", "--id", "line-1"]
    first, second = (json.loads(runner.invoke(app, [*words, "--json"]).output) for _ in range(2))
    assert (first["granted"], second["granted"]) == (True, False)
    assert first["accounts"] == second["accounts"]
    assert runner.invoke(app, words).output == "granted before: 250.00 EUR (id line-1)\n"
    listed = runner.invoke(app, ["list"], catch_exceptions=False).output.splitlines()
    assert [f"prepaid:{organisation}:EUR", "EUR", "250.00", "0.00", "250.00"] in [line.split() for line in listed]
    own = json.loads(runner.invoke(app, ["list", "--organisation", organisation, "--json"]).output)
    assert [account["kind"] for account in own] == ["prepaid"]
    assert runner.invoke(app, ["check"]).output == "sound: every balance and lot is what its transfers say\n"


def test_the_command_names_what_is_wrong_and_fails(
    organisation: str, database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.invoke(app, ["grant", organisation, "250", "--currency", "EUR", "--reason", "paid"], catch_exceptions=False)

    async def damage() -> None:
        database = Database(database_url)
        async with database.transaction() as session:
            await session.execute(
                text("UPDATE ledger_accounts SET credits_posted_nano = 1 WHERE id = :id"), {"id": REVENUE.id}
            )
        await database.close()

    asyncio.run(damage())
    answer = runner.invoke(app, ["check", "--json"])
    assert isinstance(answer.exception, BooksBroken)
    assert json.loads(answer.output)["sound"] is False
    monkeypatch.setattr("sys.argv", ["galerne", "credits", "check"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert "account revenue:EUR" in capsys.readouterr().err


def test_the_command_grants_lots_burns_ends_and_corrects_them(organisation: str) -> None:
    def told(*words: str) -> Any:
        return json.loads(runner.invoke(app, [*words, "--json"], catch_exceptions=False).output)

    for_it = ["--organisation", organisation]
    kinds = ["--promotional", "--priority", "5", "--expires", "30d"]
    told("grant", organisation, "5", "--currency", "EUR", "--reason", "welcome", "--id", "gift", *kinds)
    told("grant", organisation, "9", "--currency", "EUR", "--reason", "paid", "--id", "paid", "--invoice", "2026-1")
    gift, paid = told("lots", *for_it)
    assert (gift["id"], gift["kind"], gift["priority"], gift["source"]) == ("gift", "promotional", 5, "grant")
    assert (paid["id"], paid["left"], paid["source"], paid["source_ref"]) == ("paid", "9.00", "invoice", "2026-1")
    assert told("burn") == {"object": "burned", "transfers": 2}
    assert told("expire") == []
    [booked] = told("void", "gift", "--reason", "a mistake", *for_it)
    assert (booked["lot"], booked["amount"]) == ("gift", "5.00")
    table = runner.invoke(app, ["lots", *for_it], catch_exceptions=False).output
    assert "voided" in table
    refused = runner.invoke(app, ["correct", "gift", "1", "--reason", "x", *for_it])
    assert isinstance(refused.exception, BadRequest)
    assert runner.invoke(app, ["check"], catch_exceptions=False).output.startswith("sound")


async def test_the_operator_grants_ends_and_corrects_credit_over_http(server: Server, database: Database) -> None:
    async with database.transaction() as session:
        await bootstrap(session, Ids(), SystemClock(), None)
        customer, _ = await create_organisation(session, NewOrganisation(name="customer"), Ids(), SystemClock())
    path, sent = "/v1/admin/credits", {"organisation": customer.id, "reason": "x"}
    body = {**sent, "id": "g", "amount": "7.5", "currency": "EUR"}
    assert (await server.client.post(path, json=body)).status_code == 403
    manager = frozenset({Permission.CREDITS_MANAGE, Permission.BILLING_READ})
    server.actor = replace(READER, permissions=manager)
    granted = [(await server.client.post(path, json=body)).json()["granted"] for _ in range(2)]
    assert granted == [True, False]
    assert (await server.client.post(path, json={**body, "amount": "8"})).status_code == 409
    for wrong, status in (
        ({"amount": "-1"}, 400),
        ({"priority": 101}, 400),
        ({"x": 1}, 422),
        ({"organisation": "n"}, 404),
    ):
        assert (await server.client.post(path, json={**body, "id": "h", **wrong})).status_code == status
    server.actor = replace(READER, organisation_id=customer.id)
    [lot] = (await server.get(path))["data"]
    assert (lot["id"], lot["left"], lot["kind"], lot["expires_at"]) == ("g", "7.50", "paid", None)
    server.actor = replace(READER, permissions=manager)
    away = await server.client.post(f"{path}/corrections", json={**sent, "id": "k", "charge": "none", "amount": "1"})
    assert away.status_code == 404
    ended = await server.client.post(f"{path}/g/void", json=sent)
    assert [each["amount"] for each in ended.json()["data"]] == ["7.50"]
    server.actor = replace(READER, organisation_id=customer.id, workspace_id="w-1")
    assert await server.status(path) == 403
    assert await problems(database) == []


def test_the_operator_alone_gives_credit() -> None:
    may = {role for role, permissions in ROLE_PERMISSIONS.items() if Permission.CREDITS_MANAGE in permissions}
    assert may == {Role.INSTALLATION_ADMIN}
