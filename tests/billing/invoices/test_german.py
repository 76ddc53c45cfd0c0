"""An invoice to a German authority is an XRechnung: refused without a number until what Germany asks for is set."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from galerne.billing.documents.cii_names import XRECHNUNG
from galerne.billing.documents.document import Address, Contact, Identifier
from galerne.billing.documents.validation import Finding, check_once
from galerne.billing.invoices import (
    CloseOrder,
    Crediting,
    Issuer,
    draft_credit_note,
    draft_fields,
    finalise_checked,
    frozen_document,
    preview_close,
    set_issuer,
    thaw,
)
from galerne.billing.proof.statement import Frozen
from galerne.billing.rating.service import rate_batch
from galerne.governance import SYSTEM
from galerne.kernel import Unprocessable
from tests.billing.invoices.customers import ISSUER, House, fine

BERLIN = Address(line1="Musterweg 1", city="Berlin", postcode="10115", country="DE")
LEITWEG = "04011000-1234512345-06"
AUTHORITY: dict[str, Any] = {
    "address": BERLIN,
    "vat_id": "DE136695976",
    "electronic_address": Identifier(value=LEITWEG, scheme="0204"),
    "buyer_reference": LEITWEG,
}
GERMAN_ISSUER = replace(
    ISSUER,
    electronic_address=Identifier(value="303265045", scheme="0225"),
    contact=Contact(name="Comptabilité", phone="+33 2 40 00 00 00", email="billing@galerne.example"),
)


async def issued_by(house: House, issuer: Issuer) -> None:
    async with house.database.transaction() as session:
        await set_issuer(session, SYSTEM, issuer, house.clock)


async def authority(house: House, **changes: Any) -> str:
    customer = await house.customer("Bundesamt", **(AUTHORITY | changes))
    await house.use(customer, (1_000_000, 0, 0))
    return customer


async def test_what_an_authoritys_invoice_lacks_is_named_and_nothing_is_numbered(house: House) -> None:
    customer, other = await authority(house, buyer_reference=""), await house.customer("other")
    await house.use(other, (1_000_000, 0, 0))
    report = await house.close()
    for said in (
        "set contact of the issuer (BR-DE-2)",
        "set contact.phone of the issuer (BR-DE-6)",
        "set electronic_address of the issuer (PEPPOL-EN16931-R010/R020)",
        "of the billing profile (BR-DE-15)",
    ):
        assert said in report.refused[customer]
    assert "electronic_address of the billing profile" not in report.refused[customer]
    states = {each.organisation_id: (each.state, each.number) for each in await house.invoices()}
    assert states == {customer: ("draft", None), other: ("final", "FR-2026-000001")}
    (draft,) = await house.invoices(customer)
    with pytest.raises(Unprocessable) as refused:
        await finalise_checked(house.database, SYSTEM, draft.id, fine, house.clock)
    assert refused.value.code == "xrechnung_incomplete"


async def test_once_all_is_set_it_is_issued_as_an_xrechnung_and_so_is_its_credit_note(house: House) -> None:
    seen = list[bytes]()

    def check(xml: bytes) -> list[Finding]:
        seen.append(xml)
        return []

    customer = await authority(house)
    await issued_by(house, GERMAN_ISSUER)
    assert (await house.close(parts=house.parts(check=check))).is_done
    (invoice,) = await house.invoices(customer)
    asked = Crediting(invoice_id=invoice.id, reason="why", request_id="k-1", net_minor=10)
    async with house.database.transaction() as session:
        note = await draft_credit_note(session, SYSTEM, asked, house.ids, house.clock)
    note = await finalise_checked(house.database, SYSTEM, note.id, check, house.clock)
    assert (invoice.number, note.number) == ("FR-2026-000001", "FR-C-2026-000001")
    assert len(seen) == 2
    assert all(XRECHNUNG.encode() in xml for xml in seen)
    async with house.database.reading() as session:
        frozen = await frozen_document(session, SYSTEM, invoice.id)
    assert frozen.flavour == "xrechnung"
    assert thaw(frozen.text()) == frozen
    assert msgspec.json.decode(frozen.text(), type=Frozen).flavour == "xrechnung"


async def test_other_invoices_say_nothing_of_a_flavour_so_that_old_verifiers_read_them(house: House) -> None:
    customer = await house.customer("other")
    await house.use(customer, (1_000_000, 0, 0))
    await house.close()
    (invoice,) = await house.invoices(customer)
    async with house.database.reading() as session:
        frozen = await frozen_document(session, SYSTEM, invoice.id)
    assert "flavour" not in frozen.text()
    assert thaw(frozen.text()) == frozen


@pytest.mark.parametrize(
    ("changes", "flavour"),
    [
        ({}, "xrechnung"),
        ({"electronic_address": Identifier(value="a@bfb.example", scheme="EM")}, "xrechnung"),
        ({"electronic_address": Identifier(value="a@b.example", scheme="EM"), "buyer_reference": "PO 7"}, "factur-x"),
        ({"electronic_address": None, "address": replace(BERLIN, country="FR"), "vat_id": ""}, "factur-x"),
    ],
)
async def test_a_leitweg_id_decides_whether_it_is_an_xrechnung(
    house: House, changes: dict[str, Any], flavour: str
) -> None:
    customer = await authority(house, **changes)
    await issued_by(house, GERMAN_ISSUER)
    await house.close()
    (invoice,) = await house.invoices(customer)
    async with house.database.reading() as session:
        assert (await frozen_document(session, SYSTEM, invoice.id)).flavour == flavour


async def test_a_document_that_was_kept_before_there_were_flavours_stays_as_it_was_issued(house: House) -> None:
    customer = await authority(house)
    await issued_by(house, GERMAN_ISSUER)
    await house.close()
    (invoice,) = await house.invoices(customer)
    async with house.database.reading() as session:
        frozen = await frozen_document(session, SYSTEM, invoice.id)
    assert thaw(frozen.text().replace('"flavour":"xrechnung",', "")).flavour == "factur-x"


async def test_a_preview_says_what_is_missing_before_anything_is_drafted(house: House) -> None:
    customer = await authority(house, buyer_reference="")
    async with house.database.transaction() as session:
        await rate_batch(session, house.clock, "")
    (draft,) = [draft async for draft in preview_close(house.database, CloseOrder(period="2026-10"))]
    missing = draft_fields(draft)["missing"]
    assert isinstance(missing, list)
    assert "set contact of the issuer (BR-DE-2)" in missing
    await issued_by(house, GERMAN_ISSUER)
    (draft,) = [draft async for draft in preview_close(house.database, CloseOrder(period="2026-10"))]
    assert [each.rpartition(" ")[2] for each in draft.missing] == ["(BR-DE-15)"]
    assert await house.invoices(customer) == []


async def test_the_real_rules_take_what_is_issued_to_an_authority(house: House) -> None:
    customer = await authority(house)
    await issued_by(house, GERMAN_ISSUER)
    report = await house.close(parts=house.parts(check=check_once))
    assert report.refused == {}
    assert [each.number for each in await house.invoices(customer)] == ["FR-2026-000001"]
