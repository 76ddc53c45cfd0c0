"""Holds on both databases: what is granted, what may be settled from it, how it ends."""

import pytest
from sqlalchemy.exc import DBAPIError

from galerne.kernel import BadRequest, Conflict, Database, NotFound
from galerne.ledger import (
    AccountKind,
    Granted,
    InsufficientFunds,
    OpenHold,
    Refused,
    customer_account,
    expired_script,
    hold,
    hold_script,
    open_account_script,
    release_script,
    renew_script,
    settle_script,
)
from tests.ledger.ledgers import (
    DOLLARS,
    NOON,
    NOON_MS,
    PREPAID,
    REVENUE,
    fund,
    problems,
    read,
    run,
    settlement,
    sums,
    wish,
)


@pytest.fixture(autouse=True)
async def funded(database: Database) -> None:
    await fund(database, 100)


async def test_a_hold_takes_its_most_or_what_there_is_and_says_what_is_left(database: Database) -> None:
    assert await run(database, hold_script(wish(10, 70))) == Granted("hold-1", 70, 30)
    assert await run(database, hold_script(wish(10, 70, "hold-2"))) == Granted("hold-2", 30, 0)
    assert await sums(database) == (0, 100, 100, 0)
    assert await sums(database, REVENUE) == (0, 0, 0, 100)


async def test_less_than_the_least_is_refused_and_nothing_is_held(database: Database) -> None:
    assert await run(database, hold_script(wish(101))) == Refused(100)
    assert await sums(database) == (0, 0, 100, 0)
    async with database.transaction() as session:
        with pytest.raises(InsufficientFunds, match=r"0\.0000001 left") as refused:
            await hold(session, wish(101))
    assert (refused.value.status, refused.value.code) == (402, "insufficient_funds")


async def test_an_account_without_a_bound_grants_the_most(database: Database) -> None:
    unbounded = wish(10, 10**15, debit_account_id="cash_clearing:EUR", credit_account_id=REVENUE.id)
    assert await run(database, hold_script(unbounded)) == Granted("hold-1", 10**15, None)


async def test_a_credit_limit_can_be_spent_and_no_more(database: Database) -> None:
    postpaid = customer_account(AccountKind.RECEIVABLE, "org-1", "EUR", credit_limit_nano=50)
    await run(database, open_account_script(postpaid, NOON))
    assert await run(database, hold_script(wish(51, debit_account_id=postpaid.id))) == Refused(50)
    assert await run(database, hold_script(wish(50, debit_account_id=postpaid.id))) == Granted("hold-1", 50, 0)


async def test_who_has_no_account_has_nothing_and_a_missing_account_of_the_house_is_named(database: Database) -> None:
    assert await run(database, hold_script(wish(1, debit_account_id="prepaid:org-2:EUR"))) == Refused(0)
    with pytest.raises(NotFound, match="revenue:GBP"):
        await run(database, hold_script(wish(1, credit_account_id="revenue:GBP")))


async def test_a_hold_asked_for_again_is_the_same_hold(database: Database) -> None:
    await run(database, hold_script(wish(10, 70)))
    assert await run(database, hold_script(wish(10, 70))) == Granted("hold-1", 70, 30)
    with pytest.raises(Conflict, match="other content"):
        await run(database, hold_script(wish(10, 70, holder="gateway-2")))
    await run(database, release_script(["hold-1"], NOON))
    assert await run(database, hold_script(wish(10, 70))) == Refused(100)


async def test_a_hold_is_settled_in_parts_and_closed_by_the_last(database: Database) -> None:
    await run(database, hold_script(wish(70)))
    await run(database, settle_script([settlement("r1", 30), settlement("r2", 15)]))
    assert await sums(database) == (45, 25, 100, 0)
    await run(database, settle_script([settlement("r3", 25)]))
    assert await sums(database) == (70, 0, 100, 0)
    assert await sums(database, REVENUE) == (0, 0, 70, 0)
    assert [tuple(row) for row in await read(database, "SELECT settled_nano, closed FROM ledger_holds")] == [(70, True)]
    assert await run(database, release_script(["hold-1"], NOON)) == {}
    assert await problems(database) == []


async def test_a_settlement_repeated_changes_nothing_even_when_its_hold_is_closed(database: Database) -> None:
    await run(database, hold_script(wish(70)))
    again = [settlement("r1", 30), settlement("r1", 30), settlement("r2", 15)]
    for _ in range(2):
        await run(database, settle_script(again))
    await run(database, release_script(["hold-1"], NOON))
    await run(database, settle_script(again))
    assert await sums(database) == (45, 0, 100, 0)


@pytest.mark.parametrize(
    "other",
    [
        settlement("r1", 31),
        settlement("r1", 30, "hold-2"),
        settlement("r1", 30, credit_account_id=DOLLARS.id),
        settlement("r1", 30, reason="another"),
        settlement("r1", 0),
        settlement("payment-1", 30),
        settlement("hold-1", 70),
    ],
)
async def test_an_id_with_other_content_is_a_conflict(database: Database, other: object) -> None:
    await run(database, hold_script(wish(70)))
    await run(database, settle_script([settlement("r1", 30)]))
    with pytest.raises(Conflict):
        await run(database, settle_script([settlement("r0", 1), other]))  # type: ignore[list-item]  # a Settlement
    assert await sums(database) == (30, 40, 100, 0)


async def test_two_contents_for_one_id_in_one_batch_are_a_conflict(database: Database) -> None:
    await run(database, hold_script(wish(70)))
    with pytest.raises(Conflict, match="twice"):
        await run(database, settle_script([settlement("r1", 30), settlement("r1", 31)]))


@pytest.mark.parametrize(
    "beyond",
    [
        [settlement("r1", 71)],
        [settlement("r1", 40), settlement("r2", 31)],
        [settlement("r1", -1)],
        [settlement("r1", 1, "hold-2")],
        [settlement("r1", 1, debit_account_id="cash_clearing:EUR")],
        [settlement("r1", 1, credit_account_id=DOLLARS.id)],
        [settlement("r1", 1, debit_account_id=REVENUE.id, credit_account_id=PREPAID.id)],
    ],
)
async def test_the_database_refuses_what_the_hold_does_not_cover(database: Database, beyond: list[object]) -> None:
    await run(database, hold_script(wish(70)))
    with pytest.raises(DBAPIError):
        await run(database, settle_script(beyond))  # type: ignore[arg-type]  # Settlements
    assert await sums(database) == (0, 70, 100, 0)
    assert await problems(database) == []


async def test_nothing_can_be_settled_from_a_released_hold(database: Database) -> None:
    await run(database, hold_script(wish(70)))
    await run(database, release_script(["hold-1"], NOON))
    with pytest.raises(DBAPIError):
        await run(database, settle_script([settlement("r1", 1)]))


async def test_a_settlement_of_nothing_writes_nothing(database: Database) -> None:
    await run(database, settle_script([]))
    await run(database, settle_script([settlement("r1", 0, "no hold")]))
    assert await read(database, "SELECT id FROM ledger_transfers WHERE kind = 'settle'") == []


async def test_releasing_returns_what_is_left_once(database: Database) -> None:
    await run(database, hold_script(wish(70)))
    await run(database, hold_script(wish(5, name="hold-2")))
    await run(database, settle_script([settlement("r1", 30)]))
    assert await run(database, release_script(["hold-2", "hold-1", "none"], NOON)) == {"hold-1": 40, "hold-2": 5}
    assert await run(database, release_script(["hold-2", "hold-1", "none"], NOON)) == {}
    assert await sums(database) == (30, 0, 100, 0)
    assert await problems(database) == []


async def test_only_open_holds_are_renewed_and_never_shortened(database: Database) -> None:
    for name in ("hold-1", "hold-2"):
        await run(database, hold_script(wish(5, name=name)))
    await run(database, release_script(["hold-2"], NOON))
    assert await run(database, renew_script(["hold-1", "hold-2", "none"], NOON_MS + 90_000)) == {"hold-1"}
    assert await run(database, renew_script(["hold-1"], NOON_MS)) == {"hold-1"}
    rows = await read(database, "SELECT id, expires_at_ms - :noon FROM ledger_holds ORDER BY id", noon=NOON_MS)
    assert [tuple(row) for row in rows] == [("hold-1", 90_000), ("hold-2", 60_000)]


async def test_expired_holds_are_found_oldest_first_while_they_are_open(database: Database) -> None:
    for number, expires_at_ms in enumerate((300, 100, 200, 400), 1):
        await run(database, hold_script(wish(5, name=f"hold-{number}", expires_at_ms=expires_at_ms)))
    await run(database, settle_script([settlement("r1", 2, "hold-2")]))
    await run(database, release_script(["hold-3"], NOON))
    assert await run(database, expired_script(99, 10)) == []
    (found,) = await run(database, expired_script(300, 1))
    assert found == OpenHold("hold-2", PREPAID.id, REVENUE.id, 5, 2, "gateway-1", 100)
    assert found.left_nano == 3
    assert {each.id for each in await run(database, expired_script(300, 10))} == {"hold-1", "hold-2"}


@pytest.mark.parametrize(("least", "most"), [(0, 1), (-1, 1), (2, 1), (1, 2**62)])
def test_a_hold_asks_for_something_that_can_be(least: int, most: int) -> None:
    with pytest.raises(BadRequest):
        wish(least, most)
