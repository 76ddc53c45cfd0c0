"""Tiles as C2SP lays them out: what there is, where, and that they grow and prove as the whole tree does."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galerne.journal.merkle import ProofRefused, consistency_spans, inclusion_spans
from galerne.journal.tiles import (
    TILE_BYTES,
    WIDTH,
    TileId,
    TilePart,
    edge_of,
    grown,
    needed,
    parse_path,
    roots_in,
    width_of,
)
from tests.journal.trees import Tree, numbered, parts_of

MANY = numbered(70_000)
TREE = Tree(MANY)


def tiles(count: int, batch: int = 10_000) -> dict[TileId, bytes]:
    found: dict[TileId, bytes] = {}
    for size in range(0, count, batch):
        edge = {tile: found[tile] for tile in edge_of(size)}
        found |= grown(size, edge, MANY[size : min(size + batch, count)])
    return found


ALL = tiles(70_000)


def test_the_tiles_of_the_specification_s_example_are_those_that_it_names() -> None:
    shapes = [(part.tile.level, part.width) for part in parts_of(70_000)]
    assert shapes.count((0, WIDTH)) == 273
    assert [shape for shape in shapes if shape != (0, WIDTH)] == [(0, 112), (1, WIDTH), (1, 17), (2, 1)]
    assert [(part.tile.level, part.width) for part in parts_of(256)] == [(0, 256), (1, 1)]
    assert {tile: len(hashes) // 32 for tile, hashes in ALL.items()} == {
        each.tile: each.width for each in parts_of(70_000)
    }


def test_addresses_are_those_of_the_specification() -> None:
    assert TilePart(TileId(0, 1_234_067), WIDTH).path == "tile/0/x001/x234/067"
    assert TilePart(TileId(1, 5), 17).path == "tile/1/005.p/17"


@given(st.integers(0, 63), st.integers(0, 2**50), st.integers(1, WIDTH))
def test_an_address_leads_to_its_tile(level: int, number: int, width: int) -> None:
    part = TilePart(TileId(level, number), width)
    assert parse_path(level, part.path.removeprefix(f"tile/{level}/")) == part


@pytest.mark.parametrize(
    "rest",
    [
        *("", "1", "0001", "x000/001", "001/002", "001.p/0", "001.p/256", "001.p/257", "001.p/01", "x01/002", "../001"),
        "x999/" * 6 + "999",  # more than any database counts
        "x999/" * 2000 + "999",  # more digits than Python reads
    ],
)
def test_what_is_no_address_leads_nowhere(rest: str) -> None:
    assert parse_path(0, rest) is None
    assert parse_path(64, "000") is None


@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 70_000), max_size=6))
def test_any_split_into_batches_gives_the_same_tiles_and_a_full_one_never_changes(cuts: list[int]) -> None:
    found: dict[TileId, bytes] = {}
    bounds = [0, *sorted(cuts), 70_000]
    for start, stop in itertools.pairwise(bounds):
        changed = grown(start, {tile: found[tile] for tile in edge_of(start)}, MANY[start:stop])
        for tile, hashes in changed.items():
            before = found.get(tile, b"")
            assert len(before) < TILE_BYTES
            assert hashes.startswith(before)
            assert len(hashes) == width_of(tile, stop) * 32
        found |= changed
    assert found == ALL


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 70_000), data=st.data())
def test_tiles_prove_what_the_whole_tree_proves_in_few_reads(size: int, data: st.DataObject) -> None:
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, size))
    for spans, proof in [
        ([(0, size)], [TREE.root(size)]),
        (inclusion_spans(index, size), TREE.inclusion_proof(index, size)),
        (consistency_spans(first, size), TREE.consistency_proof(first, size)),
    ]:
        wanted = needed(spans)
        assert len(wanted) <= 6  # three levels: the tile of the leaf or the old edge, and that of the right edge
        assert roots_in({tile: ALL[tile] for tile in wanted}, spans) == proof


def test_a_tile_that_lacks_a_hash_is_refused() -> None:
    spans = inclusion_spans(69_999, 70_000)
    cut = {tile: ALL[tile][:-32] for tile in needed(spans)}
    with pytest.raises(ProofRefused, match="lacks hashes"):
        roots_in(cut, spans)
