"""Walks over the whole stored journal: the chain, the tree's tiles over it, and every checkpoint that was signed."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from galerne.journal.chain import Verification, Verifier
from galerne.journal.checkpoint import Checkpoint, verify_checkpoint
from galerne.journal.merkle import HASH_BYTES, ProofRefused
from galerne.journal.note import VerifierKey
from galerne.journal.replay import TreeReplay
from galerne.journal.service import LeafFilter, read_all, start_verification
from galerne.journal.signing import checkpoints_between, latest_checkpoint, list_keys
from galerne.journal.tiles import width_of
from galerne.journal.tree import read_tiles, tree_state
from galerne.kernel import Database

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found: the verdict on the chain, how many leaves are in the tree, how many checkpoints hold, and the
    first problem of tree or checkpoints if any.
    """

    chain: Verification
    tree_size: int
    checkpoints: int
    problem: str | None


async def audit(database: Database, kept: Sequence[str] = (), keys: Sequence[VerifierKey] = ()) -> Audit:
    """Check every leaf, the tree over them, and every checkpoint, those in the database and the notes `kept` elsewhere.

    Signatures are checked with `keys`, or with those that the database publishes. It reads in many short transactions
    and needs flat memory.
    """
    async with database.reading() as session:
        # In this order, for the log goes on meanwhile: what is read later may only have more of it.
        newest = await latest_checkpoint(session)
        tree_size = (await tree_state(session)).size
        verifier = await start_verification(session)
        trusted = list(keys) or [each.key for each in await list_keys(session)]
    walk = _Walk(verifier, tree_size)
    walk.begin([*kept, *([newest.note] if newest else [])], len(kept), trusted)
    more = True
    while more and not verifier.finished:
        async with database.reading() as session:
            more = await walk.step(session)
    return Audit(verifier.result(), walk.tree_size, walk.checkpoints, walk.problem)


class _Walk:
    """After the first problem of the tree only the chain is walked on, for its own verdict."""

    def __init__(self, verifier: Verifier, tree_size: int) -> None:
        self.tree_size = tree_size
        self.checkpoints = 0
        self.problem: str | None = None
        self._verifier = verifier
        self._keys: Sequence[VerifierKey] = ()
        self._kept: list[Checkpoint] = []
        self._replay = TreeReplay()

    def begin(self, notes: Sequence[str], kept: int, keys: Sequence[VerifierKey]) -> None:
        self._keys = keys
        try:
            signed = [verify_checkpoint(note, keys) for note in notes]
            _check_not_cut(signed, self._verifier.head.seq)
            self._kept = signed[:kept]
        except ProofRefused as refused:
            self.problem = refused.message

    async def step(self, session: AsyncSession) -> bool:
        before = self._verifier.count
        wanted = LeafFilter(after=before, before=self._verifier.head.seq + 1, oldest_first=True)
        leaves = await read_all(session, wanted, _PAGE)
        hashes: list[bytes] = []
        for leaf in leaves:
            if not self._verifier.check(leaf):
                break
            hashes.append(leaf.leaf_hash)
        if self.problem is None:
            try:
                await self._check_tree(session, before, hashes)
            except ProofRefused as refused:
                self.problem = refused.message
        return len(leaves) > 0 and len(hashes) == len(leaves)

    async def _check_tree(self, session: AsyncSession, before: int, hashes: list[bytes]) -> None:
        after = before + len(hashes)
        stored = await checkpoints_between(session, before, after)
        signed = [verify_checkpoint(each.note, self._keys) for each in stored]
        signed += [each for each in self._kept if before < each.size <= after]
        self._replay.take(hashes, signed)
        self.checkpoints += len(signed)
        await self._check_tiles(session, before, hashes[: max(self.tree_size - before, 0)])

    async def _check_tiles(self, session: AsyncSession, before: int, hashes: list[bytes]) -> None:
        expected = self._replay.tiles(before, hashes)
        found = await read_tiles(session, expected)
        for tile, content in expected.items():
            stored = found.get(tile, b"")
            if not stored.startswith(content) or len(stored) < width_of(tile, self.tree_size) * HASH_BYTES:
                raise ProofRefused(f"Tile {tile.number} of level {tile.level} of the tree is not what the leaves give.")


def _check_not_cut(checkpoints: Sequence[Checkpoint], count: int) -> None:
    signed = max((each.size for each in checkpoints), default=0)
    if signed > count:
        raise ProofRefused(f"The log is cut off or rolled back: {signed} leaves were signed, and here are {count}.")
