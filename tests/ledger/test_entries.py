"""Journal entries with several legs, and the one rounding."""

from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.kernel import BadRequest, Conflict, Database, NotFound
from galerne.ledger import (
    AccountKind,
    BookEntry,
    InsufficientFunds,
    Leg,
    half_even,
    house_account,
    organisation_account,
    post_entry,
    post_entry_script,
)
from tests.ledger.ledgers import CASH, DOLLARS, NOON, PREPAID, REVENUE, fund, problems, read, run, sums

RECEIVABLE = organisation_account(AccountKind.RECEIVABLE, "org-1", "EUR")
TAX = house_account(AccountKind.TAX_PAYABLE, "EUR")
ROUNDING = house_account(AccountKind.ROUNDING, "EUR")
INVOICE = BookEntry(
    id="invoice-1",
    debits=[Leg(RECEIVABLE.id, 119), Leg(ROUNDING.id, 1)],
    credits=[Leg(REVENUE.id, 100), Leg(TAX.id, 20)],
    at=NOON,
    reason="invoice 1",
)


async def post(database: Database, entry: BookEntry = INVOICE) -> bool:
    async with database.transaction() as session:
        return await post_entry(session, entry, [RECEIVABLE, TAX, ROUNDING, REVENUE])


async def test_an_entry_moves_all_its_legs_once(database: Database) -> None:
    assert await post(database) is True
    assert await post(database) is False
    assert await sums(database, RECEIVABLE) == (119, 0, 0, 0)
    assert await sums(database, ROUNDING) == (1, 0, 0, 0)
    assert await sums(database, REVENUE) == (0, 0, 100, 0)
    assert await sums(database, TAX) == (0, 0, 20, 0)
    assert len(await read(database, "SELECT id FROM ledger_transfers")) == 3
    assert await problems(database) == []


@pytest.mark.parametrize(
    "other",
    [
        replace(INVOICE, reason="another"),
        replace(INVOICE, debits=[Leg(RECEIVABLE.id, 118), Leg(ROUNDING.id, 2)]),
        replace(INVOICE, debits=[Leg(RECEIVABLE.id, 100)], credits=[Leg(REVENUE.id, 100)]),
    ],
)
async def test_an_entry_with_the_same_id_and_other_content_is_a_conflict(database: Database, other: BookEntry) -> None:
    await post(database)
    with pytest.raises(Conflict):
        await post(database, other)
    assert await sums(database, RECEIVABLE) == (119, 0, 0, 0)


async def test_an_entry_that_cannot_be_moves_nothing(database: Database) -> None:
    await fund(database, 100)
    refused = {
        InsufficientFunds: BookEntry(
            id="e", debits=[Leg(CASH.id, 5), Leg(PREPAID.id, 101)], credits=[Leg(REVENUE.id, 106)], at=NOON, reason="x"
        ),
        BadRequest: BookEntry(
            id="e", debits=[Leg(CASH.id, 5)], credits=[Leg(REVENUE.id, 4), Leg(DOLLARS.id, 1)], at=NOON, reason="x"
        ),
        NotFound: BookEntry(id="e", debits=[Leg(CASH.id, 5)], credits=[Leg("none", 5)], at=NOON, reason="x"),
    }
    for error, entry in refused.items():
        with pytest.raises(error):
            await run(database, post_entry_script(entry))
    assert await sums(database, CASH) == (100, 0, 0, 0)


@pytest.mark.parametrize(
    ("debits", "others"),
    [
        ([("a", 1)], [("b", 2)]),
        ([("a", 1)], [("a", 1)]),
        ([("a", 1), ("a", 1)], [("b", 2)]),
        ([("a", 0)], [("b", 0)]),
        ([("a", -1)], [("b", -1)]),
        ([], []),
        ([("a", 2**62)], [("b", 2**62)]),
    ],
)
def test_an_entry_balances_and_names_each_account_once(
    debits: list[tuple[str, int]], others: list[tuple[str, int]]
) -> None:
    sides = ([Leg(*each) for each in side] for side in (debits, others))
    with pytest.raises(BadRequest):
        BookEntry(id="e", debits=next(sides), credits=next(sides), at=NOON, reason="x")


def legs(side: str, amounts_nano: list[int]) -> list[Leg]:
    return [Leg(f"{side}{number}", nano) for number, nano in enumerate(amounts_nano)]


amounts = st.lists(st.integers(1, 50), min_size=1, max_size=8)


@given(amounts, amounts)
def test_the_transfers_of_an_entry_have_its_effect(debits: list[int], others: list[int]) -> None:
    difference = sum(debits) - sum(others)
    (others if difference > 0 else debits).append(abs(difference) or 1)
    if not difference:
        others.append(1)
    entry = BookEntry(id="e", debits=legs("d", debits), credits=legs("c", others), at=NOON, reason="x")
    moved: dict[str, int] = {}
    for _, _, debit, credit, nano, _ in entry.transfers():
        assert nano > 0
        moved[debit] = moved.get(debit, 0) + nano
        moved[credit] = moved.get(credit, 0) + nano
    assert moved == {leg.account_id: leg.nano for leg in (*entry.debits, *entry.credits)}
    assert len(entry.transfers()) < len(moved)


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**15))
def test_money_is_rounded_to_the_nearest_and_halves_to_even(numerator: int, denominator: int) -> None:
    rounded = half_even(numerator, denominator)
    assert 2 * abs(rounded * denominator - numerator) <= denominator
    if 2 * abs(rounded * denominator - numerator) == denominator:
        assert rounded % 2 == 0


@given(st.integers(-(10**12), 10**12))
def test_the_rounding_is_that_of_decimals(numerator: int) -> None:
    assert half_even(numerator, 1000) == int((Decimal(numerator) / 1000).quantize(Decimal(1), ROUND_HALF_EVEN))
