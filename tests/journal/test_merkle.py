"""RFC 9162's tree: its vectors, its recursive definition, and whatever is not a proof refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galerne.journal.merkle import (
    EMPTY_ROOT,
    Frontier,
    ProofRefused,
    hash_leaf,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from tests.journal.trees import CONSISTENCY, INCLUSION, LEAVES, ROOTS, Tree, mth, numbered, path, sha256, subproof

HASHES = [hash_leaf(leaf) for leaf in LEAVES]
sizes = st.integers(1, 130)


def starts(proof: list[bytes]) -> list[str]:
    return [each.hex()[:16] for each in proof]


def flipped(content: bytes, bit: int) -> bytes:
    number = int.from_bytes(content, "big") ^ (1 << bit % (8 * len(content)))
    return number.to_bytes(len(content), "big")


def test_roots_are_those_of_certificate_transparency() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    frontier = Frontier()
    for size, root in enumerate(ROOTS, 1):
        frontier.append(HASHES[size - 1])
        assert Tree(HASHES).root(size) == root_of(HASHES[:size]) == frontier.root() == root


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_proofs_are_those_of_certificate_transparency(index: int, size: int) -> None:
    proof = Tree(HASHES).inclusion_proof(index, size)
    assert starts(proof) == INCLUSION[index, size]
    verify_inclusion(HASHES[index], index, size, proof, ROOTS[size - 1])


@pytest.mark.parametrize(("first", "second"), CONSISTENCY)
def test_consistency_proofs_are_those_of_certificate_transparency(first: int, second: int) -> None:
    proof = Tree(HASHES).consistency_proof(first, second)
    assert starts(proof) == CONSISTENCY[first, second]
    verify_consistency(first, second, ROOTS[first - 1], ROOTS[second - 1], proof)


def test_every_proof_of_every_small_tree_is_the_recursive_one_and_verifies() -> None:
    hashes = numbered(40)
    tree = Tree(hashes)
    for size in range(1, 41):
        root = mth(hashes[:size])
        assert tree.root(size) == root
        for index in range(size):
            proof = tree.inclusion_proof(index, size)
            assert proof == path(index, hashes[:size])
            verify_inclusion(hashes[index], index, size, proof, root)
        for first in range(1, size + 1):
            proof = tree.consistency_proof(first, size)
            assert proof == subproof(first, hashes[:size], True)
            verify_consistency(first, size, mth(hashes[:first]), root, proof)
        verify_consistency(0, size, EMPTY_ROOT, root, tree.consistency_proof(0, size))


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 3000), data=st.data())
def test_larger_trees_prove_any_leaf_and_any_growth(size: int, data: st.DataObject) -> None:
    hashes = numbered(size)
    tree = Tree(hashes)
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    proof = tree.inclusion_proof(index)
    assert len(proof) <= size.bit_length()
    verify_inclusion(hashes[index], index, size, proof, root_of(hashes))
    verify_consistency(first, size, root_of(hashes[:first]), root_of(hashes), tree.consistency_proof(first))


@given(size=sizes, data=st.data())
def test_an_inclusion_proof_that_was_tampered_with_is_refused(size: int, data: st.DataObject) -> None:
    hashes = numbered(size)
    tree, index = Tree(hashes), data.draw(st.integers(0, size - 1))
    leaf, root, proof = hashes[index], tree.root(), tree.inclusion_proof(index)
    bit, at = data.draw(st.integers(0, 255)), data.draw(st.integers(0, max(len(proof) - 1, 0)))
    wrong = [
        (flipped(leaf, bit), index, size, proof, root),
        (leaf, index, size, proof, flipped(root, bit)),
        (leaf, index, size, [*proof, root], root),
        (leaf, index, size, [root, *proof], root),
        (leaf, index, size, [*proof, b""], root),
        (leaf, -1, size, proof, root),
        (leaf, size, size, proof, root),
        (b"short", index, size, proof, root),
    ]
    if proof:
        tampered = [*proof[:at], flipped(proof[at], bit), *proof[at + 1 :]]
        wrong += [
            (leaf, index, size, tampered, root),
            (leaf, index, size, proof[:-1], root),
            (leaf, index, size, [*proof[:at], *proof[at + 1 :]], root),
            (leaf, (index + 1) % size, size, proof, root),
            (leaf, index ^ 1, size, proof, root),
        ]
    if len(set(proof)) > 1:
        wrong.append((leaf, index, size, proof[::-1], root))
    for case in wrong:
        with pytest.raises(ProofRefused):
            verify_inclusion(*case)


@given(second=st.integers(2, 130), data=st.data())
def test_a_consistency_proof_that_was_tampered_with_is_refused(second: int, data: st.DataObject) -> None:
    hashes, first = numbered(second), data.draw(st.integers(1, second - 1))
    tree = Tree(hashes)
    old, new, proof = tree.root(first), tree.root(), tree.consistency_proof(first)
    bit, at = data.draw(st.integers(0, 255)), data.draw(st.integers(0, len(proof) - 1))
    nothing: list[bytes] = []
    for case in [
        (first, second, flipped(old, bit), new, proof),
        (first, second, old, flipped(new, bit), proof),
        (first, second, new, old, proof),
        (first, second, old, new, nothing),
        (first, second, old, new, proof[:-1]),
        (first, second, old, new, [*proof, new]),
        (first, second, old, new, [old, *proof]),
        (first, second, old, new, [*proof[:at], flipped(proof[at], bit), *proof[at + 1 :]]),
        (second, first, old, new, proof),
        (first - 1, second, old, new, proof),
        (second, second, old, new, nothing),
        (0, second, old, new, nothing),
    ]:
        with pytest.raises(ProofRefused):
            verify_consistency(*case)


@given(size=st.integers(2, 60), data=st.data())
def test_history_that_was_rewritten_has_no_consistency_proof(size: int, data: st.DataObject) -> None:
    hashes = numbered(size)
    first = data.draw(st.integers(2, size))
    at, to = data.draw(st.integers(0, first - 1)), data.draw(st.integers(0, first - 1))
    changed = [*hashes[:at], sha256(b"other"), *hashes[at + 1 :]]
    removed = [*hashes[:at], *hashes[at + 1 :], sha256(b"new")]
    inserted = [*hashes[:at], sha256(b"other"), *hashes[at:]]
    moved = list(hashes)
    moved[at], moved[to] = moved[to], moved[at]
    for rewritten in [changed, removed, inserted, *([moved] if at != to else [])]:
        tree = Tree(rewritten)
        with pytest.raises(ProofRefused):
            proof = tree.consistency_proof(first)
            verify_consistency(first, tree.size, root_of(hashes[:first]), tree.root(), proof)


@given(st.integers(0, 300))
def test_a_frontier_holds_one_hash_for_each_bit_of_its_size(size: int) -> None:
    frontier, hashes = Frontier(), numbered(size)
    for each in hashes:
        frontier.append(each)
    assert len(frontier.nodes) == size.bit_count()
    assert frontier.root() == mth(hashes)


def test_there_is_no_proof_of_what_is_not_there() -> None:
    tree = Tree(HASHES)
    for impossible in (
        lambda: tree.inclusion_proof(8),
        lambda: tree.inclusion_proof(-1),
        lambda: tree.inclusion_proof(3, 3),
        lambda: tree.consistency_proof(5, 4),
        lambda: tree.root(9),
        lambda: verify_consistency(2, 1, ROOTS[1], ROOTS[0], []),
        lambda: verify_consistency(0, 0, ROOTS[0], ROOTS[0], []),
        lambda: verify_consistency(1, 1, ROOTS[0], ROOTS[1], []),
        lambda: verify_consistency(1, 1, ROOTS[0], ROOTS[0], [ROOTS[0]]),
    ):
        with pytest.raises(ProofRefused):
            impossible()
    assert Tree([]).root() == EMPTY_ROOT
    verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
