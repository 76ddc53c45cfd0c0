"""Lots: their order, what expires, what goes back, what the database refuses, allocators at once and killed."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import Actor, ActorKind
from galerne.kernel import BadRequest, Conflict, Database, InvariantViolated, ManualClock, NotFound
from galerne.ledger import (
    GRACE,
    AccountKind,
    Burned,
    Correction,
    Grant,
    LotBook,
    LotKind,
    LotTerms,
    Part,
    allocate_script,
    burn_lots,
    burn_order,
    correct_charge,
    customer_account,
    grant_credit,
    hold_script,
    house_account,
    lots_of,
    post_script,
    release_script,
    settle_script,
    sweep_all,
    unwind,
    void_lot,
)
from tests.ledger.ledgers import CASH, NOON, PREPAID, REVENUE, posting, problems, read, run, settlement, sums, wish

ACTOR = Actor(ActorKind.SYSTEM, "system", "org-1", None)
HOUR = timedelta(hours=1)
BREAKAGE = house_account(AccountKind.BREAKAGE, "EUR")
PROMO_COST = house_account(AccountKind.PROMO_COST, "EUR")
LATER = ManualClock(NOON + 2 * HOUR)


def terms(name: str, **changes: Any) -> LotTerms:
    fields: dict[str, Any] = {"kind": LotKind.PAID, "priority": 50, "effective_at": NOON, "expires_at": None}
    return LotTerms(name, **(fields | changes))


def wanted(name: str, nano: int, **changes: Any) -> Grant:
    return replace(Grant(id=name, amount_nano=nano, currency="EUR", reason="x"), **changes)


async def use(database: Database, work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
    async with database.transaction() as session:
        return await work(session)


async def give(database: Database, name: str, nano: int, **changes: Any) -> bool:
    clock = ManualClock(NOON)
    return await use(database, lambda session: grant_credit(session, ACTOR, wanted(name, nano, **changes), clock))


async def spend(database: Database, name: str, nano: int, at: datetime = NOON) -> None:
    sides = {"debit_account_id": PREPAID.id, "credit_account_id": REVENUE.id}
    await run(database, post_script(replace(posting(nano, name, **sides), at=at)))


async def left(database: Database) -> dict[str, int]:
    await burn_lots(database)
    found = await use(database, lambda session: lots_of(session, "org-1"))
    return {each.id: each.left_nano for each in found}


async def correct(database: Database, name: str, nano: int, clock: ManualClock = LATER, charge: str = "spend") -> bool:
    new = Correction(id=name, charge_id=charge, amount_nano=nano, reason="x")
    return await use(database, lambda session: correct_charge(session, ACTOR, new, clock))


def test_lots_are_burned_by_priority_expiry_kind_age_and_id() -> None:
    lots = [
        terms("first by priority", priority=0),
        terms("then by expiry", expires_at=NOON + HOUR),
        terms("then the later expiry", expires_at=NOON + 2 * HOUR),
        terms("then what nobody paid for", kind=LotKind.PROMOTIONAL),
        terms("then the oldest", effective_at=NOON - HOUR),
        terms("then by id, a"),
        terms("then by id, b"),
        terms("last by priority", priority=51, expires_at=NOON + HOUR, kind=LotKind.PROMOTIONAL),
    ]
    backwards = list(reversed(lots))
    assert sorted(backwards, key=burn_order) == lots


@pytest.mark.parametrize(
    ("hours", "taken"),
    [
        (0, [("now", 2), ("ever", 1)]),  # what was valid then, the earliest expiry first
        (1, [("ever", 2), ("later", 1)]),  # an expired one is not valid at the instant of its expiry
        (-1, [("now", 2), ("ever", 1)]),  # nothing was valid: in burn order
    ],
)
def test_only_what_was_valid_then_is_burned_while_there_is_enough(hours: int, taken: list[tuple[str, int]]) -> None:
    book = LotBook(
        [
            (terms("later", effective_at=NOON + HOUR), 2),
            (terms("ever", priority=49 if hours == 1 else 50), 2),
            (terms("now", expires_at=NOON + HOUR), 2),
        ]
    )
    assert [(part.lot_id, part.nano) for part in book.take(3, NOON + hours * HOUR)] == taken


def test_an_expiry_that_was_not_booked_leaves_a_last_resort_the_last_expired_first() -> None:
    book = LotBook([(terms(f"{hours}h", expires_at=NOON + hours * HOUR), 5) for hours in (1, 2)])
    assert book.take(12, NOON + 3 * HOUR) == [Part("2h", 5), Part("1h", 5)]


def test_what_was_burned_goes_back_the_last_first() -> None:
    burned = [Burned(0, "a", 4), Burned(1, "b", 0), Burned(2, "c", 3)]
    assert unwind(burned, 5) == [(2, Part("c", 3)), (0, Part("a", 2))]
    assert unwind(burned, 99) == [(2, Part("c", 3)), (0, Part("a", 4))]


async def test_spend_is_burned_in_the_order_in_which_it_was_recorded(database: Database) -> None:
    await give(database, "paid", 10)
    await spend(database, "before", 4)
    await give(database, "promo", 5, kind=LotKind.PROMOTIONAL)
    await spend(database, "after", 7)
    assert await problems(database) == []
    assert await left(database) == {"promo": 0, "paid": 4}
    rows = await read(
        database, "SELECT transfer_id, sequence, lot_id, amount_nano FROM ledger_lot_entries ORDER BY 1, 2"
    )
    assert [tuple(row) for row in rows] == [
        ("after", 0, "promo", 5),
        ("after", 1, "paid", 2),
        ("before", 0, "paid", 4),
        ("paid", 0, "paid", 10),
        ("promo", 0, "promo", 5),
    ]
    assert await burn_lots(database) == 0
    assert await problems(database) == []


async def test_what_expires_is_booked_as_breakage_once(database: Database) -> None:
    await give(database, "short", 10, expires_at=NOON + HOUR)
    await spend(database, "spend", 3)
    assert await sweep_all(database, ManualClock(NOON + HOUR - timedelta(microseconds=1))) == []
    assert [each.nano for each in await sweep_all(database, ManualClock(NOON + HOUR))] == [7]
    assert await sweep_all(database, LATER) == []
    assert await sums(database, BREAKAGE) == (0, 0, 7, 0)
    assert await left(database) == {"short": 0}
    assert await problems(database) == []


async def test_a_hold_taken_before_expiry_may_still_settle_and_the_rest_expires_when_it_is_released(
    database: Database,
) -> None:
    await give(database, "short", 10, expires_at=NOON + HOUR)
    await give(database, "long", 10)
    await run(database, hold_script(wish(6)))
    assert [each.nano for each in await sweep_all(database, LATER)] == [4]
    await run(database, settle_script([replace(settlement("spend", 5), at=LATER.now())]))
    assert await left(database) == {"short": 1, "long": 10}
    await run(database, release_script(["hold-1"], LATER.now()))
    assert [each.nano for each in await sweep_all(database, LATER)] == [1]
    assert await left(database) == {"short": 0, "long": 10}
    assert await problems(database) == []


async def test_what_is_spent_after_expiry_burns_what_is_still_valid(database: Database) -> None:
    await give(database, "short", 10, expires_at=NOON + HOUR)
    await give(database, "long", 10)
    await spend(database, "spend", 12, LATER.now())
    assert await left(database) == {"short": 8, "long": 0}


async def test_a_lot_of_the_future_cannot_be_spent_before(database: Database) -> None:
    await give(database, "later", 10, effective_at=NOON + HOUR)
    assert await sums(database) == (0, 0, 0, 0)
    assert await give(database, "later", 10, effective_at=NOON + HOUR) is False
    [begun] = await sweep_all(database, LATER)
    assert (begun.transfer_id, begun.kind) == ("later", "grant")
    assert await sums(database) == (0, 0, 10, 0)
    assert await left(database) == {"later": 10}
    assert await problems(database) == []


async def test_a_voided_lot_goes_back_to_where_it_came_from_but_for_what_is_held(database: Database) -> None:
    await give(database, "gift", 10, kind=LotKind.PROMOTIONAL)
    await run(database, hold_script(wish(4)))
    [booked] = await use(database, lambda session: void_lot(session, ACTOR, "gift", "a mistake", LATER))
    assert booked.nano == 6
    assert await use(database, lambda session: void_lot(session, ACTOR, "gift", "a mistake", LATER)) == []
    with pytest.raises(Conflict, match="another reason"):
        await use(database, lambda session: void_lot(session, ACTOR, "gift", "greed", LATER))
    await run(database, release_script(["hold-1"], NOON))
    assert [each.nano for each in await sweep_all(database, LATER)] == [4]
    assert await sums(database, PROMO_COST) == (10, 0, 10, 0)
    assert await problems(database) == []
    other = replace(ACTOR, organisation_id="org-2")
    with pytest.raises(NotFound):
        await use(database, lambda session: void_lot(session, other, "gift", "a mistake", LATER))


async def test_a_correction_unwinds_what_was_burned_and_no_more_than_was_charged(database: Database) -> None:
    await give(database, "promo", 5, kind=LotKind.PROMOTIONAL)
    await give(database, "paid", 10)
    await spend(database, "spend", 8)
    assert await correct(database, "k1", 4) is True
    assert await correct(database, "k1", 4) is False
    with pytest.raises(Conflict, match="other content"):
        await correct(database, "k1", 3)
    with pytest.raises(Conflict, match=r"0\.000000004 can still be given back, not 0\.000000005"):
        await correct(database, "k2", 5)
    with pytest.raises(NotFound):
        await correct(database, "k2", 1, charge="none")
    with pytest.raises(BadRequest):
        await correct(database, "k2", 1, charge="promo")
    assert await left(database) == {"promo": 1, "paid": 10}
    assert await sums(database, REVENUE) == (4, 0, 8, 0)
    assert await problems(database) == []


async def test_what_expired_meanwhile_comes_back_as_a_new_lot_with_time_to_use_it(database: Database) -> None:
    await give(database, "promo", 5, kind=LotKind.PROMOTIONAL, priority=7, expires_at=NOON + HOUR)
    await spend(database, "spend", 4)
    await sweep_all(database, LATER)
    await correct(database, "k1", 3)
    [new] = [each for each in await use(database, lambda session: lots_of(session, "org-1")) if each.id == "k1:0"]
    assert (new.left_nano, new.kind, new.priority, new.replaces_lot_id) == (3, LotKind.PROMOTIONAL, 7, "promo")
    assert new.expires_at == LATER.now() + GRACE
    with pytest.raises(Conflict, match="can still be given back"):
        await correct(database, "k2", 2)
    assert await problems(database) == []


async def test_money_posted_without_a_lot_becomes_one_that_never_expires(database: Database) -> None:
    await give(database, "paid", 5)
    await run(database, post_script(posting(7, "posted")))
    assert await problems(database) == []
    await spend(database, "spend", 6)
    assert await left(database) == {"paid": 0, "posted": 6}
    assert await problems(database) == []


@pytest.mark.parametrize(
    "change",
    [
        {"nano": 0},
        {"nano": -1},
        {"nano": 2**62},
        {"priority": 101},
        {"effective_at": NOON, "expires_at": NOON},
        {"expires_at": NOON},
        {"source_ref": "a\nb"},
        {"funding": PREPAID},
        {"funding": replace(CASH, currency="USD")},
    ],
)
async def test_a_grant_that_cannot_be_is_refused_and_nothing_moves(database: Database, change: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        await give(
            database, "g", change.get("nano", 5), **{name: each for name, each in change.items() if name != "nano"}
        )
    assert await read(database, "SELECT id FROM ledger_transfers") == []


async def test_a_grant_with_other_terms_under_the_same_id_is_a_conflict(database: Database) -> None:
    await give(database, "g", 5)
    assert await give(database, "g", 5) is False
    for change in ({"priority": 1}, {"expires_at": NOON + HOUR}, {"kind": LotKind.PROMOTIONAL}, {"source_ref": "x"}):
        with pytest.raises(Conflict):
            await give(database, "g", 5, **change)
    assert await left(database) == {"g": 5}


_ENTRY = "INSERT INTO ledger_lot_entries (transfer_id, sequence, lot_id, kind, amount_nano) VALUES"
_BACK = (
    "INSERT INTO ledger_lot_entries"
    " (transfer_id, sequence, lot_id, kind, amount_nano, reverses_transfer_id, reverses_sequence) VALUES"
)


@pytest.mark.parametrize(
    "statement",
    [
        f"{_ENTRY} ('spend', 1, 'g', 'burn', 6)",  # more than the lot has
        f"{_ENTRY} ('spend', 0, 'g', 'burn', 1)",  # the same entry of the same transfer
        f"{_ENTRY} ('none', 0, 'g', 'burn', 1)",
        f"{_ENTRY} ('spend', 1, 'g', 'burn', 0)",
        f"{_ENTRY} ('spend', 1, 'g', 'gift', 1)",
        f"{_ENTRY} ('spend', 1, 'g', 'restore', 1)",  # of nothing that was burned
        f"{_BACK} ('g', 1, 'g', 'restore', 6, 'spend', 0)",  # more than was burned
        f"{_BACK} ('spend', 1, 'g', 'restore', 1, 'g', 0)",  # of a grant
        "UPDATE ledger_lot_entries SET amount_nano = 1",
        "DELETE FROM ledger_lot_entries",
        "UPDATE ledger_lots SET amount_nano = 11",
        "UPDATE ledger_lots SET expires_at = NULL",
        "UPDATE ledger_lots SET burned_nano = 11",
        "DELETE FROM ledger_lots",
        "UPDATE ledger_lot_cursors SET seq = 0",
        "DELETE FROM ledger_lot_cursors",
    ],
)
async def test_the_database_refuses_to_have_lots_rewritten_or_overdrawn(database: Database, statement: str) -> None:
    await give(database, "g", 10)
    await spend(database, "spend", 5)
    await burn_lots(database)
    with pytest.raises(DBAPIError):
        await use(database, lambda session: session.execute(text(statement)))
    assert await problems(database) == []


async def test_lots_that_somebody_changed_are_found_out(database: Database) -> None:
    await give(database, "g", 10)
    await spend(database, "spend", 5)
    await burn_lots(database)
    await use(database, lambda session: session.execute(text("UPDATE ledger_lots SET burned_nano = 4")))
    found = await problems(database)
    assert [each.split(": ")[0] for each in found] == ["lot g", f"account {PREPAID.id}"]


@pytest.mark.timeout(60)  # on PostgreSQL four connections queue for one row
async def test_allocators_at_once_burn_each_transfer_once(database: Database) -> None:
    await give(database, "promo", 30, kind=LotKind.PROMOTIONAL)
    await give(database, "paid", 100)
    for number in range(60):
        await spend(database, f"s{number}", 2)

    async def burn() -> int:
        count, more = 0, True
        while more:
            done = await run(database, allocate_script(PREPAID.id, 7))
            count, more = count + done.transfers, done.more
        return count

    assert sum(await asyncio.gather(*(burn() for _ in range(4)))) == 62
    assert await left(database) == {"promo": 0, "paid": 10}
    rows = await read(database, "SELECT count(*) FROM ledger_lot_entries WHERE kind = 'burn'")
    assert rows[0][0] == 60
    assert await problems(database) == []


async def test_an_allocator_that_dies_before_its_commit_leaves_the_work_to_the_next(database: Database) -> None:
    await give(database, "paid", 100)
    for number in range(5):
        await spend(database, f"s{number}", 2)

    def dying() -> Any:
        yield from allocate_script(PREPAID.id, 3)
        raise RuntimeError("killed")

    await run(database, allocate_script(PREPAID.id, 2))
    with pytest.raises(RuntimeError, match="killed"):
        await run(database, dying())
    assert await left(database) == {"paid": 90}
    assert await problems(database) == []


async def test_a_charge_of_another_organisation_is_unknown(database: Database) -> None:
    await give(database, "paid", 10)
    await spend(database, "spend", 6)
    new = Correction(id="back", charge_id="spend", amount_nano=6, reason="x")
    other = replace(ACTOR, organisation_id="org-2")
    with pytest.raises(NotFound):
        await use(database, lambda session: correct_charge(session, other, new, LATER))
    assert await left(database) == {"paid": 4}


@pytest.mark.parametrize("recorded", ["posted", "of another's future lot"])
async def test_credit_to_come_needs_a_name_that_no_money_has(database: Database, recorded: str) -> None:
    await give(database, "paid", 10)
    if recorded == "posted":
        await run(database, post_script(posting(5, "g")))
    else:
        await give(database, "g", 5, effective_at=NOON + HOUR)
        await spend(database, "spend", 6)
        with pytest.raises(Conflict):
            await correct(database, "g", 6)
        with pytest.raises(Conflict):
            await run(database, post_script(posting(7, "g")))
    with pytest.raises(Conflict):
        await give(database, "g", 6, effective_at=NOON + HOUR)
    await burn_lots(database)
    assert len(await sweep_all(database, LATER)) == (recorded != "posted")
    assert await problems(database) == []


async def test_an_account_in_trouble_keeps_no_other_from_being_burned_and_swept(database: Database) -> None:
    await give(database, "z", 10, expires_at=NOON + HOUR)
    other = replace(ACTOR, organisation_id="org-0")
    new = wanted("a", 5, expires_at=NOON + HOUR)
    await use(database, lambda session: grant_credit(session, other, new, ManualClock(NOON)))
    await spend(database, "spend", 6)
    broken = customer_account(AccountKind.PREPAID, "org-0", "EUR")
    sides = {"debit_account_id": broken.id, "credit_account_id": REVENUE.id}
    await run(database, post_script(posting(5, "gone", **sides)))
    async with database.transaction() as session:
        await session.execute(
            text(
                "INSERT INTO ledger_lot_entries (transfer_id, sequence, lot_id, kind, amount_nano)"
                " VALUES ('gone', 7, 'a', 'void', 3)"
            )
        )
        await session.execute(text("INSERT INTO ledger_lot_cursors VALUES (:id, 0, 0)"), {"id": broken.id})
    with pytest.raises(InvariantViolated):
        await burn_lots(database)
    burned = await read(database, "SELECT burned_nano FROM ledger_lots WHERE id = 'z'")
    assert [tuple(row) for row in burned] == [(6,)]
    with pytest.raises(InvariantViolated):
        await sweep_all(database, LATER)
    expired = await read(database, "SELECT expired_nano FROM ledger_lots WHERE id = 'z'")
    assert [tuple(row) for row in expired] == [(4,)]
