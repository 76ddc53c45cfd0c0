"""Accounts and postings on both databases, and what the database itself refuses, whoever asks."""

from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from galerne.kernel import BadRequest, Conflict, Database, NotFound, run_in_session
from galerne.ledger import (
    Account,
    AccountKind,
    InsufficientFunds,
    Posting,
    accounts_of,
    all_accounts,
    balance,
    check_books,
    hold_script,
    house_account,
    open_account_script,
    post_script,
    release_script,
    settle_script,
)
from tests.ledger.ledgers import (
    CASH,
    DOLLARS,
    NOON,
    PREPAID,
    REVENUE,
    fund,
    posting,
    problems,
    run,
    settlement,
    sums,
    wish,
)

_INSERT = (
    "INSERT INTO ledger_transfers (id, kind, debit_account_id, credit_account_id, amount_nano, hold_id, at) VALUES"
)
_AT = "'2026-11-23 12:00:00'"
_SIDES = f"'{PREPAID.id}', '{REVENUE.id}'"


@pytest.fixture(autouse=True)
async def funded(database: Database) -> None:
    await fund(database, 100)


async def test_an_account_is_opened_once_with_its_terms(database: Database) -> None:
    await run(database, open_account_script(PREPAID, NOON))
    for other in (
        replace(PREPAID, credit_limit_nano=1),
        replace(PREPAID, credit_limit_nano=None),
        replace(PREPAID, organisation_id="org-2"),
        replace(PREPAID, kind=AccountKind.PROMO),
        replace(PREPAID, currency="USD"),
    ):
        with pytest.raises(Conflict, match="other terms"):
            await run(database, open_account_script(other, NOON))


@pytest.mark.parametrize(
    ("name", "currency"), [("", "EUR"), ("a" * 201, "EUR"), ("a", "eur"), ("a", "EURO"), ("a", "")]
)
def test_an_account_has_a_name_and_a_currency(name: str, currency: str) -> None:
    with pytest.raises(BadRequest):
        Account(name, None, AccountKind.REVENUE, currency, None)


async def test_a_posting_moves_money_once(database: Database) -> None:
    assert await run(database, post_script(posting(7, "p2"))) is True
    assert await run(database, post_script(posting(7, "p2"))) is False
    assert await sums(database) == (0, 0, 107, 0)
    assert await sums(database, CASH) == (107, 0, 0, 0)


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (posting(101), Conflict),
        (posting(100, reason="another"), Conflict),
        (posting(100, credit_account_id=REVENUE.id), Conflict),
        (posting(1, "p2", debit_account_id="prepaid:org-2:EUR"), NotFound),
        (posting(1, "p2", credit_account_id="prepaid:org-2:EUR"), NotFound),
        (posting(1, "p2", credit_account_id=DOLLARS.id), BadRequest),
        (posting(101, "p2", debit_account_id=PREPAID.id, credit_account_id=REVENUE.id), InsufficientFunds),
    ],
)
async def test_a_posting_that_cannot_be_is_refused_by_name(
    database: Database, refused: Posting, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await run(database, post_script(refused))
    assert await sums(database) == (0, 0, 100, 0)


@pytest.mark.parametrize("change", [{"amount_nano": 0}, {"amount_nano": 2**62}, {"credit_account_id": CASH.id}])
def test_a_posting_is_an_amount_between_two_accounts(change: dict[str, object]) -> None:
    with pytest.raises(BadRequest):
        replace(posting(1), **change)  # type: ignore[arg-type]  # the table's columns differ


async def test_what_is_held_cannot_be_posted_away(database: Database) -> None:
    await run(database, hold_script(wish(60)))
    with pytest.raises(InsufficientFunds, match=r"has 0\.00000004 EUR, not 0\.000000041"):
        await run(database, post_script(posting(41, "p2", debit_account_id=PREPAID.id, credit_account_id=REVENUE.id)))


@pytest.mark.parametrize(
    "statement",
    {
        "overdraft": f"{_INSERT} ('x', 'post', {_SIDES}, 101, NULL, {_AT})",
        "nothing": f"{_INSERT} ('x', 'post', {_SIDES}, 0, NULL, {_AT})",
        "less than nothing": f"{_INSERT} ('x', 'post', {_SIDES}, -1, NULL, {_AT})",
        "more than can be": f"{_INSERT} ('x', 'post', '{CASH.id}', '{REVENUE.id}', {2**62}, NULL, {_AT})",
        "a sum beyond 62 bits": f"{_INSERT} ('x', 'post', '{CASH.id}', '{PREPAID.id}', {2**62 - 1}, NULL, {_AT})",
        "one account": f"{_INSERT} ('x', 'post', '{CASH.id}', '{CASH.id}', 1, NULL, {_AT})",
        "no such account": f"{_INSERT} ('x', 'post', '{CASH.id}', 'none', 1, NULL, {_AT})",
        "two currencies": f"{_INSERT} ('x', 'post', '{CASH.id}', '{DOLLARS.id}', 1, NULL, {_AT})",
        "no such kind": f"{_INSERT} ('x', 'gift', {_SIDES}, 1, NULL, {_AT})",
        "a posting of a hold": f"{_INSERT} ('x', 'post', {_SIDES}, 1, 'hold-1', {_AT})",
        "a settlement of no hold": f"{_INSERT} ('x', 'settle', {_SIDES}, 1, NULL, {_AT})",
        "a second hold of a hold": f"{_INSERT} ('x', 'hold', {_SIDES}, 1, 'hold-1', {_AT})",
        "a hold without its row": f"{_INSERT} ('x', 'hold', {_SIDES}, 1, 'x', {_AT})",
        "a release of a part": f"{_INSERT} ('x', 'release', {_SIDES}, 39, 'hold-1', {_AT})",
        "a release of too much": f"{_INSERT} ('x', 'release', {_SIDES}, 41, 'hold-1', {_AT})",
        "a second release": f"{_INSERT} ('x', 'release', {_SIDES}, 5, 'hold-2', {_AT})",
        "an id again": f"{_INSERT} ('payment-1', 'post', '{CASH.id}', '{PREPAID.id}', 100, NULL, {_AT})",
        "another amount later": "UPDATE ledger_transfers SET amount_nano = 1",
        "a transfer taken away": "DELETE FROM ledger_transfers",
        "an account taken away": f"DELETE FROM ledger_accounts WHERE id = '{DOLLARS.id}'",
        "another currency": f"UPDATE ledger_accounts SET currency = 'CHF' WHERE id = '{DOLLARS.id}'",
        "a limit below what is used": f"UPDATE ledger_accounts SET credits_posted_nano = 1 WHERE id = '{PREPAID.id}'",
        "an account with money": "INSERT INTO ledger_accounts (id, kind, currency, credits_posted_nano, created_at)"
        f" VALUES ('x', 'prepaid', 'EUR', 5, {_AT})",
        "no such kind of account": "INSERT INTO ledger_accounts (id, kind, currency, created_at)"
        f" VALUES ('x', 'purse', 'EUR', {_AT})",
        "a hold taken away": "DELETE FROM ledger_holds",
        "a larger hold": "UPDATE ledger_holds SET amount_nano = 90",
        "a hold that is half used": "INSERT INTO ledger_holds (id, debit_account_id, credit_account_id, amount_nano,"
        f" settled_nano, holder, at, expires_at_ms) VALUES ('x', {_SIDES}, 2, 1, 'g', {_AT}, 1)",
        "a hold between currencies": "INSERT INTO ledger_holds (id, debit_account_id, credit_account_id, amount_nano,"
        f" holder, at, expires_at_ms) VALUES ('x', '{CASH.id}', '{DOLLARS.id}', 2, 'g', {_AT}, 1)",
        "a hold beyond the balance": "INSERT INTO ledger_holds (id, debit_account_id, credit_account_id, amount_nano,"
        f" holder, at, expires_at_ms) VALUES ('x', {_SIDES}, 99, 'g', {_AT}, 1)",
        "an open hold called closed": "UPDATE ledger_holds SET closed = TRUE WHERE id = 'hold-1'",
    }.items(),
    ids=lambda pair: pair[0],
)
async def test_the_database_refuses(database: Database, statement: tuple[str, str]) -> None:
    await run(database, hold_script(wish(60)))
    await run(database, settle_script([settlement("r1", 20)]))
    await run(database, hold_script(wish(5, name="hold-2")))
    await run(database, release_script(["hold-2"], NOON))
    with pytest.raises(DBAPIError):
        async with database.transaction() as session:
            await session.execute(text(statement[1]))
    assert await problems(database) == []


async def test_balances_are_read_by_account_and_organisation(database: Database) -> None:
    await run(database, hold_script(wish(60)))
    await run(database, settle_script([settlement("r1", 20)]))
    async with database.reading() as session:
        found = await balance(session, PREPAID.id)
        assert found.account == PREPAID
        assert (found.credit_nano, found.debits_pending_nano, found.available_nano) == (80, 40, 40)
        assert [each.account for each in await accounts_of(session, "org-1")] == [PREPAID]
        assert [each.account for each in await accounts_of(session, None)] == [CASH, REVENUE, DOLLARS]
        assert [each.available_nano for each in await all_accounts(session)] == [None, 40, None, None]
        with pytest.raises(NotFound):
            await balance(session, "none")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (f"UPDATE ledger_accounts SET credits_posted_nano = 99 WHERE id = '{PREPAID.id}'", f"account {PREPAID.id}"),
        ("UPDATE ledger_holds SET settled_nano = 19", "hold hold-1"),
        (f"UPDATE ledger_accounts SET debits_posted_nano = 99 WHERE id = '{CASH.id}'", "EUR: posted debits are 119"),
    ],
)
async def test_books_that_somebody_changed_are_found_out(database: Database, damage: str, named: str) -> None:
    await run(database, hold_script(wish(60)))
    await run(database, settle_script([settlement("r1", 20)]))
    assert await problems(database) == []
    async with database.transaction() as session:
        await session.execute(text(damage))
        found = await check_books(session)
    assert any(problem.startswith(named) for problem in found), found


async def test_house_accounts_are_one_a_currency(database: Database) -> None:
    assert house_account(AccountKind.REVENUE, "EUR") == REVENUE
    async with database.transaction() as session:
        await run_in_session(session, open_account_script(REVENUE, NOON))
