"""The Merkle tree of RFC 9162 section 2.1 over any list of leaf hashes: roots, proofs, and their verification. Pure.

It knows neither journal nor database: whoever keeps nodes passes a function that finds them. Verification needs nothing
but the values that it is given.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from galerne.kernel.errors import GalerneError

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of a tree without leaves, RFC 9162 section 2.1.1."""

Span = tuple[int, int]
"""The leaves `begin` (included) to `end` (excluded) of a subtree of the whole tree."""
NodeFinder = Callable[[int, int], bytes]
"""Finds the hash of the perfect subtree of height `h` number `i`: over the leaves i * 2**h to (i + 1) * 2**h."""


class ProofRefused(GalerneError):
    """What should prove something does not; the message says what is wrong."""

    status = 422
    code = "proof_refused"


def hash_leaf(leaf: bytes) -> bytes:
    """SHA-256(0x00 || leaf), as RFC 9162 section 2.1.1."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def hash_children(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right), as RFC 9162 section 2.1.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over `hashes`, leaf hashes or the roots of perfect subtrees of one height; O(n)."""
    if not hashes:
        return EMPTY_ROOT
    sha256, level = hashlib.sha256, list(hashes)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
        if len(level) % 2:
            above.append(level[-1])  # a node without a sibling is its parent too
        level = above
    return level[0]


def inclusion_spans(index: int, size: int) -> list[Span]:
    """The subtrees whose roots prove that leaf `index` is in the tree of `size` leaves: PATH of section 2.1.3.1.

    Raises `ProofRefused` where there is no such leaf.
    """
    if not 0 <= index < size:
        raise ProofRefused(f"There is no leaf {index} in a tree of {size} leaves.")
    begin, end = 0, size
    spans: list[Span] = []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((begin, middle))
            begin = middle
    return spans[::-1]


def consistency_spans(first: int, second: int) -> list[Span]:
    """The subtrees whose roots prove that the tree of `first` leaves begins that of `second`: section 2.1.4.1.

    Empty where nothing is to be proved: `first` is 0 or `second`. Raises `ProofRefused` for sizes in the wrong order.
    """
    if not 0 <= first <= second:
        raise ProofRefused(f"A tree of {second} leaves cannot have grown out of one of {first}.")
    if first in (0, second):
        return []
    begin, end, whole = 0, second, True  # `whole`: the subtree's root is the verifier's own first root
    spans: list[Span] = []
    while first != end:
        middle = begin + _split(end - begin)
        if first <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((begin, middle))
            begin, whole = middle, False
    if not whole:
        spans.append((begin, end))
    return spans[::-1]


def perfect_nodes(span: Span) -> list[tuple[int, int]]:
    """The perfect subtrees, as height and number, that make up `span` from left to right; at most log2(n) of them."""
    begin, end = span
    nodes: list[tuple[int, int]] = []
    while begin < end:
        height = (end - begin).bit_length() - 1
        if begin:
            height = min(height, (begin & -begin).bit_length() - 1)
        nodes.append((height, begin >> height))
        begin += 1 << height
    return nodes


def span_root(span: Span, node: NodeFinder) -> bytes:
    """The root over the leaves of `span`, from the perfect subtrees that `node` finds."""
    return _fold([node(height, number) for height, number in perfect_nodes(span)])


@dataclass(slots=True)
class Frontier:
    """A growing tree that remembers only the perfect subtrees of its right edge: O(log n) memory and time per leaf.

    `nodes` are their hashes from left to right, one for each bit that is set in `size` (a compact range).
    """

    size: int = 0
    nodes: list[bytes] = field(default_factory=list[bytes])

    def append(self, leaf_hash: bytes) -> None:
        """Take one more leaf."""
        self.nodes.append(leaf_hash)
        full = self.size
        while full & 1:
            right = self.nodes.pop()
            self.nodes[-1] = hash_children(self.nodes[-1], right)
            full >>= 1
        self.size += 1

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Take more leaves, in their order."""
        sha256, nodes, size = hashlib.sha256, self.nodes, self.size
        for node in leaf_hashes:
            full = size
            while full & 1:
                node = sha256(b"\x01" + nodes.pop() + node).digest()
                full >>= 1
            nodes.append(node)
            size += 1
        self.size = size

    def root(self) -> bytes:
        """The root of the tree as it is now."""
        return _fold(self.nodes)


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Return if `proof` shows the leaf at `index` (from 0) of the tree of `size` leaves with `root`: section 2.1.3.2.

    Raises `ProofRefused` otherwise.
    """
    if not 0 <= index < size:
        raise ProofRefused(f"There is no leaf {index} in a tree of {size} leaves.")
    _check_hashes(leaf_hash, root, *proof)
    number, last, found = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            raise ProofRefused("The inclusion proof is longer than the tree is high.")
        if number & 1 or number == last:
            found = hash_children(sibling, found)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            found = hash_children(found, sibling)
        number, last = number >> 1, last >> 1
    if last != 0:
        raise ProofRefused("The inclusion proof is shorter than the tree is high.")
    if found != root:
        raise ProofRefused(f"Leaf {index} is not in the tree of {size} leaves with this root.")


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Return if `proof` shows that the tree of `first` leaves begins that of `second`: RFC 9162 section 2.1.4.2.

    Every tree begins with the empty one. Raises `ProofRefused` otherwise.
    """
    if not 0 <= first <= second:
        raise ProofRefused(f"The journal has gone back: it had {first} leaves and now has {second}.")
    _check_hashes(first_root, second_root, *proof)
    if first in (0, second):
        if proof:
            raise ProofRefused("The consistency proof should be empty, for there is nothing to prove.")
        if first_root != (EMPTY_ROOT if first == 0 else second_root):
            raise ProofRefused(f"Two different trees both claim to have {first} leaves.")
        return
    if not proof:
        raise ProofRefused("The consistency proof is empty.")
    path = list(proof) if first & (first - 1) else [first_root, *proof]
    old, new = _grown(first, second, path)
    if old != first_root or new != second_root:
        raise ProofRefused(f"The tree of {second} leaves did not grow out of that of {first}: history was rewritten.")


def _grown(first: int, second: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    number, last = first - 1, second - 1
    while number & 1:
        number, last = number >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofRefused("The consistency proof is longer than the tree is high.")
        if number & 1 or number == last:
            old, new = hash_children(sibling, old), hash_children(sibling, new)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            new = hash_children(new, sibling)
        number, last = number >> 1, last >> 1
    if last != 0:
        raise ProofRefused("The consistency proof is shorter than the tree is high.")
    return old, new


def _check_hashes(*hashes: bytes) -> None:
    if any(len(each) != HASH_BYTES for each in hashes):
        raise ProofRefused(f"A hash is not {HASH_BYTES} bytes long.")


def _split(count: int) -> int:
    """The largest power of two below `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def _fold(nodes: Sequence[bytes]) -> bytes:
    if not nodes:
        return EMPTY_ROOT
    root = nodes[-1]
    for left in reversed(nodes[:-1]):
        root = hash_children(left, root)
    return root
