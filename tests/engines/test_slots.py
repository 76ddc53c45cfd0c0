import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.engines.llamacpp.slot_queue import Lease, SlotQueue
from galerne.engines.llamacpp.slots import SlotTable, common_prefix
from galerne.kernel.errors import InvariantViolated

PROMPT = tuple(range(100, 140))
OTHER = tuple(range(900, 940))
TOKENS = st.lists(st.integers(0, 2), max_size=12).map(tuple)


def _held(table: SlotTable, salt: str, prompt: tuple[int, ...]) -> int:
    number = table.take(salt, prompt)
    assert number is not None
    table.sent(number, salt)
    table.began(number, salt, prompt)
    return number


def _used(table: SlotTable, salt: str, prompt: tuple[int, ...]) -> int:
    number = _held(table, salt, prompt)
    table.give_back(number)
    return number


@given(TOKENS, TOKENS)
def test_common_prefix_is_as_long_as_counting_finds_it(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    counted = 0
    while counted < min(len(left), len(right)) and left[counted] == right[counted]:
        counted += 1
    assert common_prefix(left, right) == counted


def test_request_returns_to_the_slot_that_holds_the_most_of_its_prompt() -> None:
    table = SlotTable(4)
    _used(table, "a", OTHER)
    _used(table, "a", PROMPT[:20])
    longest = _used(table, "a", (*PROMPT[:20], 5, *OTHER))
    assert table.take("a", (*PROMPT[:20], 5, 6)) == longest


def test_slot_of_another_salt_is_neither_preferred_nor_shared() -> None:
    table = SlotTable(2)
    theirs = _used(table, "a", PROMPT)
    ours = table.take("b", PROMPT)
    assert ours is not None
    assert ours != theirs
    assert not table.may_share(theirs, "b")
    assert table.may_share(theirs, "a")


def test_without_a_prefix_the_slot_unused_for_longest_is_taken() -> None:
    table = SlotTable(3)
    first, second, third = (_used(table, salt, PROMPT) for salt in "abc")
    assert {first, second, third} == {0, 1, 2}
    assert [table.take("d", OTHER) for _ in range(4)] == [first, second, third, None]


def test_a_few_tokens_in_common_are_not_worth_a_slot() -> None:
    table = SlotTable(2)
    held = _used(table, "a", PROMPT)
    assert table.take("a", (PROMPT[0], *OTHER)) != held


def test_slot_whose_request_never_began_is_shared_with_nobody_new() -> None:
    table = SlotTable(1)
    _used(table, "a", PROMPT)
    assert table.take("b", PROMPT) == 0
    table.sent(0, "b")
    table.give_back(0)
    assert not table.may_share(0, "a")
    assert not table.may_share(0, "b")


def test_slot_that_was_taken_and_not_sent_to_stays_as_it_was() -> None:
    table = SlotTable(1)
    _used(table, "a", PROMPT)
    assert table.take("b", OTHER) == 0
    table.give_back(0)
    assert table.may_share(0, "a")


def test_only_a_taken_slot_can_be_given_back() -> None:
    with pytest.raises(InvariantViolated):
        SlotTable(1).give_back(0)


@given(st.lists(st.tuples(st.sampled_from("abc"), TOKENS, st.sampled_from(["never sent", "given up", "began"]))))
def test_whatever_happens_a_request_shares_only_what_its_own_salt_has_read(
    requests: list[tuple[str, tuple[int, ...], str]],
) -> None:
    table, read_by = SlotTable(2), ["", ""]  # whose tokens may still be in the slot: all who were sent and not replaced
    for salt, prompt, fate in requests:
        number = table.take(salt, prompt)
        assert number is not None
        shares = table.may_share(number, salt)
        assert not shares or set(read_by[number]) == {salt}
        if fate != "never sent":
            table.sent(number, salt)
            read_by[number] += salt
        if fate == "began":
            table.began(number, salt, prompt)
            read_by[number] = salt
        table.give_back(number)


async def test_slots_are_handed_out_in_the_order_of_asking() -> None:
    queue, served = SlotQueue(2), list[int]()

    async def ask(number: int) -> None:
        lease = await queue.take("ab"[number % 2], PROMPT if number % 3 else OTHER)
        served.append(number)
        await asyncio.sleep(0)
        queue.give_back(lease)

    await asyncio.gather(*(ask(number) for number in range(20)))
    assert all(earlier < later for earlier, later in pairwise(served))


async def test_who_gives_up_waiting_costs_no_slot() -> None:
    queue = SlotQueue(1)
    lease = await queue.take("a", PROMPT)
    waiting = [asyncio.create_task(queue.take("a", PROMPT)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    queue.give_back(lease)
    waiting[1].cancel()  # in the moment in which its turn has come
    got = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in got] == [asyncio.CancelledError, asyncio.CancelledError, Lease]


async def test_lease_sends_to_its_slot_and_shares_once_its_own_request_began() -> None:
    lease = await SlotQueue(1).take("a", PROMPT)
    assert lease.sent() == {"id_slot": 0, "cache_prompt": False}
    lease.began()
    assert lease.sent() == {"id_slot": 0, "cache_prompt": True}
