"""The journal's use cases: append in the caller's transaction, read one organisation's leaves, verify the whole log."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Select, func, select
from sqlalchemy import Table as SqlTable
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.journal.chain import StoredLeaf, Verification, Verifier
from galerne.journal.leaf import Entry, Head, encode, extend
from galerne.journal.merkle import hash_leaf
from galerne.journal.tables import JournalHead, JournalLeaf
from galerne.kernel import Insert, Query, Script, invariant, run_in_session

_LEAVES = cast(SqlTable, JournalLeaf.__table__)
_LEAF_COLUMNS = tuple(column.name for column in _LEAVES.columns)
_BATCH = 1000
_NO_HEAD = "the journal has no head row: was the database migrated?"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafFilter:
    """Which leaves: actions and kinds of actor (empty: all), a workspace, strictly between two sequence numbers."""

    actions: Sequence[str] = ()
    actor_kinds: Sequence[str] = ()
    workspace_id: str | None = None
    after: int | None = None
    before: int | None = None
    oldest_first: bool = False


async def append(session: AsyncSession, entries: Sequence[Entry]) -> Head:
    """Append one leaf per entry, in order, in the caller's transaction; returns the head after them.

    Writers queue at the head until the transaction ends, so call it last, and once with all that is to be appended.
    """
    return await run_in_session(session, append_script(entries))


def append_script(entries: Sequence[Entry]) -> Script[Head]:
    """The same as a script; in a transaction with others' work it comes last too."""
    found = yield Query("SELECT seq, chain_hash FROM journal_head FOR UPDATE", {})
    invariant(len(found) == 1, _NO_HEAD)
    seq, chain_hash = cast(tuple[int, bytes], tuple(found[0]))
    if not entries:
        return Head(seq, chain_hash)
    rows: list[tuple[Any, ...]] = []
    for entry in entries:
        seq += 1
        leaf = encode(entry, seq)
        leaf_hash = hash_leaf(leaf)
        chain_hash = extend(chain_hash, leaf_hash)
        rows.append((*_columns(entry, seq), leaf, leaf_hash, chain_hash))
    yield Insert(_LEAVES, _LEAF_COLUMNS, rows)
    yield Query("UPDATE journal_head SET seq = :seq, chain_hash = :chain_hash", {"seq": seq, "chain_hash": chain_hash})
    return Head(seq, chain_hash)


async def read(
    session: AsyncSession, organisation_id: str, wanted: LeafFilter | None = None, limit: int = 20
) -> list[StoredLeaf]:
    """At most `limit` leaves of one organisation that pass the filter, newest first unless it says otherwise."""
    query = select(_LEAVES).where(JournalLeaf.organisation_id == organisation_id)
    return await _leaves(session, _filtered(query, wanted or LeafFilter()).limit(limit))


async def read_all(session: AsyncSession, wanted: LeafFilter | None = None, limit: int = _BATCH) -> list[StoredLeaf]:
    """Like `read`, over all organisations: for the operator alone, who holds the database anyway."""
    return await _leaves(session, _filtered(select(_LEAVES), wanted or LeafFilter()).limit(limit))


async def verify(session: AsyncSession) -> Verification:
    """Walk over the whole log in one transaction, in flat memory; the first problem ends the walk."""
    verifier = await start_verification(session)
    while await verify_more(session, verifier):
        pass
    return verifier.result()


async def start_verification(session: AsyncSession) -> Verifier:
    """A walk over the leaves that exist now; go on with `verify_more`, in this transaction or in others.

    Over a live log take one for each step: a long one holds back SQLite's checkpoints and PostgreSQL's vacuum.
    """
    last = select(func.coalesce(func.max(JournalLeaf.seq), 0)).scalar_subquery()
    row = (await session.execute(select(JournalHead.seq, JournalHead.chain_hash, last.label("last")))).one_or_none()
    invariant(row is not None, _NO_HEAD)
    seq, chain_hash, last_stored = cast(tuple[int, bytes, int], row)
    return Verifier(Head(seq, chain_hash), last_stored)


async def verify_more(session: AsyncSession, verifier: Verifier, limit: int = _BATCH) -> bool:
    """Check the next `limit` leaves; False when the walk is over and `verifier.result()` holds the verdict."""
    if verifier.finished:
        return False
    chosen = LeafFilter(after=verifier.count, before=verifier.head.seq + 1, oldest_first=True)
    leaves = await read_all(session, chosen, limit)
    return len(leaves) > 0 and all(verifier.check(leaf) for leaf in leaves)


def _columns(entry: Entry, seq: int) -> tuple[Any, ...]:
    actor = entry.actor
    return (
        seq,
        entry.at,
        actor.organisation_id,
        actor.workspace_id,
        str(actor.kind),
        actor.id,
        entry.action,
        entry.resource,
        entry.outcome,
        entry.request_id,
    )


def _filtered(query: Select[Any], chosen: LeafFilter) -> Select[Any]:
    if chosen.actions:
        query = query.where(JournalLeaf.action.in_(chosen.actions))
    if chosen.actor_kinds:
        query = query.where(JournalLeaf.actor_kind.in_(chosen.actor_kinds))
    if chosen.workspace_id is not None:
        query = query.where(JournalLeaf.workspace_id == chosen.workspace_id)
    if chosen.after is not None:
        query = query.where(JournalLeaf.seq > chosen.after)
    if chosen.before is not None:
        query = query.where(JournalLeaf.seq < chosen.before)
    return query.order_by(JournalLeaf.seq if chosen.oldest_first else JournalLeaf.seq.desc())


async def _leaves(session: AsyncSession, query: Select[Any]) -> list[StoredLeaf]:
    return [StoredLeaf(**row) for row in (await session.execute(query)).mappings()]
