"""An exported journal against checkpoints, offline: whatever was changed, removed, moved or inserted is found."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galerne.journal import Checkpoint, Entry, Frontier, ProofRefused, StoredLeaf, root_of, verify_export
from galerne.journal.leaf import GENESIS, encode, extend
from galerne.journal.merkle import EMPTY_ROOT, hash_leaf
from tests.journal.entries import entries, entry, stored

LEAVES = stored(entry(number) for number in range(30))
LINES = [leaf.json_line() for leaf in LEAVES]


def signed(leaves: list[StoredLeaf], *sizes: int) -> list[Checkpoint]:
    return [Checkpoint("log", size, root_of([leaf.leaf_hash for leaf in leaves[:size]])) for size in sizes]


def rewritten(some: list[Entry]) -> list[bytes]:
    return [leaf.json_line() for leaf in stored(some)]


def test_a_sound_export_verifies_and_says_how_much_of_it_is_signed() -> None:
    found = verify_export(LINES, signed(LEAVES, 0, 7, 25, 25))
    assert (found.count, found.signed, found.chain_hash) == (30, 25, LEAVES[-1].chain_hash)
    nothing = verify_export([], [Checkpoint("log", 0, EMPTY_ROOT)])
    assert (nothing.count, nothing.chain_hash) == (0, GENESIS)


@settings(max_examples=30, deadline=None)
@given(st.lists(entries, min_size=1, max_size=6))
def test_whatever_was_appended_can_be_exported_and_verified(some: list[Entry]) -> None:
    leaves = stored(some)
    assert verify_export([leaf.json_line() for leaf in leaves], signed(leaves, len(leaves))).count == len(some)


# The lines are made anew over other entries, hashes, chain and all: only the signed root can tell.
MANY = [entry(number) for number in range(30)]


@pytest.mark.parametrize(
    "some",
    [
        [*MANY[:9], entry(99), *MANY[10:]],
        [*MANY[:9], *MANY[10:], entry(99)],
        [*MANY[:9], entry(99), *MANY[9:]],
        [*MANY[:9], MANY[10], MANY[9], *MANY[11:]],
        [*MANY[:9], MANY[8], *MANY[9:]],
    ],
    ids=["changed", "removed", "inserted", "moved", "repeated"],
)
def test_a_journal_made_anew_over_another_history_is_not_what_was_signed(some: list[Entry]) -> None:
    with pytest.raises(ProofRefused, match="not those that were signed"):
        verify_export(rewritten(some), signed(LEAVES, 20))


CHANGES: list[tuple[Callable[[list[bytes]], list[bytes]], str]] = [
    (lambda lines: lines[:9] + lines[10:], "Leaf 10 is missing"),
    (lambda lines: lines[1:], "Leaf 1 is missing"),
    (lambda lines: [*lines[:9], lines[10], lines[9], *lines[11:]], "Leaf 10 is missing or moved"),
    (lambda lines: [*lines[:9], lines[8], *lines[9:]], "Leaf 10 is missing or moved"),
    (lambda lines: lines[:24], "cut off: 25 leaves were signed, and here are 24"),
    (lambda lines: [*lines[:9], lines[9].replace(b"api_key/9", b"api_key/8"), *lines[10:]], "Leaf 10 .* altered"),
    (lambda lines: [*lines[:9], lines[9][:-2] + b"\n", *lines[10:]], "Line 10"),
    (lambda lines: [*lines[:9], b"\n", *lines[10:]], "Line 10"),
    (lambda lines: [*lines[:9], b"{}\n", *lines[10:]], "Line 10"),
]


@pytest.mark.parametrize(("change", "why"), CHANGES)
def test_an_export_that_was_tampered_with_is_refused_naming_the_leaf(
    change: Callable[[list[bytes]], list[bytes]], why: str
) -> None:
    with pytest.raises(ProofRefused, match=why):
        verify_export(change(LINES), signed(LEAVES, 25))


def test_a_leaf_made_anew_with_its_own_hash_breaks_the_chain() -> None:
    leaf = encode(entry(99), 10)
    forged = b'{"chain_hash":"%b","leaf":%b,"leaf_hash":"%b"}\n' % (
        LEAVES[9].chain_hash.hex().encode(),
        leaf,
        hash_leaf(leaf).hex().encode(),
    )
    with pytest.raises(ProofRefused, match="chain breaks at leaf 10"):
        verify_export([*LINES[:9], forged, *LINES[10:]], signed(LEAVES, 25))
    assert extend(LEAVES[8].chain_hash, hash_leaf(leaf)) != LEAVES[9].chain_hash


@given(st.integers(0, 29), st.data())
def test_any_byte_that_was_changed_is_found(number: int, data: st.DataObject) -> None:
    line = LINES[number]
    at = data.draw(st.integers(0, len(line) - 2))
    changed = bytes([data.draw(st.integers(32, 255).filter(lambda byte: byte != line[at]))])
    lines = [*LINES[:number], line[:at] + changed + line[at + 1 :], *LINES[number + 1 :]]
    with pytest.raises(ProofRefused):
        verify_export(lines, signed(LEAVES, 30))


def test_a_frontier_agrees_with_what_is_signed() -> None:
    frontier = Frontier()
    for leaf in LEAVES:
        frontier.append(leaf.leaf_hash)
    assert signed(LEAVES, 30)[0].root == frontier.root()
