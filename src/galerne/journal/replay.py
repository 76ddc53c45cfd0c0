"""Verification by walking over all leaves: an exported journal against checkpoints, without any database. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from galerne.journal.checkpoint import Checkpoint
from galerne.journal.leaf import GENESIS, LOG, decode, extend
from galerne.journal.merkle import EMPTY_ROOT, Frontier, ProofRefused, hash_leaf
from galerne.journal.tiles import TILE_BYTES, TileId, grown

_HEX = 64
_START, _MIDDLE, _END = b'{"chain_hash":"', b'","leaf":', b',"leaf_hash":"'


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a sound export holds: `count` leaves, the chain hash after the last, how many are under a checkpoint."""

    count: int
    chain_hash: bytes
    signed: int


@dataclass(slots=True)
class TreeReplay:
    """Builds the tree once more, leaf by leaf, and compares its roots with what was signed; memory stays flat."""

    frontier: Frontier = field(default_factory=Frontier)
    _edge: dict[TileId, bytes] = field(default_factory=dict[TileId, bytes])

    def take(self, leaf_hashes: Sequence[bytes], checkpoints: Sequence[Checkpoint]) -> None:
        """Take the next leaves; raises `ProofRefused` where one of `checkpoints` says another root at its size."""
        signed_at = _by_size(checkpoints)
        for leaf_hash in leaf_hashes:
            self.frontier.append(leaf_hash)
            for each in signed_at.get(self.frontier.size, ()):
                check_root(each, self.frontier.root())

    def tiles(self, size: int, leaf_hashes: Sequence[bytes]) -> dict[TileId, bytes]:
        """The tiles that change when `leaf_hashes` follow a tree of `size` leaves, to be called for every batch."""
        changed = grown(size, self._edge, leaf_hashes)
        self._edge = {tile: hashes for tile, hashes in (self._edge | changed).items() if len(hashes) < TILE_BYTES}
        return changed


def verify_export(lines: Iterable[bytes], checkpoints: Sequence[Checkpoint]) -> Replayed:
    """Check an export of the whole journal, line by line: each leaf, its place, and the tree at each of `checkpoints`.

    The checkpoints must have been verified. Raises `ProofRefused` naming the first leaf or checkpoint that is wrong.
    """
    frontier, chain_hash, count = Frontier(), GENESIS, 0
    signed_at = _by_size(checkpoints)
    for each in signed_at.get(0, ()):
        check_root(each, EMPTY_ROOT)
    for line in lines:
        count += 1
        leaf_hash, chain_hash = _checked(line, count, chain_hash)
        frontier.append(leaf_hash)
        for each in signed_at.get(count, ()):
            check_root(each, frontier.root())
    signed = max((each.size for each in checkpoints), default=0)
    if signed > count:
        raise ProofRefused(f"The journal is cut off: {signed} leaves were signed, and here are {count}.")
    return Replayed(count, chain_hash, signed)


def _by_size(checkpoints: Sequence[Checkpoint]) -> dict[int, list[Checkpoint]]:
    found: dict[int, list[Checkpoint]] = {}
    for each in checkpoints:
        found.setdefault(each.size, []).append(each)
    return found


def check_root(signed: Checkpoint, root: bytes) -> None:
    """Return if `root` is what was signed; raises `ProofRefused` otherwise."""
    if signed.root != root:
        raise ProofRefused(
            f"The first {signed.size} leaves are not those that were signed: one was changed, removed, added or moved."
        )


def _checked(line: bytes, seq: int, chain_hash: bytes) -> tuple[bytes, bytes]:
    said_chain, leaf, said_hash = _parts(line, seq)
    leaf_hash = hash_leaf(leaf)
    try:
        fields = decode(leaf)
        place = (fields["v"], fields["log"], fields["seq"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ProofRefused(f"Line {seq} holds no leaf of a journal.") from None
    if place != (1, LOG, seq):
        raise ProofRefused(f"Leaf {seq} is missing or moved: line {seq} holds leaf {str(place[2])[:20]}.")
    if leaf_hash.hex().encode() != said_hash:
        raise ProofRefused(f"Leaf {seq} does not match its hash: it was altered.")
    after = extend(chain_hash, leaf_hash)
    if after.hex().encode() != said_chain:
        raise ProofRefused(f"The chain breaks at leaf {seq}: it, or one before it, is not the one that was appended.")
    return leaf_hash, after


def _parts(line: bytes, seq: int) -> tuple[bytes, bytes, bytes]:
    """The chain hash, the leaf byte for byte as it was hashed, and the leaf hash."""
    line = line.rstrip(b"\r\n")
    middle, end = len(_START) + _HEX, len(line) - len(b'"}') - _HEX - len(_END)
    leaf = middle + len(_MIDDLE)
    form = (line[: len(_START)], line[middle:leaf], line[end : end + len(_END)], line[-2:])
    if form != (_START, _MIDDLE, _END, b'"}') or end < leaf:
        raise ProofRefused(f"Line {seq} is not a line of a journal's export.")
    return line[len(_START) : middle], line[leaf:end], line[end + len(_END) : -2]
