"""What credit has paid in full has no number, and its customer can prove it all the same."""

import json
from collections.abc import Callable

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import DBAPIError

from galerne.billing.invoices import Invoice, frozen_document
from galerne.billing.invoices.tables import EmptyInvoiceRow
from galerne.governance import SYSTEM
from galerne.kernel import Conflict
from tests.billing.invoice_usage.houses import Installation, checked, said
from tests.billing.invoice_usage.test_making import DAYS
from tests.billing.invoice_usage.test_tampering import ANYWHERE
from tests.billing.proof import test_verification as tampered
from tests.billing.proof.test_verification import Fields

NANO = (400, 40, 1600)  # a token of each class
SKIPPED = (tampered.change_vat, tampered.change_the_tax)  # there is no tax on nothing


async def paid_by_credit(served: Installation, *counts: tuple[int, int, int]) -> Invoice:
    own = await served.house.customer("Prepaid")
    await served.house.grant(own, 10**13)
    names = await served.serve(own, *counts)
    nano = [sum(count * price for count, price in zip(each, NANO, strict=True)) for each in counts]
    await served.house.settle(own, dict(zip(names, nano, strict=True)))
    await served.house.close()
    (invoice,) = await served.house.invoices(own)
    assert (invoice.state, invoice.number, invoice.due_minor) == ("empty", None, 0)
    return invoice


async def test_usage_that_credit_paid_is_proved_request_by_request(served: Installation) -> None:
    invoice = await paid_by_credit(served, *DAYS)
    keys = await served.sign()
    found = checked(await served.proof(invoice.id), keys)
    assert (said(found), found.requests, found.entries) == ([], len(DAYS), invoice.usage_size)
    assert found.statement is not None
    assert found.statement.frozen.document.totals.due_minor == 0
    assert found.statement.frozen.is_empty


async def test_it_is_refused_once_anything_in_it_was_changed(served: Installation) -> None:
    other = await served.house.customer("Loire")
    await served.serve(other, *DAYS)
    invoice = await paid_by_credit(served, *DAYS, *DAYS)
    keys = await served.sign()
    sound = await served.proof(invoice.id)
    (foreign,) = await served.house.invoices(other)
    final: Fields = json.loads(await served.proof(foreign.id))

    def after(tamper: Callable[[Fields], object]) -> set[str]:
        fields: Fields = json.loads(sound)
        tamper(fields)
        found = checked(json.dumps(fields).encode(), keys)
        assert not found.proved
        return {each.rule for each in found.findings.kept}

    missed = {
        tamper.__name__: after(tamper)
        for tamper, rule in ANYWHERE.items()
        if tamper not in SKIPPED and rule not in after(tamper)
    }
    assert missed == {}
    assert "finalised" in after(lambda fields: fields.__setitem__("issued", final["issued"]))
    assert "finalised" in after(lambda fields: fields["invoice"].__setitem__("invoice_id", "0" * 32))

    def ask_for_money(fields: Fields) -> None:
        lines = fields["invoice"]["document"]["draft"]["lines"]
        del lines[-1], fields["lines"][-1]

    assert {"finalised", "total"} <= after(ask_for_money)


async def test_what_it_says_is_kept_and_never_changes(served: Installation) -> None:
    invoice = await paid_by_credit(served, *DAYS)
    for change in (delete(EmptyInvoiceRow), update(EmptyInvoiceRow).values(document="{}")):
        with pytest.raises(DBAPIError, match="append-only"):
            async with served.house.database.transaction() as session:
                await session.execute(change)
    async with served.house.database.reading() as session:
        with pytest.raises(Conflict, match="neither number nor document"):
            await frozen_document(session, SYSTEM, invoice.id)
