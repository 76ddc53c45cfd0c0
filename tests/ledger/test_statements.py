"""An account's statement: exact running balances over pages, in a session, over HTTP and at the command line."""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.dialects.sqlite import dialect
from sqlalchemy.ext.asyncio import AsyncSession
from typer.testing import CliRunner

from galerne.apps.commands.credits import app
from galerne.governance import Actor, ActorKind, Permission
from galerne.identity import NewOrganisation, bootstrap, create_organisation
from galerne.kernel import BadRequest, Database, Ids, ManualClock, NotFound, SystemClock
from galerne.ledger import (
    Statement,
    hold_script,
    open_account_script,
    post_script,
    release_script,
    settle_script,
    statement_of,
)
from galerne.ledger.routes import router
from tests.journal.serving import Server
from tests.ledger.ledgers import CASH, NOON, PREPAID, REVENUE, fund, posting, read, run, settlement, wish

READER = Actor(ActorKind.API_KEY, "key-1", "org-1", None, frozenset({Permission.BILLING_READ}))
PATH = f"/v1/admin/balance/{PREPAID.id}/statement"
runner = CliRunner()


@pytest.fixture
async def server(database: Database) -> AsyncGenerator[Server]:
    await fund(database, 100)
    server = Server(router, database, ManualClock(NOON), READER)
    async with server.client:
        yield server


async def page_of(database: Database, limit: int, page: str | None = None) -> Statement:
    async with database.reading() as session:
        return await statement_of(session, "org-1", PREPAID.id, limit, page)


async def moved(database: Database) -> None:
    await fund(database, 100)
    await run(database, hold_script(wish(60)))
    await run(database, settle_script([settlement(f"r{number}", number + 1) for number in range(3)]))
    await run(database, post_script(posting(1, "elsewhere", credit_account_id=REVENUE.id)))
    await run(database, post_script(posting(7, "back", debit_account_id=PREPAID.id, credit_account_id=CASH.id)))
    await run(database, release_script(["hold-1"], NOON))


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
async def test_a_statement_runs_from_the_balance_back_to_nothing_over_its_pages(database: Database, limit: int) -> None:
    await moved(database)
    pages = [await page_of(database, limit)]
    while (page := pages[-1].next_page) is not None:
        pages.append(await page_of(database, limit, page))
    lines = [line for page in pages for line in page.lines]
    assert [(line.id, line.change_nano, line.balance_nano) for line in lines] == [
        ("back", -7, 87),
        ("r2", -3, 94),
        ("r1", -2, 97),
        ("r0", -1, 99),
        ("payment-1", 100, 100),
    ]
    assert {line.id: str(line.other) for line in lines}["payment-1"] == "cash_clearing"
    assert max(len(page.lines) for page in pages) == min(limit, 5)


async def test_what_comes_between_two_pages_changes_nothing_on_the_older_one(database: Database) -> None:
    await moved(database)
    first = await page_of(database, 2)
    await run(database, post_script(posting(50, "later")))
    assert [line.balance_nano for line in (await page_of(database, 2, first.next_page)).lines] == [97, 99]
    assert (await page_of(database, 1)).lines[0].balance_nano == 137


async def test_each_side_of_a_page_walks_its_own_index_and_never_the_whole_ledger(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not database.is_sqlite:
        pytest.skip("PostgreSQL plans by what lies in the table")
    await moved(database)
    statements: list[Any] = []
    execute = AsyncSession.execute

    async def noting(session: AsyncSession, statement: Any) -> Any:
        statements.append(statement)
        return await execute(session, statement)

    monkeypatch.setattr(AsyncSession, "execute", noting)
    await page_of(database, 2, (await page_of(database, 2)).next_page)
    monkeypatch.undo()
    written = statements[-1].compile(dialect=dialect(), compile_kwargs={"literal_binds": True})
    plan = str(await read(database, "EXPLAIN QUERY PLAN " + str(written).replace(":", r"\:")))
    for side in ("debit", "credit"):
        assert f"USING INDEX ix_ledger_transfers_{side}_account_id_seq ({side}_account_id=? AND seq<?)" in plan


def address(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "page",
    [
        "",
        "x",
        "é",
        "\ud800",
        address("5"),
        address("x:r1"),
        address("5:none"),
        address("5:elsewhere"),
        address("5:\x00"),
        address(f"{2**70}:r1"),
        address(f"{'9' * 5000}:r1"),
    ],
)
async def test_what_is_no_page_of_that_account_is_refused(database: Database, page: str) -> None:
    await moved(database)
    with pytest.raises(BadRequest, match="no page"):
        await page_of(database, 2, page)


async def test_an_organisation_reads_its_own_accounts_only(server: Server) -> None:
    shown = await server.get(PATH, limit=1)
    assert shown == {
        "object": "statement",
        "account": PREPAID.id,
        "currency": "EUR",
        "data": [
            {
                "object": "transfer",
                "id": "payment-1",
                "at": "2026-11-23T12:00:00Z",
                "kind": "post",
                "other": "cash_clearing",
                "change": "0.0000001",
                "balance": "0.0000001",
                "reason": "paid",
            }
        ],
        "has_more": False,
        "next_page": None,
    }
    for account in (CASH.id, "prepaid:none:EUR"):
        assert await server.status(f"/v1/admin/balance/{account}/statement") == 404
    server.actor = replace(READER, organisation_id="org-2")
    assert await server.status(PATH) == 404


@pytest.mark.parametrize("change", [{"permissions": frozenset({Permission.USAGE_READ})}, {"workspace_id": "w-1"}])
async def test_who_may_not_see_the_balance_sees_no_statement(server: Server, change: dict[str, object]) -> None:
    server.actor = replace(READER, **change)  # type: ignore[arg-type]  # the table's columns differ
    assert await server.status(PATH) == 403


async def test_an_account_that_nothing_moved_has_an_empty_statement(server: Server, database: Database) -> None:
    opened = replace(PREPAID, id="prepaid:org-1:USD", currency="USD")
    await run(database, open_account_script(opened, NOON))
    shown = await server.get(f"/v1/admin/balance/{opened.id}/statement")
    assert (shown["data"], shown["has_more"], shown["currency"]) == ([], False, "USD")


def test_the_command_pages_and_refuses_the_account_of_another(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start() -> str:
        database = Database(database_url)
        async with database.transaction() as session:
            await bootstrap(session, Ids(), SystemClock(), None)
            made, _ = await create_organisation(session, NewOrganisation(name="customer"), Ids(), SystemClock())
        await database.close()
        return made.id

    monkeypatch.setenv("GALERNE_DATABASE_URL", database_url)
    organisation = asyncio.run(start())
    for name, amount in (("one", "5"), ("two", "2.5")):
        words = [organisation, amount, "--currency", "EUR", "--reason", "paid in", "--id", name]
        assert runner.invoke(app, ["grant", *words], catch_exceptions=False).exit_code == 0
    asked = ["statement", f"prepaid:{organisation}:EUR", "--organisation", organisation]
    first = json.loads(runner.invoke(app, [*asked, "--limit", "1", "--json"], catch_exceptions=False).output)
    second = runner.invoke(app, [*asked, "--page", first["next_page"]], catch_exceptions=False).output
    assert [(each["id"], each["balance"]) for each in first["data"]] == [("two", "7.50")]
    assert second.splitlines()[1].split()[3:] == ["cash_clearing", "5.00", "5.00", "paid", "in"]
    shown = runner.invoke(app, [*asked, "--limit", "1"], catch_exceptions=False).output
    assert shown.splitlines()[-1] == f"older ones: --page {first['next_page']}"
    with pytest.raises(NotFound):
        runner.invoke(app, asked[:2], catch_exceptions=False)
