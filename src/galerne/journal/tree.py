"""The tree in the database: it follows the committed leaves, off the path of those who append them, and proves things.

Each leaf is checked against its hash and its place in the chain before it enters the tree. Any number of processes may
grow the tree at once: what one has computed is written only where nobody was faster.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Table as SqlTable
from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.journal.leaf import extend
from galerne.journal.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    ProofRefused,
    Span,
    consistency_spans,
    hash_leaf,
    inclusion_spans,
)
from galerne.journal.tables import JournalHead, JournalLeaf, JournalTile, JournalTree
from galerne.journal.tiles import TileId, TilePart, edge_of, grown, needed, roots_in, width_of
from galerne.kernel import Database, Insert, Query, Script, invariant, run_in_session

_TILES = cast(SqlTable, JournalTile.__table__)
_TILE_COLUMNS = ("level", "number", "hashes")
_AT_ONCE = 512  # leaves hashed without a pause: about 2 ms in which nobody else is served
_A_COMMIT = 8192  # leaves


class JournalAltered(ProofRefused):
    """A stored leaf is not what was appended: the tree stops before it, and nothing beyond it is signed."""

    code = "journal_altered"


@dataclass(frozen=True, slots=True)
class TreeState:
    """How far the tree reaches: `size` leaves, `chain_hash` at the last of them; `head` is the last leaf's number."""

    size: int
    chain_hash: bytes
    head: int


async def tree_state(session: AsyncSession) -> TreeState:
    """How far the tree reaches, and the log."""
    query = select(JournalTree.size, JournalTree.chain_hash, JournalHead.seq)
    found = await session.execute(query.join_from(JournalTree, JournalHead, JournalHead.id == JournalTree.id))
    row = found.one_or_none()
    invariant(row is not None, "the journal has no tree row: was the database migrated?")
    return TreeState(*cast(tuple[int, bytes, int], row))


async def grow_tree(database: Database, most: int = _A_COMMIT) -> int:
    """Take up to `most` further leaves into the tree, in transactions of its own; how many of them it was.

    0 means that there is nothing to do, or that another process did it meanwhile. Raises `JournalAltered`, and writes
    nothing, at a leaf that is not what was appended.
    """
    async with database.reading() as session:
        before = await tree_state(session)
        if before.head <= before.size:
            return 0
        edge = await read_tiles(session, edge_of(before.size))
    _check_edge(before.size, edge)
    hashes: list[bytes] = []
    chain_hash, last = before.chain_hash, min(before.head, before.size + most)
    while before.size + len(hashes) < last:
        after = before.size + len(hashes)
        async with database.reading() as session:
            rows = await _leaves(session, after, min(last, after + _AT_ONCE))
        chain_hash = _checked(rows, after, chain_hash, hashes)
        await asyncio.sleep(0)
    changed = grown(before.size, edge, hashes)
    async with database.transaction() as session:
        written = await run_in_session(session, _write(before, len(hashes), chain_hash, changed))
    return len(hashes) if written else 0


async def tree_root(session: AsyncSession, size: int) -> bytes:
    """The root of the tree of the first `size` leaves; raises `ProofRefused` where the tree has not got so far."""
    return EMPTY_ROOT if size == 0 else (await _roots(session, size, [(0, size)]))[0]


async def inclusion_proof(session: AsyncSession, index: int, size: int) -> list[bytes]:
    """The hashes that prove leaf `index` (its `seq` - 1) to be in the tree of `size` leaves; O(log n) tiles are read.

    Raises `ProofRefused` where there is no such leaf, or the tree has not got so far.
    """
    return await _roots(session, size, inclusion_spans(index, size))


async def inclusion_proofs(session: AsyncSession, indexes: Sequence[int], size: int) -> list[list[bytes]]:
    """The same for many leaves at once: what neighbours share is read and computed once."""
    paths = [inclusion_spans(index, size) for index in indexes]
    spans = list({span: None for path in paths for span in path})
    roots = dict(zip(spans, await _roots(session, size, spans), strict=True))
    return [[roots[span] for span in path] for path in paths]


async def consistency_proof(session: AsyncSession, first: int, second: int) -> list[bytes]:
    """The hashes that prove the tree of `first` leaves to begin that of `second`; errors as `inclusion_proof`."""
    return await _roots(session, second, consistency_spans(first, second))


async def read_tile(session: AsyncSession, part: TilePart) -> bytes | None:
    """The hashes of a tile or of the beginning of one; None where the tree has not got so far."""
    hashes = (await read_tiles(session, [part.tile])).get(part.tile, b"")[: part.width * HASH_BYTES]
    return hashes if len(hashes) == part.width * HASH_BYTES else None


async def read_tiles(session: AsyncSession, wanted: Iterable[TileId]) -> dict[TileId, bytes]:
    """Those of the tiles that there are."""
    places = [tuple(each) for each in wanted]
    if not places:
        return {}
    query = select(_TILES).where(tuple_(JournalTile.level, JournalTile.number).in_(places))
    return {TileId(level, number): hashes for level, number, hashes in await session.execute(query)}


def _check_edge(size: int, edge: Mapping[TileId, bytes]) -> None:
    # A longer tile is no news: it was read after another process had gone on.
    for tile in edge_of(size):
        if len(edge.get(tile, b"")) < width_of(tile, size) * HASH_BYTES:
            raise JournalAltered(f"Tile {tile.number} of level {tile.level} is not as long as the tree says. {_KEEP}")


async def _roots(session: AsyncSession, size: int, spans: Sequence[Span]) -> list[bytes]:
    reached = (await tree_state(session)).size
    if not 0 <= size <= reached:
        raise ProofRefused(f"The tree has {reached} leaves as yet, not {size}.")
    return roots_in(await read_tiles(session, needed(spans)), spans)


async def _leaves(session: AsyncSession, after: int, last: int) -> Sequence[tuple[int, bytes, bytes, bytes]]:
    query = (
        select(JournalLeaf.seq, JournalLeaf.leaf, JournalLeaf.leaf_hash, JournalLeaf.chain_hash)
        .where(JournalLeaf.seq > after, JournalLeaf.seq <= last)
        .order_by(JournalLeaf.seq)
    )
    rows = (await session.execute(query)).all()
    if not rows:
        raise JournalAltered(f"Leaf {after + 1} of the journal is missing. {_KEEP}")
    return cast(Sequence[tuple[int, bytes, bytes, bytes]], rows)


_KEEP = "The tree stops before it and nothing beyond it is signed: keep this database as evidence."


def _checked(
    rows: Sequence[tuple[int, bytes, bytes, bytes]], seq: int, chain_hash: bytes, hashes: list[bytes]
) -> bytes:
    """The chain hash after `rows`, whose leaf hashes are added to `hashes`."""
    for found, leaf, leaf_hash, stored in rows:
        seq += 1
        if found != seq:
            raise JournalAltered(f"Leaf {seq} of the journal is missing. {_KEEP}")
        if hash_leaf(leaf) != leaf_hash:
            raise JournalAltered(f"Leaf {seq} of the journal does not match its hash: it was altered. {_KEEP}")
        chain_hash = extend(chain_hash, leaf_hash)
        if chain_hash != stored:
            raise JournalAltered(f"Leaf {seq} of the journal does not continue the chain. {_KEEP}")
        hashes.append(leaf_hash)
    return chain_hash


def _write(before: TreeState, count: int, chain_hash: bytes, changed: Mapping[TileId, bytes]) -> Script[bool]:
    found = yield Query(
        "UPDATE journal_tree SET size = :size, chain_hash = :chain_hash WHERE size = :before RETURNING size",
        {"size": before.size + count, "chain_hash": chain_hash, "before": before.size},
    )
    if not found:
        return False  # another process has grown it meanwhile
    edge = set(edge_of(before.size))
    for tile in edge & changed.keys():
        yield Query(
            "UPDATE journal_tiles SET hashes = :hashes WHERE level = :level AND number = :number",
            {"hashes": changed[tile], "level": tile.level, "number": tile.number},
        )
    yield Insert(_TILES, _TILE_COLUMNS, [(*tile, hashes) for tile, hashes in changed.items() if tile not in edge])
    return True
