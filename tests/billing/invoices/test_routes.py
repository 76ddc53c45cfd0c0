"""Invoices over HTTP and at the command line: who sees what, and documents that are the same every time."""

import asyncio
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from galerne.billing.documents.cii import to_cii
from galerne.billing.documents.pdf import extract_xml
from galerne.billing.documents.validation import Finding
from galerne.billing.invoices import frozen_document, invoices_router, routes
from galerne.governance import ROLE_PERMISSIONS, SYSTEM, Actor, Permission, Role
from tests.apps.test_tenant_commands import Run, printed, run
from tests.billing.invoices.customers import House
from tests.journal.serving import Server

__all__ = ["run"]
MILLION = 1_000_000
ADDRESS = {"line1": "1 place Royale", "city": "Nantes", "postcode": "44000", "country": "FR"}


def admin(organisation_id: str) -> Actor:
    return replace(SYSTEM, organisation_id=organisation_id, permissions=ROLE_PERMISSIONS[Role.ORGANIZATION_ADMIN])


async def test_a_customer_reads_its_own_invoices_and_nobody_elses(house: House) -> None:
    mine, other = await house.customer("mine"), await house.customer("other")
    for each in (mine, other):
        await house.use(each, (MILLION, 0, MILLION))
    await house.close()
    server = Server(invoices_router, house.database, house.clock, admin(mine))
    listed = await server.get("/v1/invoices")
    assert [each["number"] for each in listed["data"]] == ["FR-2026-000001"]
    (invoice,) = await house.invoices(mine)
    found = await server.get(f"/v1/invoices/{invoice.id}")
    assert [line["amount"] for line in found["lines"]] == ["0.40", "1.60"]
    assert [each["kind"] for each in found["history"]] == ["drafted", "finalised"]
    pdf = await server.client.get(f"/v1/invoices/{invoice.id}.pdf")
    xml = await server.client.get(f"/v1/invoices/{invoice.id}.xml")
    assert pdf.content.startswith(b"%PDF-")
    assert extract_xml(pdf.content) == xml.content
    async with house.database.reading() as session:
        assert xml.content == to_cii((await frozen_document(session, SYSTEM, invoice.id)).document)
    (hidden,) = await house.invoices(other)
    for path in ("", ".pdf", ".xml"):
        assert await server.status(f"/v1/invoices/{hidden.id}{path}") == 404
    for path in ("finalise", "void", "credit-notes", "sent"):
        answer = await server.client.post(f"/v1/admin/invoices/{invoice.id}/{path}", json={"reason": "mine"})
        assert answer.status_code in (403, 422)
    server.actor = replace(server.actor, permissions=frozenset({Permission.USAGE_READ}))
    assert await server.status("/v1/invoices") == 403


async def test_a_customer_changes_its_address_and_not_what_the_operator_decides(house: House) -> None:
    customer = await house.customer("mine", exemption_code="VATEX-EU-151", exemption_reason="why", payment_days=10)
    server = Server(invoices_router, house.database, house.clock, admin(customer))
    body: dict[str, Any] = {"name": "Mine SA", "address": ADDRESS, "is_business": True, "language": "fr"}
    answer = await server.client.put("/v1/admin/billing-profile", json=body)
    assert answer.status_code == 200, answer.text
    found = await server.get("/v1/admin/billing-profile")
    kept = ("name", "language", "issuer_id", "exemption_code", "payment_days")
    assert [found[name] for name in kept] == ["Mine SA", "fr", "fr", "VATEX-EU-151", 10]
    for wrong in ({"issuer_id": "de"}, {"exemption_code": ""}, {"address": ADDRESS | {"country": "France"}}):
        assert (await server.client.put("/v1/admin/billing-profile", json=body | wrong)).status_code in (400, 422)
    answer = await server.client.put(f"/v1/admin/billing-profiles/{customer}", json=body | {"issuer_id": "fr"})
    assert answer.status_code == 403


def test_the_operator_sets_issuers_and_profiles_and_closes_months(run: Run, tmp_path: Path) -> None:
    issuer, profile = tmp_path / "issuer.json", tmp_path / "profile.json"
    issuer.write_text(json.dumps({"name": "Galerne SAS", "address": ADDRESS, "prefix": "FR"}))
    assert printed(run, "billing", "issuer", "fr", str(issuer))["prefix"] == "FR"
    issuer.write_text(json.dumps({"name": "Galerne SAS", "address": ADDRESS, "prefix": "XX"}))
    assert run("billing", "issuer", "fr", str(issuer))[0] == 1
    assert [each["id"] for each in printed(run, "billing", "issuers")] == ["fr"]
    made = printed(run, "organisations", "create", "Banque X")
    profile.write_text(json.dumps({"name": "X", "address": ADDRESS, "is_business": True, "issuer_id": "fr"}))
    assert printed(run, "billing", "profile", made["id"], str(profile))["issuer_id"] == "fr"
    assert printed(run, "billing", "profile", made["id"])["name"] == "X"
    for _ in range(2):
        report = printed(run, "billing", "close", "2026-10")
        assert (report["invoices"], report["done"]) == (0, True)
    code, out, _ = run("billing", "close", "2026-10")
    assert (code, out) == (0, "2026-10: 0 invoices, 0 with nothing to pay.\n")
    code, _, err = run("billing", "close", "2999-01")
    assert (code, "is no month" in err) == (1, True)
    assert run("billing", "close", "2026-12")[0] == 1
    assert "Nothing was written" in run("billing", "close", "2026-12", "--dry-run")[1]
    asked = ("invoices", "top-up", made["id"], "12.50", "--request-id", "t")
    draft = printed(run, *asked)
    assert (draft["state"], draft["id"]) == ("draft", printed(run, *asked)["id"])
    assert [each["id"] for each in printed(run, "invoices", "list")] == [draft["id"]]
    assert printed(run, "invoices", "show", draft["id"])["lines"][0]["amount"] == "12.50"
    assert run("invoices", "pdf", draft["id"])[0] == 1


async def test_others_are_answered_while_an_invoice_is_checked(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    customer = await house.customer("mine")
    loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def slow(_xml: bytes) -> list[Finding]:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(8), "nobody could be answered meanwhile"
        return []

    monkeypatch.setattr(routes, "check_once", slow)
    operator = Server(invoices_router, house.database, house.clock, SYSTEM)
    asked = {"organization_id": customer, "amount": "12.50", "currency": "EUR", "request_id": "t"}
    draft = (await operator.client.post("/v1/admin/invoices/top-ups", json=asked)).json()
    path = f"/v1/admin/invoices/{draft['id']}/finalise"
    many = 8  # more than there are connections
    finalising = [asyncio.create_task(operator.client.post(path)) for _ in range(many)]
    await begun.wait()
    server = Server(invoices_router, house.database, house.clock, admin(customer))
    assert [each["state"] for each in (await server.get("/v1/invoices"))["data"]] == ["draft"]
    body = {"name": "Mine", "address": ADDRESS, "is_business": True}
    written = await operator.client.put(f"/v1/admin/billing-profiles/{customer}", json=body | {"issuer_id": "fr"})
    assert written.status_code == 200, "the database is not held either"
    assert not any(task.done() for task in finalising)
    go_on.set()
    refused = [(await task).status_code for task in finalising]
    assert refused == [409] * many, "the profile changed: it is not what was checked"
    final, again = [await operator.client.post(path) for _ in range(2)]
    assert (final.json()["state"], final.json()["number"]) == ("final", again.json()["number"])


async def test_others_are_answered_while_pdfs_are_set(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    customer = await house.customer("mine")
    await house.use(customer, (MILLION, 0, MILLION))
    await house.close()
    (invoice,) = await house.invoices(customer)
    loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def slow(*_document: object) -> bytes:
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(8), "nobody could be answered meanwhile"
        return b"%PDF-"

    monkeypatch.setattr(routes, "to_pdf", slow)
    server = Server(invoices_router, house.database, house.clock, admin(customer))
    many = 6  # one more than there are connections
    setting = [asyncio.create_task(server.client.get(f"/v1/invoices/{invoice.id}.pdf")) for _ in range(many)]
    await begun.wait()
    await asyncio.sleep(0.1)  # the others begin too
    assert [each["id"] for each in (await server.get("/v1/invoices"))["data"]] == [invoice.id]
    go_on.set()
    assert [(await task).status_code for task in setting] == [200] * many


@pytest.mark.timeout(60)  # the process that validates starts, and PDFs are set
def test_a_draft_is_finalised_by_the_real_rules_and_written_as_pdf_and_xml(run: Run, tmp_path: Path) -> None:
    issuer, profile = tmp_path / "issuer.json", tmp_path / "profile.json"
    seller = {"name": "Galerne SAS", "address": ADDRESS, "prefix": "FR", "vat_id": "FR40303265045"}
    issuer.write_text(json.dumps(seller | {"iban": "FR7630006000011234567890189"}))
    printed(run, "billing", "issuer", "fr", str(issuer))
    made = printed(run, "organisations", "create", "Banque X")
    profile.write_text(json.dumps({"name": "X", "address": ADDRESS, "is_business": True, "issuer_id": "fr"}))
    printed(run, "billing", "profile", made["id"], str(profile))
    draft = printed(run, "invoices", "top-up", made["id"], "12.50", "--request-id", "t")
    final = printed(run, "invoices", "finalise", draft["id"])
    assert (final["state"], final["total"]) == ("final", "15.00")
    for kind in ("pdf", "xml"):
        target = tmp_path / f"invoice.{kind}"
        assert run("invoices", kind, draft["id"], "--output", str(target))[0] == 0
    assert extract_xml((tmp_path / "invoice.pdf").read_bytes()) == (tmp_path / "invoice.xml").read_bytes()
    number = str(final["number"])
    assert printed(run, "invoices", "show", number)["id"] == draft["id"]
    assert run("invoices", "pdf", number, "--output", str(tmp_path / "named.pdf"))[0] == 0
    assert (tmp_path / "named.pdf").read_bytes() == (tmp_path / "invoice.pdf").read_bytes()
    code, _, err = run("invoices", "show", "FR-1999-000001")
    assert (code, "There is no invoice 'FR-1999-000001'" in err) == (1, True)
    note = printed(run, "invoices", "credit-note", number, "--reason", "r", "--request-id", "c", "--net", "2.50")
    assert (note["kind"], note["state"]) == ("credit_note", "draft")
    assert printed(run, "invoices", "sent", number)["open"] == "15.00"
    assert printed(run, "invoices", "void", draft["id"], "--reason", "r")["state"] == "void"
