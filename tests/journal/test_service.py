"""The journal on real databases: one gapless chain, whoever appends, and no way to rewrite it unseen."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from galerne.journal import GENESIS, Entry, Head, LeafFilter, append, read, read_all, verify
from galerne.kernel import Database
from tests.journal.entries import Someone, entries, entry, stored, undone

several_examples = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


async def fill(database: Database, count: int) -> Head:
    async with database.transaction() as session:
        return await append(session, [entry(number) for number in range(count)])


async def tamper(database: Database, *statements: str) -> None:
    """What someone who owns the database can do: drop the guards, then change rows."""
    async with database.transaction() as session:
        if database.is_sqlite:
            names = (await session.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))).scalars()
            for name in names.all():
                await session.execute(text(f"DROP TRIGGER {name}"))
        else:
            await session.execute(text("ALTER TABLE journal_leaves DISABLE TRIGGER USER"))
            await session.execute(text("ALTER TABLE journal_head DISABLE TRIGGER USER"))
        for statement in statements:
            await session.execute(text(statement))


async def test_an_empty_journal_is_sound_and_starts_at_the_genesis(database: Database) -> None:
    async with database.transaction() as session:
        assert await append(session, []) == Head(0, GENESIS)
        verdict = await verify(session)
    assert (verdict.count, verdict.head, verdict.problem) == (0, Head(0, GENESIS), None)


@several_examples
@given(some=st.lists(entries, min_size=1, max_size=8), data=st.data())
async def test_any_split_into_batches_gives_the_chain_of_one_append(
    database: Database, some: list[Entry], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(some)), max_size=4)))
    batches = [some[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(some)], strict=True)]
    async with undone(database) as session:
        for batch in batches:
            head = await append(session, batch)
        leaves = await read_all(session, LeafFilter(oldest_first=True))
        assert (await verify(session)).problem is None
    assert leaves == stored(some)
    assert head == Head(len(some), leaves[-1].chain_hash)


async def test_an_append_that_is_rolled_back_leaves_no_gap(database: Database) -> None:
    await fill(database, 2)
    async with undone(database) as session:
        await append(session, [entry(8)])
    async with database.transaction() as session:
        head = await append(session, [entry(9)])
        verdict = await verify(session)
    assert (head.seq, verdict.count, verdict.problem) == (3, 3, None)


async def test_writers_on_several_connections_keep_the_sequence_gapless(database: Database) -> None:
    other = Database(database.url.render_as_string(hide_password=False))

    async def write(where: Database, first: int) -> None:
        for number in range(first, first + 10):
            async with where.transaction() as session:
                await append(session, [entry(number), entry(number)])

    try:
        await asyncio.gather(write(database, 0), write(other, 100), write(database, 200), write(other, 300))
    finally:
        await other.close()
    async with database.transaction() as session:
        verdict = await verify(session)
        leaves = await read_all(session, LeafFilter(oldest_first=True))
    assert (verdict.count, verdict.problem) == (80, None)
    assert [leaf.seq for leaf in leaves] == list(range(1, 81))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE journal_leaves SET action = 'x' WHERE seq = 2",
        "DELETE FROM journal_leaves WHERE seq = 3",
        "DELETE FROM journal_head",
        "UPDATE journal_head SET seq = 2",
        "UPDATE journal_head SET chain_hash = chain_hash",
    ],
)
async def test_the_database_refuses_to_rewrite(database: Database, statement: str) -> None:
    await fill(database, 3)
    with pytest.raises(DBAPIError):
        async with database.transaction() as session:
            await session.execute(text(statement))
    async with database.transaction() as session:
        assert (await verify(session)).count == 3


async def test_postgresql_refuses_to_truncate(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has no TRUNCATE")
    await fill(database, 1)
    for table in ("journal_leaves", "journal_head"):
        with pytest.raises(DBAPIError):
            async with database.transaction() as session:
                await session.execute(text(f"TRUNCATE {table}"))


@pytest.mark.parametrize(
    ("statement", "problem_seq", "why"),
    [
        ("UPDATE journal_leaves SET leaf = leaf_hash WHERE seq = 2", 2, "altered"),
        ("UPDATE journal_leaves SET organisation_id = 'org-2' WHERE seq = 2", 2, "columns"),
        ("UPDATE journal_leaves SET chain_hash = leaf_hash WHERE seq = 2", 2, "chain"),
        ("DELETE FROM journal_leaves WHERE seq = 2", 2, "missing"),
        ("DELETE FROM journal_leaves WHERE seq = 1", 1, "missing"),
        ("DELETE FROM journal_leaves WHERE seq > 3", 4, "cut off"),
        ("DELETE FROM journal_leaves", 1, "cut off"),
        ("UPDATE journal_head SET seq = 3", 4, "beyond"),
        ("UPDATE journal_head SET chain_hash = (SELECT chain_hash FROM journal_leaves WHERE seq = 1)", 5, "head"),
    ],
)
async def test_rewriting_past_the_guards_is_found(
    database: Database, statement: str, problem_seq: int, why: str
) -> None:
    await fill(database, 5)
    await tamper(database, statement)
    async with database.transaction() as session:
        verdict = await verify(session)
    assert verdict.problem_seq == problem_seq
    assert why in str(verdict.problem)


async def test_leaves_that_changed_places_are_found(database: Database) -> None:
    await fill(database, 4)
    await tamper(
        database,
        "UPDATE journal_leaves SET seq = 99 WHERE seq = 2",
        "UPDATE journal_leaves SET seq = 2 WHERE seq = 3",
        "UPDATE journal_leaves SET seq = 3 WHERE seq = 99",
    )
    async with database.transaction() as session:
        assert (await verify(session)).problem_seq == 2


async def test_verification_walks_over_more_leaves_than_one_step_takes(database: Database) -> None:
    head = await fill(database, 2500)
    async with database.transaction() as session:
        verdict = await verify(session)
    assert (verdict.count, verdict.head, verdict.problem) == (2500, head, None)


async def test_a_tenant_reads_only_its_own_leaves(database: Database) -> None:
    ours, theirs = Someone(organisation_id="ours"), Someone(organisation_id="theirs")
    async with database.transaction() as session:
        await append(session, [entry(number, actor=(ours, theirs)[number % 2]) for number in range(6)])
        found = await read(session, "ours")
        nobody = await read(session, "")
    assert [leaf.seq for leaf in found] == [5, 3, 1]
    assert {leaf.organisation_id for leaf in found} == {"ours"}
    assert nobody == []


async def test_reading_filters_and_goes_on_where_it_stopped(database: Database) -> None:
    in_space = Someone(kind="user", workspace_id="space")
    async with database.transaction() as session:
        await append(session, [entry(1), entry(2, action="model.add"), entry(3, actor=in_space), entry(4)])

        async def seqs(wanted: LeafFilter, limit: int = 20) -> list[int]:
            return [leaf.seq for leaf in await read(session, "org-1", wanted, limit)]

        assert await seqs(LeafFilter(), 2) == [4, 3]
        assert await seqs(LeafFilter(before=3), 2) == [2, 1]
        assert await seqs(LeafFilter(oldest_first=True, after=1), 2) == [2, 3]
        assert await seqs(LeafFilter(actions=["model.add", "nothing"])) == [2]
        assert await seqs(LeafFilter(actor_kinds=["user"])) == [3]
        assert await seqs(LeafFilter(workspace_id="space")) == [3]
