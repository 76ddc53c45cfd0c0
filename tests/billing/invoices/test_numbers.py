"""Numbers without gaps however many finalise at once, and invoices that do not depend on how usage came in."""

import asyncio
from datetime import timedelta

from galerne.billing import rate_batch
from galerne.billing.invoices import TopUp, check_document, document_of_draft, draft_top_up, finalise_invoice
from galerne.governance import SYSTEM
from galerne.kernel import InvariantViolated, invariant
from tests.billing.invoices.customers import CLOSING, OCTOBER, House, fine

FINALISERS = 8


async def test_those_who_finalise_at_once_get_numbers_without_a_gap_though_some_fail(house: House) -> None:
    customer = await house.customer("c")
    drafts: list[str] = []
    for number in range(FINALISERS):
        asked = TopUp(organisation_id=customer, amount_nano=10**9, currency="EUR", request_id=f"t{number}")
        async with house.database.transaction() as session:
            drafts.append((await draft_top_up(session, SYSTEM, asked, house.ids, house.clock)).id)

    async def finalise(invoice_id: str, fails: bool) -> None:
        async with house.database.reading() as session:
            frozen = await document_of_draft(session, SYSTEM, invoice_id, CLOSING.date())
        checked = await check_document(frozen, fine)
        async with house.database.transaction() as session:
            await finalise_invoice(session, SYSTEM, invoice_id, checked, house.clock)
            invariant(not fails, "something went wrong after the number was taken")

    # Each is wanted twice at once, and every third fails.
    wishes = [finalise(name, index % 3 == 0) for index, name in enumerate(drafts)]
    wishes += [finalise(name, True) for name in drafts]
    ended = await asyncio.gather(*wishes, return_exceptions=True)
    assert all(each is None or isinstance(each, InvariantViolated) for each in ended), ended
    given = sorted(each.number or "" for each in await house.invoices() if each.number)
    assert given == [f"FR-2026-{number:06d}" for number in range(1, len(given) + 1)]
    await asyncio.gather(*(finalise(name, False) for name in drafts))
    final = sorted(each.number or "" for each in await house.invoices())
    assert final == [f"FR-2026-{number:06d}" for number in range(1, FINALISERS + 1)]
    assert final[: len(given)] == given


async def test_usage_that_comes_permuted_and_is_rated_in_parts_gives_the_same_invoice(house: House) -> None:
    tokens = [(1000 + 7 * number, number, 50_000 - number) for number in range(20)]
    one, other = await house.customer("one"), await house.customer("other")
    await house.use(one, *tokens)
    for part in (tokens[13:], tokens[:5], tokens[5:13]):
        await house.use(other, *reversed(part), at=OCTOBER + timedelta(days=2))
        async with house.database.transaction() as session:
            await rate_batch(session, house.clock, limit=3)
    await house.close()
    first, second = await house.invoices()
    assert (first.net_minor, first.usage_size) == (second.net_minor, second.usage_size)
    lines = [
        [(line.quantity, line.price, line.exact_nano) for line in await house.lines(each.id)]
        for each in (first, second)
    ]
    assert lines[0] == lines[1]
