"""Real invoices, made by the code that serves, rates, closes and signs: proved, and page by page the same."""

import pytest

from galerne.billing import Counts, NewRates, correct_usage, set_rates
from galerne.billing.documents.validation import Finding
from galerne.billing.invoice_usage import open_proof, requests_of
from galerne.governance import SYSTEM, Actor, ActorKind
from galerne.kernel import Conflict, Ids, NotFound
from tests.billing.invoice_usage.houses import NOVEMBER_3, Installation, checked, said

DAYS = [(1200, 0, 80), (1, 1, 1), (1999, 501, 777), (0, 0, 7), (10**6, 10**5, 10**4)]


async def test_an_invoice_of_a_month_is_proved(served: Installation) -> None:
    own = await served.house.customer("Erdre")
    other = await served.house.customer("Loire")
    await served.serve(own, *DAYS)
    await served.serve(other, *DAYS)
    await served.serve(own, *DAYS, tier="batch")
    await served.house.close()
    keys = await served.sign()
    for organisation_id, count in ((own, 10), (other, 5)):
        (invoice,) = await served.house.invoices(organisation_id)
        found = checked(await served.proof(invoice.id), keys)
        assert said(found) == []
        assert (found.requests, found.late) == (count, 0)
        assert found.statement is not None
        assert found.statement.frozen.document.totals.due_minor == invoice.due_minor


async def test_late_and_corrected_requests_are_proved_on_the_invoice_that_bills_them(served: Installation) -> None:
    own = await served.house.customer("Erdre")
    names = await served.serve(own, *DAYS)
    clock = served.house.clock
    await served.rate()
    async with served.house.database.transaction() as session:
        await correct_usage(session, SYSTEM, names[2], Counts(1000, 500, 700), "counted twice", clock)
    await served.house.close()
    await served.serve(own, (5000, 0, 500))  # of October, written in November
    await served.serve(own, *DAYS, at=NOVEMBER_3)
    clock.current = NOVEMBER_3
    await served.rate()
    async with served.house.database.transaction() as session:
        await correct_usage(session, SYSTEM, names[4], Counts(10**5, 10**5, 10**4), "not ours", clock)
        await correct_usage(session, SYSTEM, names[4], Counts(10**5, 10**4, 10**4), "nor cached", clock)
        await correct_usage(session, SYSTEM, names[1], None, "a test", clock)
        await correct_usage(session, SYSTEM, names[2], Counts(1000, 500, 701), "one was missing", clock)
    clock.current = NOVEMBER_3.replace(month=12)
    await served.house.close("2026-11")
    keys = await served.sign()
    october, november = sorted(await served.house.invoices(own), key=lambda each: each.period or "")
    found = checked(await served.proof(october.id), keys)
    assert (said(found), found.requests, found.late) == ([], 5, 0)
    found = checked(await served.proof(november.id), keys)
    assert (said(found), found.requests, found.late) == ([], 9, 4)


async def test_a_page_after_the_other_gives_the_same_requests(served: Installation) -> None:
    own = await served.house.customer("Erdre")
    await served.serve(own, *DAYS)
    await served.house.close()
    await served.sign()
    (invoice,) = await served.house.invoices(own)
    async with served.house.database.reading() as session:
        opened = await open_proof(session, SYSTEM, invoice.id)
        whole = await requests_of(session, opened)
        parts, after, more = list(whole.requests[:0]), "", True
        while more:
            page = await requests_of(session, opened, after, limit=2)
            parts += page.requests
            after, more = page.requests[-1].event_id, page.more
    assert parts == whole.requests
    assert len(parts) == len(DAYS)


async def test_prices_that_change_within_a_month_are_each_proved(served: Installation) -> None:
    own = await served.house.customer("Erdre")
    await served.serve(own, *DAYS)
    async with served.house.database.transaction() as session:
        prices = NewRates(
            currency="EUR",
            input_nano_per_million=123_456_789,
            cached_nano_per_million=7,
            output_nano_per_million=1_234_567_891,
            effective_from=NOVEMBER_3.replace(month=10),
        )
        await set_rates(session, SYSTEM, "large", prices, Ids(), served.house.clock)
    await served.serve(own, *DAYS, at=NOVEMBER_3.replace(month=10, day=4))
    await served.house.close()
    keys = await served.sign()
    (invoice,) = await served.house.invoices(own)
    found = checked(await served.proof(invoice.id), keys)
    assert (said(found), found.requests) == ([], 10)


async def test_only_an_invoice_that_is_issued_signed_and_ones_own_is_proved(served: Installation) -> None:
    own, other = await served.house.customer("Erdre"), await served.house.customer("Loire")
    await served.serve(own, *DAYS)
    await served.house.close()
    (invoice,) = await served.house.invoices(own)
    with pytest.raises(NotFound) as refused:
        await served.proof(invoice.id)
    assert refused.value.code == "not_yet_signed"
    await served.sign()
    assert await served.proof(invoice.id, Actor(ActorKind.USER, "me", own, None))
    for actor in (Actor(ActorKind.USER, "you", other, None), Actor(ActorKind.USER, "you", "", None)):
        with pytest.raises(NotFound):
            await served.proof(invoice.id, actor)


async def test_a_draft_has_no_proof(served: Installation) -> None:
    own = await served.house.customer("Erdre")
    await served.serve(own, *DAYS)

    def broken(_xml: bytes) -> list[Finding]:
        return [Finding("BR-99", "/", "is wrong", "fatal")]

    await served.house.close(parts=served.house.parts(check=broken))
    await served.sign()
    (invoice,) = await served.house.invoices(own)
    with pytest.raises(Conflict):
        await served.proof(invoice.id)
