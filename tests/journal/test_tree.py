"""The tree on real databases: it follows the leaves in order, whoever grows it, and stops where one was altered."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from galerne.journal import (
    JournalAltered,
    ProofRefused,
    consistency_proof,
    grow_tree,
    inclusion_proof,
    inclusion_proofs,
    read_all,
    read_tile,
    tree_root,
    tree_state,
    verify_consistency,
    verify_inclusion,
)
from galerne.journal.service import LeafFilter
from galerne.journal.tiles import TileId, TilePart
from galerne.kernel import Database
from tests.journal.test_service import fill, tamper
from tests.journal.trees import Tree, parts_of


async def grown_to(database: Database, count: int) -> Tree:
    await fill(database, count)
    while await grow_tree(database, most=700):
        pass
    return await tree_of(database)


async def tree_of(database: Database) -> Tree:
    async with database.reading() as session:
        leaves = await read_all(session, LeafFilter(oldest_first=True), 100_000)
    return Tree(leaf.leaf_hash for leaf in leaves)


async def test_the_tree_follows_and_proves_every_leaf_and_every_growth(database: Database) -> None:
    tree = await grown_to(database, 900)
    async with database.reading() as session:
        state = await tree_state(session)
        assert (state.size, state.head) == (900, 900)
        for size in (1, 255, 256, 257, 512, 899, 900):
            assert await tree_root(session, size) == tree.root(size)
            for index in {0, size // 2, size - 1}:
                proof = await inclusion_proof(session, index, size)
                assert proof == tree.inclusion_proof(index, size)
            some = [0, size - 1, size // 3, size - 1]
            assert await inclusion_proofs(session, some, size) == [tree.inclusion_proof(each, size) for each in some]
            proof = await consistency_proof(session, size, 900)
            verify_consistency(size, 900, tree.root(size), tree.root(), proof)


async def test_growing_in_any_steps_gives_the_tiles_of_one_step_and_idle_steps_do_nothing(database: Database) -> None:
    assert await grow_tree(database) == 0
    for count in (1, 254, 1, 1, 300):
        await fill(database, count)
        while await grow_tree(database, most=100):
            pass
    assert await grow_tree(database) == 0
    tree = await tree_of(database)
    async with database.reading() as session:
        assert (await tree_state(session)).size == tree.size == 557
        for part in parts_of(557):
            assert await read_tile(session, part) is not None
        assert await read_tile(session, TilePart(TileId(0, 2), 46)) is None
        assert await tree_root(session, 557) == tree.root()
        rows = await session.execute(text("SELECT count(*) FROM journal_tiles"))
        assert rows.scalar_one() == len(parts_of(557))


async def test_processes_that_grow_it_at_once_while_others_append_build_one_tree(database: Database) -> None:
    other = Database(database.url.render_as_string(hide_password=False))
    done = asyncio.Event()

    async def grow(where: Database) -> int:
        taken = 0
        while not done.is_set() or (await grow_tree(where, most=37)):
            taken += await grow_tree(where, most=37)
            await asyncio.sleep(0.001)
        return taken

    async def write() -> None:
        for _ in range(12):
            await fill(database, 25)
        done.set()

    try:
        await asyncio.gather(grow(database), grow(other), write())
        while await grow_tree(other):
            pass
    finally:
        await other.close()
    tree = await tree_of(database)
    async with database.reading() as session:
        assert (await tree_state(session)).size == tree.size == 300
        assert await tree_root(session, 300) == tree.root()
        (leaf,) = await read_all(session, LeafFilter(after=17, oldest_first=True), 1)
        proof = await inclusion_proof(session, 17, 300)
        verify_inclusion(leaf.leaf_hash, 17, 300, proof, tree.root())


@pytest.mark.parametrize(
    ("statements", "why"),
    [
        (["UPDATE journal_leaves SET leaf = leaf_hash WHERE seq = 7"], "Leaf 7 .* altered"),
        (["UPDATE journal_leaves SET leaf_hash = chain_hash WHERE seq = 7"], "Leaf 7 .* altered"),
        (["UPDATE journal_leaves SET chain_hash = leaf_hash WHERE seq = 7"], "Leaf 7 .* chain"),
        (["DELETE FROM journal_leaves WHERE seq = 7"], "Leaf 7 .* missing"),
        (["DELETE FROM journal_leaves WHERE seq > 5"], "Leaf 6 .* missing"),
        (
            [
                "UPDATE journal_leaves SET seq = 99 WHERE seq = 7",
                "UPDATE journal_leaves SET seq = 7 WHERE seq = 8",
                "UPDATE journal_leaves SET seq = 8 WHERE seq = 99",
            ],
            "Leaf 7 .* chain",
        ),
    ],
)
async def test_a_leaf_that_was_altered_never_enters_the_tree(
    database: Database, statements: list[str], why: str
) -> None:
    await grown_to(database, 5)
    await fill(database, 5)
    await tamper(database, *statements)
    with pytest.raises(JournalAltered, match=why):
        await grow_tree(database)
    async with database.reading() as session:
        assert (await tree_state(session)).size == 5


async def test_a_tile_that_was_cut_stops_the_tree(database: Database) -> None:
    await grown_to(database, 5)
    await fill(database, 5)
    await tamper_tree(database, "UPDATE journal_tiles SET hashes = substr(hashes, 1, 64)")
    with pytest.raises(JournalAltered, match="Tile 0 of level 0"):
        await grow_tree(database)


async def tamper_tree(database: Database, *statements: str) -> None:
    """As `tamper`, for the tree's tables too."""
    if not database.is_sqlite:
        for table in ("journal_tree", "journal_tiles", "journal_checkpoints", "journal_keys"):
            async with database.transaction() as session:
                await session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
    await tamper(database, *statements)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE journal_tree SET size = 4",
        "UPDATE journal_tree SET chain_hash = chain_hash",
        "DELETE FROM journal_tree",
        "UPDATE journal_tiles SET hashes = substr(hashes, 1, 64)",
        "UPDATE journal_tiles SET hashes = substr(hashes, 33, 128) || substr(hashes, 1, 64)",
        "UPDATE journal_tiles SET number = 1",
        "DELETE FROM journal_tiles",
    ],
)
async def test_the_database_refuses_to_rewrite_the_tree(database: Database, statement: str) -> None:
    await grown_to(database, 5)
    with pytest.raises(DBAPIError):
        async with database.transaction() as session:
            await session.execute(text(statement))


async def test_there_is_no_proof_beyond_the_tree(database: Database) -> None:
    await grown_to(database, 5)
    await fill(database, 1)
    async with database.reading() as session:
        for impossible in (inclusion_proof(session, 5, 6), consistency_proof(session, 1, 6), tree_root(session, 6)):
            with pytest.raises(ProofRefused, match="5 leaves as yet"):
                await impossible
        with pytest.raises(ProofRefused):
            await inclusion_proof(session, 5, 5)
        with pytest.raises(ProofRefused):
            await consistency_proof(session, 4, 3)


async def test_a_process_killed_between_its_steps_leaves_a_tree_that_another_goes_on_with(
    database: Database,
) -> None:
    await fill(database, 600)
    task = asyncio.create_task(grow_tree(database, most=600))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    tree = await grown_to(database, 1)
    async with database.reading() as session:
        assert await tree_root(session, 601) == tree.root()
