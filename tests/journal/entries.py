"""Entries, and leaves made without a database, for the journal's tests."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.journal import GENESIS, Entry, StoredLeaf
from galerne.journal.leaf import encode, extend
from galerne.journal.merkle import hash_leaf
from galerne.kernel import Database

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Someone:
    kind: str = "api_key"
    id: str = "key-1"
    organisation_id: str = "org-1"
    workspace_id: str | None = None


def entry(number: int = 0, *, actor: Someone | None = None, action: str = "api_key.create") -> Entry:
    return Entry(
        action=action,
        actor=actor or Someone(),
        resource=f"api_key/{number}",
        outcome="done",
        at=NOON + timedelta(seconds=number),
        request_id=f"{number:032x}",
        detail={"number": number},
    )


def stored(entries: Iterable[Entry]) -> list[StoredLeaf]:
    leaves: list[StoredLeaf] = []
    chain_hash = GENESIS
    for seq, one in enumerate(entries, 1):
        leaf = encode(one, seq)
        chain_hash = extend(chain_hash, hash_leaf(leaf))
        leaves.append(
            StoredLeaf(
                seq=seq,
                at=one.at,
                organisation_id=one.actor.organisation_id,
                workspace_id=one.actor.workspace_id,
                actor_kind=one.actor.kind,
                actor_id=one.actor.id,
                action=one.action,
                resource=one.resource,
                outcome=one.outcome,
                request_id=one.request_id,
                leaf=leaf,
                leaf_hash=hash_leaf(leaf),
                chain_hash=chain_hash,
            )
        )
    return leaves


# Hypothesis takes bounds without a zone and adds the zone itself.
times = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - see above
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
numbers = st.integers(-(2**53) + 1, 2**53 - 1)
actors = st.builds(Someone, st.sampled_from(["user", "api_key"]), texts, texts, st.none() | texts)
entries = st.builds(
    Entry,
    action=texts,
    actor=actors,
    resource=texts,
    outcome=st.sampled_from(["done", "refused", "failed"]),
    at=times,
    request_id=st.none() | texts,
    detail=st.dictionaries(texts, st.none() | st.booleans() | numbers | texts, max_size=4),
)


class _Undo(Exception):
    pass


@asynccontextmanager
async def undone(database: Database) -> AsyncGenerator[AsyncSession]:
    """A transaction that is rolled back: append-only tables cannot be emptied between the examples of one test."""
    try:
        async with database.transaction() as session:
            yield session
            raise _Undo
    except _Undo:
        pass
