"""The background task that lets the tree follow the journal and has a checkpoint signed now and then.

As many processes as like may run it. What is signed is also written to a file beside the database, so that a database
that was rolled back is noticed by the process itself, and not only by those who kept a checkpoint.
"""

import asyncio
import os
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from random import Random

from sqlalchemy.exc import SQLAlchemyError

from galerne.journal.checkpoint import Checkpoint, parse_checkpoint
from galerne.journal.leaf import ActorLike
from galerne.journal.merkle import ProofRefused
from galerne.journal.signing import SignedCheckpoint, ensure_key, latest_checkpoint, sign_checkpoint
from galerne.journal.tree import grow_tree, tree_state
from galerne.kernel import Clock, Database, GalerneError, Settings, Unavailable, get_logger
from galerne.kernel.sealing import Sealer, open_sealer

_FOLLOW_S = 5.0
_AGAIN_S = 60.0
_REMEMBERED = "journal.checkpoint"


class Follower:
    """Follows the journal of `database` for `settings`; `actor` is who is journalled when the first key is made."""

    def __init__(self, database: Database, settings: Settings, clock: Clock, actor: ActorLike) -> None:
        self._database = database
        self._settings = settings
        self._clock = clock
        self._actor = actor
        self._sealer: Sealer | None = None
        self._random = Random()  # noqa: S311 # keeps processes from doing the same at once, no secret
        self._task: asyncio.Task[None] | None = None
        self._said: tuple[str, float] = ("", 0.0)

    async def start(self) -> None:
        """Begin to follow."""
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """End; what is half done is done again by whoever follows next."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def step(self) -> SignedCheckpoint | None:
        """Take into the tree what there is, and sign it if the newest checkpoint is older than the setting says."""
        while await grow_tree(self._database):
            pass
        if not await self._due():
            return None
        return await self._sign()

    async def checkpoint(self) -> SignedCheckpoint:
        """A checkpoint over everything that is committed now, whether or not it is due.

        Raises `CheckpointRefused` when history was rewritten, `JournalAltered` when a leaf was, `Unavailable` when this
        process cannot open the key.
        """
        async with self._database.transaction() as session:
            await ensure_key(session, self._actor, self._opened(), self._clock, self._settings.journal_origin)
        async with self._database.reading() as session:
            wanted = (await tree_state(session)).head
        while await grow_tree(self._database) or await self._size() < wanted:
            pass
        return await self._sign()

    async def _sign(self) -> SignedCheckpoint:
        sealer, path = self._opened(), self._settings.data / _REMEMBERED
        async with self._database.transaction() as session:
            await ensure_key(session, self._actor, sealer, self._clock, self._settings.journal_origin)
            signed = await sign_checkpoint(session, sealer, self._clock, _remembered(path))
        _remember(path, signed.note)
        return signed

    async def _due(self) -> bool:
        async with self._database.reading() as session:
            size = (await tree_state(session)).size
            newest = await latest_checkpoint(session)
        if newest is None:
            return size > 0
        age = self._clock.now() - newest.at
        return size > newest.checkpoint.size and age >= timedelta(seconds=self._settings.checkpoint_s)

    async def _size(self) -> int:
        async with self._database.reading() as session:
            return (await tree_state(session)).size

    def _opened(self) -> Sealer:
        if self._sealer is None:
            self._sealer = open_sealer(self._settings)
        return self._sealer

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_FOLLOW_S * self._random.uniform(0.8, 1.2))
            try:
                await self.step()
            except ProofRefused as problem:
                self._say("journal refused", problem.message, grave=True)
            except GalerneError as problem:
                self._say("checkpoint not signed", problem.message)
            except (SQLAlchemyError, OSError, TimeoutError) as problem:
                self._say("journal not followed", type(problem).__name__)
            except Exception as defect:  # noqa: BLE001 - else nothing would be signed any more, and nobody would know
                self._say("journal not followed", f"a defect: {type(defect).__name__}", grave=True)

    def _say(self, event: str, problem: str, *, grave: bool = False) -> None:
        now_s = self._clock.monotonic()
        if self._said[0] == problem and now_s - self._said[1] < _AGAIN_S:
            return
        self._said = (problem, now_s)
        log = get_logger("journal")
        (log.critical if grave else log.error)(event, problem=problem)


def _remembered(path: Path) -> list[Checkpoint]:
    try:
        return [parse_checkpoint(path.read_text(encoding="utf-8").rpartition("\n\n")[0] + "\n")]
    except (FileNotFoundError, UnicodeDecodeError, ProofRefused):
        return []
    except PermissionError:
        raise _another_users(path) from None


def _remember(path: Path, note: str) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        part.write_text(note, encoding="utf-8")
        if os.geteuid() == 0:
            # Root's command line writes for the server's user, to whom the folder belongs: else nothing more is signed.
            owner = path.parent.stat()
            os.chown(part, owner.st_uid, owner.st_gid)
        part.replace(path)
    except PermissionError:
        raise _another_users(path) from None


def _another_users(path: Path) -> Unavailable:
    return Unavailable(
        f"{path} or its folder is another user's, so nothing can be signed: give it to the user that the server runs as"
        f" (chown --reference={path.parent} {path}).",
        code="checkpoint_not_ours",
    )
