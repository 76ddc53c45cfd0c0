"""Keys and checkpoints in the database: keys are made and rotated here, and a checkpoint is signed only when the tree
is seen to have grown out of those before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.journal.checkpoint import Checkpoint, Proof, parse_checkpoint, verify_checkpoint, verify_growth
from galerne.journal.leaf import ActorLike, Entry
from galerne.journal.merkle import ProofRefused
from galerne.journal.note import Signer, VerifierKey, sign_note
from galerne.journal.service import append
from galerne.journal.tables import JournalCheckpoint, JournalKey, JournalLeaf, JournalTree
from galerne.journal.tree import consistency_proof, inclusion_proof, tree_root
from galerne.kernel import Clock, NotFound, Unavailable, invariant, token
from galerne.kernel.sealing import Sealer


class CheckpointRefused(ProofRefused):
    """The journal is not a continuation of what was signed before, so nothing more is signed."""

    code = "checkpoint_refused"


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint as it was published: the `number`-th, with the signed `note` that is the record of it."""

    number: int
    checkpoint: Checkpoint
    note: str
    at: datetime


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """A key that signs or signed checkpoints; a retired one is to verify old ones with."""

    key: VerifierKey
    created_at: datetime
    retired_at: datetime | None


async def list_keys(session: AsyncSession) -> list[PublishedKey]:
    """Every key that ever signed, oldest first."""
    rows = (await session.scalars(select(JournalKey).order_by(JournalKey.number))).all()
    return [PublishedKey(VerifierKey(row.name, row.public_key), row.created_at, row.retired_at) for row in rows]


async def ensure_key(session: AsyncSession, actor: ActorLike, sealer: Sealer, clock: Clock, origin: str = "") -> None:
    """Make the log's first key, named `origin` or by chance, unless there is one; `actor` is who is journalled."""
    await _lock(session)
    if (await session.execute(select(func.count()).select_from(JournalKey))).scalar_one():
        return
    signer = Signer.generate(origin or f"galerne/{token(16)}")
    at = clock.now()
    session.add(_row(signer, 1, sealer, at))
    await session.flush()
    await append(session, [_entry("journal.key.created", actor, signer, at, {})])


async def rotate_key(session: AsyncSession, actor: ActorLike, sealer: Sealer, clock: Clock) -> VerifierKey:
    """Make a new key and retire the others; the next checkpoint is signed by all, after which their secrets are gone.

    Raises `NotFound` where there is no key yet.
    """
    await _lock(session)
    rows = (await session.scalars(select(JournalKey).order_by(JournalKey.number))).all()
    if not rows:
        raise NotFound("The journal has no key yet: `galerne journal checkpoint` makes one.")
    signer, at = Signer.generate(rows[-1].name), clock.now()
    for row in rows:
        row.retired_at = row.retired_at or at
    session.add(_row(signer, rows[-1].number + 1, sealer, at))
    await session.flush()
    await append(session, [_entry("journal.key.rotated", actor, signer, at, {"before": rows[-1].id})])
    return signer.verifier


async def latest_checkpoint(session: AsyncSession) -> SignedCheckpoint | None:
    """The newest checkpoint, if one has been signed."""
    query = select(JournalCheckpoint).order_by(JournalCheckpoint.number.desc()).limit(1)
    row = (await session.scalars(query)).one_or_none()
    return None if row is None else _signed(row)


async def checkpoint_over(session: AsyncSession, size: int) -> SignedCheckpoint | None:
    """The oldest checkpoint of a tree of at least `size` leaves."""
    query = select(JournalCheckpoint).where(JournalCheckpoint.size >= size).order_by(JournalCheckpoint.number).limit(1)
    row = (await session.scalars(query)).one_or_none()
    return None if row is None else _signed(row)


async def checkpoints_between(session: AsyncSession, after: int, last: int) -> list[SignedCheckpoint]:
    """The checkpoints of trees of more than `after` and at most `last` leaves, oldest first."""
    query = (
        select(JournalCheckpoint)
        .where(JournalCheckpoint.size > after, JournalCheckpoint.size <= last)
        .order_by(JournalCheckpoint.number)
    )
    return [_signed(row) for row in await session.scalars(query)]


async def sign_checkpoint(
    session: AsyncSession, sealer: Sealer, clock: Clock, remembered: Sequence[Checkpoint] = ()
) -> SignedCheckpoint:
    """The checkpoint of the tree as it is: a new one, or the newest where nothing has changed since.

    `remembered` are checkpoints kept outside the database. Raises `CheckpointRefused` when the tree did not grow out of
    one of those, or of the newest that was signed; `Unavailable` without a key, or where this process cannot open it.
    """
    size = await _lock(session)
    rows = (await session.scalars(select(JournalKey).order_by(JournalKey.number))).all()
    signing = [row for row in rows if row.sealed_seed is not None]
    if not signing:
        raise Unavailable("The journal has no key to sign with yet.")
    newest = await latest_checkpoint(session)
    pending = any(row.retired_at is not None for row in signing) or newest is None
    checkpoint = Checkpoint(signing[-1].name, size, await _checked_root(session, size))
    keys = [VerifierKey(row.name, row.public_key) for row in rows]
    await _check_growth(session, checkpoint, newest, keys, remembered)
    if newest is not None and newest.checkpoint.size == size and not pending:
        return newest
    note = sign_note(checkpoint.text, [_signer(row, sealer) for row in signing])
    invariant(verify_checkpoint(note, keys) == checkpoint, "a checkpoint that we signed does not verify")
    signed = SignedCheckpoint(1 if newest is None else newest.number + 1, checkpoint, note, clock.now())
    session.add(JournalCheckpoint(number=signed.number, size=size, root=checkpoint.root, note=note, at=signed.at))
    retired = [row.id for row in signing if row.retired_at is not None]
    await session.execute(update(JournalKey).where(JournalKey.id.in_(retired)).values(sealed_seed=None))
    await session.flush()
    return signed


async def prove_leaf(
    session: AsyncSession, seq: int, organisation_id: str | None = None, workspace_id: str | None = None
) -> Proof:
    """The leaf `seq` (from 1) with what shows that it is under the oldest checkpoint that covers it.

    With `organisation_id` or `workspace_id` only a leaf of theirs. Raises `NotFound` where there is no such leaf,
    or it is not yet under a checkpoint.
    """
    query = select(JournalLeaf.leaf).where(JournalLeaf.seq == seq)
    if organisation_id is not None:
        query = query.where(JournalLeaf.organisation_id == organisation_id)
    if workspace_id is not None:
        query = query.where(JournalLeaf.workspace_id == workspace_id)
    leaf = (await session.execute(query)).scalar_one_or_none()
    if leaf is None:
        raise NotFound(f"There is no entry {seq} in the journal.")
    signed = await checkpoint_over(session, seq)
    if signed is None:
        raise NotFound(
            f"Entry {seq} is not under a signed checkpoint yet: the next one covers it.", code="not_yet_signed"
        )
    hashes = await inclusion_proof(session, seq - 1, signed.checkpoint.size)
    return Proof(leaf, seq - 1, tuple(hashes), signed.note)


async def _lock(session: AsyncSession) -> int:
    size = (await session.execute(select(JournalTree.size).with_for_update())).scalar_one_or_none()
    invariant(size is not None, "the journal has no tree row: was the database migrated?")
    return cast(int, size)


async def _checked_root(session: AsyncSession, size: int) -> bytes:
    try:
        return await tree_root(session, size)
    except ProofRefused as problem:
        raise CheckpointRefused(f"{problem.message} {_STOP}") from problem


async def _check_growth(
    session: AsyncSession,
    checkpoint: Checkpoint,
    newest: SignedCheckpoint | None,
    keys: Sequence[VerifierKey],
    remembered: Sequence[Checkpoint],
) -> None:
    try:
        before = [each for each in remembered if each.origin == checkpoint.origin]
        if newest is not None:
            before.append(verify_checkpoint(newest.note, keys))
        for old in before:
            grew = old.size <= checkpoint.size
            hashes = await consistency_proof(session, old.size, checkpoint.size) if grew else []
            verify_growth(old, checkpoint, hashes)
    except ProofRefused as problem:
        raise CheckpointRefused(f"{problem.message} {_STOP}") from problem


_STOP = (
    "No checkpoint is signed any more: stop writing, keep this database as evidence, and compare it with a backup and "
    "with the checkpoints that others hold."
)


def _signed(row: JournalCheckpoint) -> SignedCheckpoint:
    return SignedCheckpoint(row.number, parse_checkpoint(row.note.rpartition("\n\n")[0] + "\n"), row.note, row.at)


def _row(signer: Signer, number: int, sealer: Sealer, at: datetime) -> JournalKey:
    key = signer.verifier
    sealed = sealer.seal(signer.seed, _purpose(key.id))
    return JournalKey(
        id=key.id, number=number, name=key.name, public_key=key.public_key, sealed_seed=sealed, created_at=at
    )


def _signer(row: JournalKey, sealer: Sealer) -> Signer:
    signer = Signer(row.name, sealer.open(cast(bytes, row.sealed_seed), _purpose(row.id)))
    invariant(signer.verifier.public_key == row.public_key, "the journal's sealed key is not the published one")
    return signer


def _purpose(key_id: str) -> str:
    return f"journal_keys.{key_id}.seed"


def _entry(action: str, actor: ActorLike, signer: Signer, at: datetime, more: dict[str, str]) -> Entry:
    key = signer.verifier
    detail = {**more, "key": key.text}
    return Entry(action=action, actor=actor, resource=f"journal_key:{key.id}", outcome="done", at=at, detail=detail)
