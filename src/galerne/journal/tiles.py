"""A tree cut into tiles of 256 hashes, as C2SP tlog-tiles lays it out: which there are, how they grow, what they prove.

Pure. A tile of level `l` and number `n` holds the roots of the perfect subtrees of height 8 * l from 256 * n on. It
only grows at its end, and once it is full it never changes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from galerne.journal.merkle import HASH_BYTES, NodeFinder, ProofRefused, Span, perfect_nodes, root_of, span_root

HEIGHT = 8
WIDTH = 1 << HEIGHT
TILE_BYTES = WIDTH * HASH_BYTES
_PATH = re.compile(r"(?P<number>(?:x\d{3}/){0,5}\d{3})(?:\.p/(?P<width>[1-9]\d{0,2}))?")


class TileId(NamedTuple):
    """Where a tile lies: `level` 0 holds leaf hashes; `number` counts tiles from the left."""

    level: int
    number: int


class TilePart(NamedTuple):
    """A tile, or the first `width` hashes of one (256 for a full one)."""

    tile: TileId
    width: int

    @property
    def path(self) -> str:
        """Its address below the log's prefix: `tile/0/x001/067` or, partial, `tile/0/x001/067.p/112`."""
        groups = f"{self.tile.number:,}".split(",")
        padded = [f"x{group:0>3}" for group in groups[:-1]] + [f"{groups[-1]:0>3}"]
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{self.tile.level}/{'/'.join(padded)}{partial}"


def parse_path(level: int, rest: str) -> TilePart | None:
    """The part at `tile/<level>/<rest>`, or None where no tile can have that address, as from 10^18 on."""
    found = _PATH.fullmatch(rest)
    if found is None or not 0 <= level <= 63:
        return None
    number = int(found["number"].replace("/", "").replace("x", ""))
    width = int(found["width"] or WIDTH)
    part = TilePart(TileId(level, number), width)
    # One address for each tile: without superfluous groups of zeros, and `.p/256` is not a partial tile.
    return part if width <= WIDTH and part.path == f"tile/{level}/{rest}" else None


def edge_of(size: int) -> list[TileId]:
    """The partial tiles on the right edge of the tree of `size` leaves: those that grow next."""
    edge: list[TileId] = []
    level, count = 0, size
    while count:
        if count % WIDTH:
            edge.append(TileId(level, count // WIDTH))
        level, count = level + 1, count // WIDTH
    return edge


def width_of(tile: TileId, size: int) -> int:
    """How many hashes `tile` holds in the tree of `size` leaves; 0 to 256."""
    return min(max((size >> (HEIGHT * tile.level)) - tile.number * WIDTH, 0), WIDTH)


def grown(size: int, edge: Mapping[TileId, bytes], leaf_hashes: Sequence[bytes]) -> dict[TileId, bytes]:
    """The tiles that change when `leaf_hashes` are appended to a tree of `size` leaves, `edge` its partial tiles."""
    changed: dict[TileId, bytes] = {}
    level, count, new = 0, size, list(leaf_hashes)
    while new:
        first = TileId(level, count // WIDTH)
        whole = edge.get(first, b"")[: count % WIDTH * HASH_BYTES] + b"".join(new)
        above: list[bytes] = []
        for number, start in enumerate(range(0, len(whole), TILE_BYTES), first.number):
            tile = whole[start : start + TILE_BYTES]
            changed[TileId(level, number)] = tile
            if len(tile) == TILE_BYTES:
                above.append(root_of(split(tile)))
        level, count, new = level + 1, count // WIDTH, above
    return changed


def split(hashes: bytes) -> list[bytes]:
    """The hashes of a tile one by one."""
    return [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]


def needed(spans: Sequence[Span]) -> set[TileId]:
    """The tiles that the roots of `spans` are computed from; at most about one for each level and span."""
    return {_place(height, number)[0] for span in spans for height, number in perfect_nodes(span)}


def roots_in(tiles: Mapping[TileId, bytes], spans: Sequence[Span]) -> list[bytes]:
    """The root of each of `spans`, from the `needed` tiles; raises `ProofRefused` where a tile lacks a hash."""
    node = _finder(tiles)
    return [span_root(span, node) for span in spans]


def _finder(tiles: Mapping[TileId, bytes]) -> NodeFinder:
    def node(height: int, number: int) -> bytes:
        tile, start, count = _place(height, number)
        hashes = tiles.get(tile, b"")[start * HASH_BYTES : (start + count) * HASH_BYTES]
        if len(hashes) != count * HASH_BYTES:
            raise ProofRefused(f"Tile {tile.number} of level {tile.level} lacks hashes that the tree's size promises.")
        return root_of(split(hashes))

    return node


def _place(height: int, number: int) -> tuple[TileId, int, int]:
    """The tile that holds a perfect subtree's hashes, the first of them in it, and how many there are."""
    level, inside = divmod(height, HEIGHT)
    first = number << inside
    return TileId(level, first // WIDTH), first % WIDTH, 1 << inside
