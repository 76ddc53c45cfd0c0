"""The demonstration: a month of it by the real code, sound afterwards, and by seed the same."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import text

from galerne.apps.demo.__main__ import tell
from galerne.apps.demo.story import CUSTOMERS, Transfer, first_months, requests_of, statement_xml
from galerne.billing import rating_counts
from galerne.billing.invoices import list_invoices
from galerne.billing.payments import list_payments, read_camt053, waiting_entries
from galerne.kernel import Conflict, Database
from galerne.ledger import check_books

MONTH = datetime(2026, 10, 1, tzinfo=UTC)


@pytest.mark.slow_ok("validates invoices in a process of its own, whose start alone takes seconds")
@pytest.mark.timeout(120)
async def test_a_month_is_billed_and_paid_and_leaves_sound_books(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GALERNE_DATABASE_URL", raising=False)
    said: list[str] = []
    begun, counts = await tell(tmp_path, (1, 1, 0.05), said.append)
    assert (counts.invoices, counts.paid, counts.waiting, counts.refused) == (3, 3, 2, 0)
    assert len(said) == 1
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'galerne.db'}")
    try:
        async with database.reading() as session:
            assert await check_books(session) == []
            rated = await rating_counts(session)
            assert (rated["rated"], rated["waiting"], rated["unmatched"]) == (counts.requests, 0, 0)
            invoices = await list_invoices(session, None)
            assert {each.state for each in invoices} == {"paid", "empty"}
            assert len(await list_payments(session, None)) == 3
            assert len(await waiting_entries(session)) == 2
            ada = begun.parties["ada"].id
            query = text("SELECT count(*) FROM ledger_transfers WHERE kind = 'settle' AND debit_account_id LIKE :who")
            used = text("SELECT count(*) FROM usage_events WHERE organisation_id = :who")
            settled = (await session.execute(query, {"who": f"prepaid:{ada}:%"})).scalar()
            assert settled == (await session.execute(used, {"who": ada})).scalar()
        with pytest.raises(Conflict, match="DEMO="):
            await tell(tmp_path, (1, 1, 0.05), said.append)
    finally:
        await database.close()
    assert (tmp_path / "bank" / f"{first_months(date.today(), 1)[1]:%Y-%m}.xml").is_file()  # noqa: DTZ011  # the day that the story ends by


def test_a_seed_tells_one_story_in_the_order_of_time() -> None:
    story = list(requests_of(7, MONTH, 3, 0.1))
    assert story == list(requests_of(7, MONTH, 3, 0.1))
    assert story != list(requests_of(8, MONTH, 3, 0.1))
    assert [each.at for each in story] == sorted(each.at for each in story)
    assert all(each.at.month == 10 for each in story)
    assert {each.customer.name for each in story} == {each.name for each in CUSTOMERS}


def test_the_months_are_whole_and_end_before_this_one() -> None:
    assert first_months(date(2026, 1, 15), 2) == [
        datetime(2025, 11, 1, tzinfo=UTC),
        datetime(2025, 12, 1, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=UTC),
    ]


def test_the_banks_statement_is_read_as_it_was_written() -> None:
    transfers = [
        Transfer("A & B", "DE02120300000000202051", Decimal("12.30"), "Invoice <1>"),
        Transfer("", "", Decimal(-7), "fee"),
    ]
    read = read_camt053(statement_xml("x", date(2026, 10, 2), transfers))
    assert [(each.amount_minor, each.debtor_name, each.remittance) for each in read] == [
        (1230, "A & B", "Invoice <1>"),
        (-700, "", "fee"),
    ]
