"""Verification without a database: no byte, field, place or end of a log can change unseen."""

from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galerne.journal import GENESIS, Entry, Head, StoredLeaf, Verification, Verifier
from galerne.journal.merkle import hash_leaf
from tests.journal.entries import NOON, entries, entry, stored


def walk(leaves: list[StoredLeaf], head: Head | None = None) -> Verification:
    last = leaves[-1] if leaves else None
    verifier = Verifier(
        head or Head(last.seq if last else 0, last.chain_hash if last else GENESIS), last.seq if last else 0
    )
    for leaf in leaves:
        if verifier.finished or not verifier.check(leaf):
            break
    return verifier.result()


def honest(leaves: list[StoredLeaf]) -> Head:
    return Head(leaves[-1].seq, leaves[-1].chain_hash)


@given(st.lists(entries, max_size=6))
def test_what_was_appended_is_sound(some: list[Entry]) -> None:
    verdict = walk(stored(some))
    assert (verdict.count, verdict.problem) == (len(some), None)


@given(st.lists(entries, min_size=1, max_size=4), st.data())
def test_any_changed_bit_of_any_leaf_or_hash_is_found_where_it_is(some: list[Entry], data: st.DataObject) -> None:
    leaves = stored(some)
    head = honest(leaves)
    place = data.draw(st.integers(0, len(leaves) - 1))
    field = data.draw(st.sampled_from(["leaf", "leaf_hash", "chain_hash"]))
    old: bytes = getattr(leaves[place], field)
    at = data.draw(st.integers(0, len(old) - 1))
    bit = data.draw(st.integers(0, 7))
    new = old[:at] + bytes([old[at] ^ (1 << bit)]) + old[at + 1 :]
    leaves[place] = replace(leaves[place], **{field: new})
    verdict = walk(leaves, head)
    assert verdict.problem is not None
    assert (verdict.problem_seq, verdict.count) == (place + 1, place)


def test_every_byte_of_a_leaf_matters_even_when_its_own_hash_is_recomputed() -> None:
    leaves = stored(entry(number) for number in range(3))
    for at in range(len(leaves[1].leaf)):
        changed = leaves[1].leaf[:at] + bytes([leaves[1].leaf[at] ^ 1]) + leaves[1].leaf[at + 1 :]
        forged = [leaves[0], replace(leaves[1], leaf=changed, leaf_hash=hash_leaf(changed)), leaves[2]]
        assert walk(forged, honest(leaves)).problem_seq == 2


@pytest.mark.parametrize(
    "change",
    [
        {"organisation_id": "org-2"},
        {"workspace_id": "space"},
        {"actor_id": "key-2"},
        {"actor_kind": "user"},
        {"action": "api_key.delete"},
        {"resource": "api_key/9"},
        {"outcome": "refused"},
        {"request_id": None},
        {"at": NOON},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_column_that_says_something_else_than_its_leaf_is_found(change: dict[str, object]) -> None:
    leaves = stored(entry(number) for number in range(3))
    leaves[1] = replace(leaves[1], **change)
    verdict = walk(leaves, honest(leaves))
    assert verdict.problem_seq == 2
    assert "columns" in str(verdict.problem)


@given(st.integers(2, 6), st.data())
def test_a_missing_or_moved_leaf_is_found(count: int, data: st.DataObject) -> None:
    leaves = stored(entry(number) for number in range(count))
    order = data.draw(st.permutations(range(count)))
    length = data.draw(st.integers(0, count))
    chosen = [leaves[number] for number in islice(order, length)]
    verdict = walk(chosen, honest(leaves))
    assert (verdict.problem is None) == (chosen == leaves)


def test_a_moved_leaf_renumbered_to_its_new_place_is_found() -> None:
    leaves = stored(entry(number) for number in range(4))
    swapped = [leaves[0], replace(leaves[2], seq=2), replace(leaves[1], seq=3), leaves[3]]
    assert walk(swapped, honest(leaves)).problem_seq == 2


def test_a_leaf_of_another_log_with_a_good_chain_is_found() -> None:
    leaves = stored([entry(0)])
    other = stored([entry(0), entry(1)])[1]
    assert walk([replace(other, seq=1)], honest(leaves)).problem_seq == 1
