"""Bank statements on both databases: each booking once, what is sure is paid, the rest waits for a person."""

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from galerne.apps.commands import payments as payments_command
from galerne.apps.refusals import install_refusals
from galerne.billing.payments import (
    Imported,
    StatementEntry,
    assign_entry,
    creditor_reference,
    import_statement,
    payments_router,
    set_entry_aside,
    waiting_entries,
)
from galerne.governance import ROLE_PERMISSIONS, Role
from galerne.kernel import BadRequest, Conflict, Database
from tests.billing.payments.invoiced import Invoiced, booking, invoiced
from tests.journal.serving import Server

STATEMENT = Path(__file__).parent / "golden" / "version-02.xml"


@pytest.fixture
async def books(database: Database) -> Invoiced:
    return await invoiced(database)


@pytest.fixture
async def server(books: Invoiced) -> AsyncGenerator[Server]:
    server = Server(payments_router, books.database, books.tenants.clock, books.operator)
    install_refusals(server.app)
    async with server.client:
        yield server


async def imported(books: Invoiced, *entries: StatementEntry) -> Imported:
    async with books.database.transaction() as session:
        return await import_statement(session, books.operator, entries, books.tenants.ids, books.tenants.clock)


async def queue(books: Invoiced) -> list[str]:
    async with books.database.reading() as session:
        return [each.entry.key for each in await waiting_entries(session)]


async def test_what_is_sure_pays_and_the_same_file_twice_changes_nothing(books: Invoiced) -> None:
    one, two = await books.invoice("FR-2026-1"), await books.invoice("FR-2026-2", 5_000)
    entries = [
        booking("1", 10_000, "Facture FR-2026-1"),
        booking("2", 4_000, creditor_reference=creditor_reference("FR-2026-2")),
        booking("3", 777, "no idea"),
        booking("4", -1_234, "Account fee"),
    ]
    assert await imported(books, *entries) == Imported(entries=4, known=0, paid=2, waiting=2)
    assert (await books.state(one), await books.state(two), await books.owed_minor()) == ("paid", "final", 1_000)
    assert set(await queue(books)) == {"3", "4"}
    before = await books.snapshot()
    assert await imported(books, *entries) == Imported(entries=4, known=4, paid=0, waiting=0)
    assert await imported(books, *entries[1:], booking("5", 1)) == Imported(entries=4, known=3, paid=0, waiting=1)
    assert await books.snapshot() == before
    assert await books.sound()


async def test_a_known_booking_with_other_content_is_refused(books: Invoiced) -> None:
    await imported(books, booking("1", 10))
    with pytest.raises(Conflict) as refused:
        await imported(books, booking("1", 11))
    assert refused.value.code == "statement_changed"


async def test_an_invoice_paid_twice_leaves_credit_and_a_known_payer_is_enough(books: Invoiced) -> None:
    await books.invoice("FR-2026-1")
    await imported(books, booking("1", 12_000, "FR-2026-1"))
    assert await books.owed_minor() == -2_000
    later = await books.invoice("FR-2026-2", 4_321)
    assert (await imported(books, booking("2", 4_321, "thanks"))).paid == 1
    assert await books.state(later) == "paid"


async def test_one_transfer_for_two_customers_waits(books: Invoiced) -> None:
    await books.invoice("FR-2026-1", 100)
    await books.invoice("FR-2026-2", 100, owner=books.operator.organisation_id)
    assert (await imported(books, booking("1", 200, "FR-2026-1 and FR-2026-2"))).waiting == 1
    async with books.database.reading() as session:
        (waiting,) = await waiting_entries(session)
    assert (waiting.outcome, len(waiting.candidates)) == ("ambiguous", 2)


async def test_a_person_assigns_or_sets_aside_each_once(books: Invoiced) -> None:
    invoice = await books.invoice("FR-2026-1")
    await imported(books, booking("1", 10_000, "??"), booking("2", -5, "fee"), booking("3", 9, "for my cousin"))
    parts = (books.tenants.ids, books.tenants.clock)
    async with books.database.reading() as session:
        by_key = {each.entry.key: each.id for each in await waiting_entries(session)}
    async with books.database.transaction() as session:
        paid = await assign_entry(session, books.operator, by_key["1"], (books.organisation_id, (invoice,)), parts)
        await set_entry_aside(session, books.operator, by_key["2"], "account fee", parts[1])
    assert (paid.allocated_minor, await books.state(invoice), await queue(books)) == (10_000, "paid", ["3"])
    for entry_id, error in ((by_key["1"], Conflict), (by_key["2"], Conflict), ("none", Exception)):
        with pytest.raises(error):
            async with books.database.transaction() as session:
                await assign_entry(session, books.operator, entry_id, (books.organisation_id, ()), parts)
    assert len(await books.tenants.journal("payments.set_aside")) == 1
    await imported(books, booking("4", -9))
    async with books.database.reading() as session:
        out = next(each.id for each in await waiting_entries(session) if each.entry.key == "4")
    with pytest.raises(BadRequest):
        async with books.database.transaction() as session:
            await assign_entry(session, books.operator, out, (books.organisation_id, ()), parts)


async def test_over_http_the_operator_imports_assigns_and_refunds(server: Server, books: Invoiced) -> None:
    invoice = await books.invoice("FR-2026-77", 50_452)
    answer = await server.client.post("/v1/admin/payments/imports", content=STATEMENT.read_bytes())
    assert answer.json() == {"object": "payments.import", "entries": 4, "known": 0, "paid": 0, "waiting": 4}
    waiting = (await server.get("/v1/admin/payments/waiting", limit=3))["data"]
    entry = next(each for each in waiting if each["amount"] == "504.52")
    body = {"organisation_id": books.organisation_id, "invoice_ids": [invoice]}
    payment = (await server.client.post(f"/v1/admin/payments/waiting/{entry['id']}", json=body)).json()
    assert (payment["amount"], payment["free"]) == ("504.52", "0.00")
    refunds = f"/v1/admin/payments/{payment['id']}/refunds"
    wish: dict[str, Any] = {"request_id": "r", "amount": "504.53", "reason": "all of it"}
    refused = await server.client.post(refunds, json=wish)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "refund_above_capture")
    done = await server.client.post(refunds, json=wish | {"amount": "504.52"})
    assert (done.status_code, done.json()["refunded"], await books.state(invoice)) == (200, "504.52", "final")
    aside = f"/v1/admin/payments/waiting/{waiting[-1]['id']}"
    assert (await server.client.post(aside, json={"set_aside": "a fee"})).status_code == 200
    assert (await server.client.post(aside, json={})).status_code == 400
    for bad in ("1e2", "-1", "0", "1.001", "NaN", " 1"):
        assert (await server.client.post(refunds, json=wish | {"amount": bad})).status_code == 400
    recorded = {"organisation_id": books.organisation_id, "reference": "cheque 1", "currency": "EUR", "amount": "1.50"}
    made = await server.client.post("/v1/admin/payments", json=recorded | {"received_on": "2026-11-24"})
    assert (made.status_code, made.json()["free"]) == (201, "1.50")


async def test_over_http_customers_see_their_own_payments_and_record_none(server: Server, books: Invoiced) -> None:
    mine = await books.pay(10)
    server.actor = replace(books.tenants.stranger, permissions=ROLE_PERMISSIONS[Role.BILLING])
    assert [each["id"] for each in (await server.get("/v1/payments"))["data"]] == [mine.id]
    assert (await server.get(f"/v1/payments/{mine.id}"))["amount"] == "0.10"
    assert (await server.client.post("/v1/admin/payments/imports", content=b"")).status_code == 403
    server.actor = replace(books.tenants.operator, permissions=ROLE_PERMISSIONS[Role.BILLING])
    assert await server.status(f"/v1/payments/{mine.id}") == 404


def test_the_commands_do_the_same(books: Invoiced, database_url: str) -> None:
    environment = {"GALERNE_DATABASE_URL": database_url}

    def run(*arguments: str) -> Any:
        shown = CliRunner().invoke(
            payments_command.app, [*arguments, "--json"], env=environment, catch_exceptions=False
        )
        return json.loads(shown.output)

    assert run("import", str(STATEMENT))["queue"] == 4
    assert run("import", str(STATEMENT))["known"] == 4
    ids = [each["id"] for each in run("waiting") if not each["amount"].startswith("-")]
    assert run("assign", ids[0], books.organisation_id)["allocated"] == "0.00"
    assert run("set-aside", ids[1], "a gift")["id"] == ids[1]
    reference = ("--reference", "c1", "--currency", "EUR")
    made = run("record", books.organisation_id, "5.00", *reference)
    assert run("record", books.organisation_id, "5.00", *reference) == made
    wish = ("--reason", "wrong", "--request-id", "r1")
    assert run("refund", made["id"], "2.00", *wish)["free"] == "3.00"
    assert len(run("list")) == 2
    assert (
        "wait for a person"
        in CliRunner().invoke(payments_command.app, ["import", str(STATEMENT)], env=environment).output
    )
