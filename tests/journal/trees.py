"""The tree of RFC 9162 as its text defines it, recursively and slowly, and the vectors of Certificate Transparency."""

import hashlib
from collections.abc import Iterable, Sequence

from galerne.journal.merkle import ProofRefused, consistency_spans, hash_children, inclusion_spans, span_root
from galerne.journal.tiles import WIDTH, TileId, TilePart

LEAVES = [
    bytes.fromhex(each)
    for each in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    bytes.fromhex(each)
    for each in (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
# Index from 0 and size, then the proof; from the tests of Certificate Transparency's log.
INCLUSION = {
    (0, 1): [],
    (0, 8): ["96a296d224f285c6", "5f083f0a1a33ca07", "6b47aaf29ee3c2af"],
    (5, 8): ["bc1a0643b12e4d2d", "ca854ea128ed050b", "d37ee418976dd957"],
    (2, 3): ["fac54203e7cc696c"],
    (1, 5): ["6e340b9cffb37a98", "5f083f0a1a33ca07", "bc1a0643b12e4d2d"],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): ["96a296d224f285c6", "5f083f0a1a33ca07", "6b47aaf29ee3c2af"],
    (6, 8): ["0ebc5d3437fbe2db", "ca854ea128ed050b", "d37ee418976dd957"],
    (2, 5): ["5f083f0a1a33ca07", "bc1a0643b12e4d2d"],
    (6, 7): ["0ebc5d3437fbe2db", "b08693ec2e721597", "d37ee418976dd957"],
}


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def mth(hashes: Sequence[bytes]) -> bytes:
    """MTH over leaf hashes, section 2.1.1."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256(b"")
    k = below(len(hashes))
    return sha256(b"\x01" + mth(hashes[:k]) + mth(hashes[k:]))


def path(m: int, hashes: Sequence[bytes]) -> list[bytes]:
    """PATH, section 2.1.3.1."""
    if len(hashes) == 1:
        return []
    k = below(len(hashes))
    return [*path(m, hashes[:k]), mth(hashes[k:])] if m < k else [*path(m - k, hashes[k:]), mth(hashes[:k])]


def subproof(m: int, hashes: Sequence[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF, section 2.1.4.1."""
    if m == len(hashes):
        return [] if whole else [mth(hashes)]
    k = below(len(hashes))
    if m <= k:
        return [*subproof(m, hashes[:k], whole), mth(hashes[k:])]
    return [*subproof(m - k, hashes[k:], False), mth(hashes[:k])]


def below(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def numbered(count: int, seed: int = 0) -> list[bytes]:
    return [sha256(f"{seed}:{number}".encode()) for number in range(count)]


def parts_of(size: int) -> list[TilePart]:
    """Every tile of the tree of `size` leaves, level by level from the left."""
    parts: list[TilePart] = []
    level, count = 0, size
    while count:
        parts += [TilePart(TileId(level, number), WIDTH) for number in range(count // WIDTH)]
        if count % WIDTH:
            parts.append(TilePart(TileId(level, count // WIDTH), count % WIDTH))
        level, count = level + 1, count // WIDTH
    return parts


class Tree:
    """A tree over a list that fits into memory, such as an invoice's rated usage: any root and any proof."""

    def __init__(self, leaf_hashes: Iterable[bytes]) -> None:
        self._levels = [list(leaf_hashes)]
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            pairs = zip(below[::2], below[1::2], strict=False)
            self._levels.append([hash_children(left, right) for left, right in pairs])

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return len(self._levels[0])

    def root(self, size: int | None = None) -> bytes:
        """The root over the first `size` leaves, or over all."""
        return span_root((0, self._within(size)), self._node)

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """The hashes that prove leaf `index` (from 0) to be in the tree of the first `size` leaves, or of all."""
        return [span_root(span, self._node) for span in inclusion_spans(index, self._within(size))]

    def consistency_proof(self, first: int, second: int | None = None) -> list[bytes]:
        """The hashes that prove the tree of `first` leaves to be the beginning of that of `second`, or of all."""
        return [span_root(span, self._node) for span in consistency_spans(first, self._within(second))]

    def _within(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise ProofRefused(f"There is no tree of {size} leaves over {self.size}.")
        return size

    def _node(self, height: int, number: int) -> bytes:
        return self._levels[height][number]
