"""Checkpoints on real databases: signed only when nothing was rewritten, with keys that never lie in clear."""

import asyncio
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from sqlalchemy import text

from galerne.governance import SYSTEM
from galerne.journal import (
    CheckpointRefused,
    Follower,
    JournalAltered,
    LeafFilter,
    ProofRefused,
    SignedCheckpoint,
    VerifierKey,
    audit,
    consistency_proof,
    following,
    latest_checkpoint,
    list_keys,
    parse_proof,
    prove_leaf,
    read_all,
    rotate_key,
    verify_checkpoint,
    verify_growth,
    verify_proof,
)
from galerne.kernel import Database, InvariantViolated, ManualClock, NotFound, Settings, Unavailable
from galerne.kernel.logs import captured_logs
from galerne.kernel.sealing import Sealer, open_sealer
from tests.journal.entries import NOON
from tests.journal.test_service import fill
from tests.journal.test_tree import tamper_tree


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path / "data", journal_origin="log.example/journal")


def follower(database: Database, settings: Settings, clock: ManualClock | None = None) -> Follower:
    return Follower(database, settings, clock or ManualClock(NOON), SYSTEM)


async def keys_of(database: Database) -> list[VerifierKey]:
    async with database.reading() as session:
        return [each.key for each in await list_keys(session)]


async def test_the_first_checkpoint_makes_a_key_and_journals_it(database: Database, settings: Settings) -> None:
    await fill(database, 10)
    signed = await follower(database, settings).checkpoint()
    (key,) = await keys_of(database)
    assert verify_checkpoint(signed.note, [key]) == signed.checkpoint
    assert (signed.number, signed.checkpoint.origin, signed.checkpoint.size) == (1, "log.example/journal", 11)
    async with database.reading() as session:
        (entry,) = await read_all(session, LeafFilter(actions=["journal.key.created"]))
        assert entry.detail == {"key": key.text}
        assert await latest_checkpoint(session) == signed
    again = await follower(database, settings).checkpoint()
    assert again == signed


async def test_each_checkpoint_continues_the_one_before_and_every_leaf_is_provable(
    database: Database, settings: Settings
) -> None:
    signed: list[SignedCheckpoint] = []
    for count in (3, 260, 1):
        await fill(database, count)
        signed.append(await follower(database, settings).checkpoint())
    keys = await keys_of(database)
    async with database.reading() as session:
        for old, new in pairwise(signed):
            hashes = await consistency_proof(session, old.checkpoint.size, new.checkpoint.size)
            verify_growth(old.checkpoint, new.checkpoint, hashes)
        leaves = await read_all(session, LeafFilter(oldest_first=True))
        for leaf in leaves[::50]:
            proof = await prove_leaf(session, leaf.seq)
            assert parse_proof(proof.text) == proof
            verify_proof(proof, keys)
            assert proof.leaf == leaf.leaf


async def test_a_leaf_is_proved_to_its_owner_once_it_is_signed(database: Database, settings: Settings) -> None:
    await fill(database, 2)
    await follower(database, settings).checkpoint()
    await fill(database, 1)
    async with database.reading() as session:
        assert (await prove_leaf(session, 1, "org-1")).index == 0
        with pytest.raises(NotFound):
            await prove_leaf(session, 1, "org-2")
        with pytest.raises(NotFound):
            await prove_leaf(session, 1, "org-1", "a workspace")
        with pytest.raises(NotFound) as refused:
            await prove_leaf(session, 4)
    assert refused.value.code == "not_yet_signed"


async def test_the_private_key_is_nowhere_in_clear_and_opens_only_with_the_sealing_key(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    await fill(database, 1)
    await follower(database, settings).checkpoint()
    async with database.reading() as session:
        sealed, key_id = (await session.execute(text("SELECT sealed_seed, id FROM journal_keys"))).one()
    seed = open_sealer(settings).open(sealed, f"journal_keys.{key_id}.seed")
    assert len(seed) == 32
    if database.is_sqlite:
        path = Path(str(database.url.database))
        assert all(seed not in each.read_bytes() for each in path.parent.glob(f"{path.name}*"))
    key_file = settings.data / "sealing.key"
    assert (key_file.stat().st_mode & 0o777, len(key_file.read_bytes())) == (0o600, 64)
    await fill(database, 1)
    elsewhere = Settings(data=tmp_path / "other")
    with pytest.raises(Unavailable, match="another key"):
        await follower(database, elsewhere).checkpoint()


async def test_sealed_secrets_open_for_their_purpose_alone() -> None:
    sealer = Sealer(b"k" * 32)
    sealed = sealer.seal(b"secret", "this")
    assert sealer.open(sealed, "this") == b"secret"
    assert sealer.seal(b"secret", "this") != sealed
    flipped = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for content, purpose in ((sealed, "that"), (flipped, "this"), (b"", "this"), (sealed[:5], "this")):
        with pytest.raises(Unavailable):
            sealer.open(content, purpose)
    with pytest.raises(Unavailable):
        Sealer(b"j" * 32).open(sealed, "this")


async def test_a_rotated_key_is_bridged_by_one_checkpoint_with_both_and_then_gone(
    database: Database, settings: Settings
) -> None:
    await fill(database, 3)
    first = await follower(database, settings).checkpoint()
    async with database.transaction() as session:
        new = await rotate_key(session, SYSTEM, open_sealer(settings), ManualClock(NOON))
    old = (await keys_of(database))[0]
    bridge = await follower(database, settings).checkpoint()
    await fill(database, 1)
    last = await follower(database, settings).checkpoint()
    assert verify_checkpoint(first.note, [old]).size == 4
    assert verify_checkpoint(bridge.note, [old]) == verify_checkpoint(bridge.note, [new])
    assert bridge.checkpoint.size == 5
    assert verify_checkpoint(last.note, [new]).size == 6
    with pytest.raises(ProofRefused, match="None of the keys"):
        verify_checkpoint(last.note, [old])
    async with database.reading() as session:
        sealed = (await session.execute(text("SELECT sealed_seed FROM journal_keys ORDER BY number"))).scalars().all()
        published = await list_keys(session)
        (entry,) = await read_all(session, LeafFilter(actions=["journal.key.rotated"]))
    assert (sealed[0], sealed[1] is None) == (None, False)
    assert [each.retired_at is None for each in published] == [False, True]
    assert entry.detail == {"before": old.id, "key": new.text}
    assert (await audit(database)).problem is None


async def test_a_checkpoint_comes_when_it_is_due_and_something_happened(database: Database, settings: Settings) -> None:
    clock = ManualClock(NOON)
    following = follower(database, settings, clock)
    assert await following.step() is None
    await fill(database, 1)
    first = await following.step()
    assert first is not None
    await following.checkpoint()
    for seconds, count, comes in ((61, 0, False), (0, 1, True), (10, 1, False), (55, 0, True)):
        clock.current += timedelta(seconds=seconds)
        await fill(database, count)
        assert (await following.step() is not None) is comes


async def test_processes_that_sign_at_once_publish_one_line_of_checkpoints(
    database: Database, settings: Settings
) -> None:
    other = Database(database.url.render_as_string(hide_password=False))

    async def sign(where: Database) -> None:
        for _ in range(4):
            await fill(where, 3)
            await follower(where, settings).checkpoint()

    try:
        await asyncio.gather(sign(database), sign(other), sign(database))
    finally:
        await other.close()
    found = await audit(database)
    assert (found.chain.problem, found.problem) == (None, None)
    async with database.reading() as session:
        sizes = (await session.execute(text("SELECT size FROM journal_checkpoints ORDER BY number"))).scalars().all()
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == 37
    assert len(await keys_of(database)) == 1


BACK_TO_20 = (
    "DELETE FROM journal_leaves WHERE seq > 20",
    "UPDATE journal_head SET seq = 20, chain_hash = (SELECT chain_hash FROM journal_leaves WHERE seq = 20)",
    "UPDATE journal_tree SET size = 20, chain_hash = (SELECT chain_hash FROM journal_leaves WHERE seq = 20)",
    "UPDATE journal_tiles SET hashes = substr(hashes, 1, 640)",
)


async def rolled_back(database: Database, settings: Settings) -> tuple[SignedCheckpoint, SignedCheckpoint]:
    # As when a backup from between two checkpoints is put back.
    await fill(database, 19)
    old = await follower(database, settings).checkpoint()
    for _ in range(10):
        await fill(database, 1)
    new = await follower(database, settings).checkpoint()
    await tamper_tree(database, *BACK_TO_20, "DELETE FROM journal_checkpoints WHERE number > 1")
    return old, new


async def test_a_database_that_was_rolled_back_is_not_signed_again_and_a_kept_checkpoint_shows_it(
    database: Database, settings: Settings
) -> None:
    old, new = await rolled_back(database, settings)
    assert (old.checkpoint.size, new.checkpoint.size) == (20, 30)
    assert (await audit(database, [old.note])).problem is None
    shown = await audit(database, [new.note])
    assert "rolled back" in str(shown.problem)
    # This process's own folder remembers; one that starts over without it cannot, until it has grown past.
    with pytest.raises(CheckpointRefused, match="gone back: it had 30 leaves and now has 20"):
        await follower(database, settings).checkpoint()
    await fill(database, 25)
    with pytest.raises(CheckpointRefused, match="rewritten"):
        await follower(database, settings).checkpoint()
    assert "not those that were signed" in str((await audit(database, [new.note])).problem)
    (settings.data / "journal.checkpoint").unlink()
    accepted = await follower(database, settings).checkpoint()
    assert accepted.checkpoint.size == 45


async def test_a_history_rewritten_throughout_is_not_signed(database: Database, settings: Settings) -> None:
    # Leaves, chain, head, tree and tiles are all made anew: only the signed checkpoint disagrees.
    await fill(database, 19)
    await follower(database, settings).checkpoint()
    (settings.data / "journal.checkpoint").unlink()
    genesis = "(SELECT chain_hash FROM journal_leaves WHERE seq = 1)"
    await tamper_tree(
        database,
        "DELETE FROM journal_leaves WHERE seq > 1",
        f"UPDATE journal_head SET seq = 1, chain_hash = {genesis}",
        f"UPDATE journal_tree SET size = 1, chain_hash = {genesis}",
        "DELETE FROM journal_tiles",
        "INSERT INTO journal_tiles SELECT 0, 0, leaf_hash FROM journal_leaves",
    )
    await fill(database, 24)
    with pytest.raises(CheckpointRefused, match="rewritten"):
        await follower(database, settings).checkpoint()
    found = await audit(database)
    assert found.chain.problem is None
    assert "not those that were signed" in str(found.problem)


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE journal_tiles SET hashes = CAST(substr(hashes, 33) || substr(hashes, 1, 32) AS BYTES)", "Tile 0"),
        ("DELETE FROM journal_tiles", "Tile 0"),
        ("UPDATE journal_checkpoints SET note = replace(note, '\n20\n', '\n19\n')", "altered"),
    ],
)
async def test_a_tree_or_checkpoint_that_was_altered_is_found(
    database: Database, settings: Settings, statement: str, why: str
) -> None:
    await fill(database, 19)
    await follower(database, settings).checkpoint()
    await tamper_tree(database, statement.replace("BYTES", "BLOB" if database.is_sqlite else "BYTEA"))
    found = await audit(database)
    assert found.chain.problem is None
    assert why in str(found.problem)
    await fill(database, 1)
    with pytest.raises((CheckpointRefused, JournalAltered)):
        await follower(database, settings).checkpoint()


async def test_following_goes_on_after_a_defect_and_ends_quietly(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_FOLLOW_S", 0.01)
    tries: list[int] = []
    third = asyncio.Event()

    async def grow(_database: Database) -> int:
        tries.append(1)
        if len(tries) == 3:
            third.set()
        raise InvariantViolated("a defect")

    monkeypatch.setattr(following, "grow_tree", grow)
    follows = follower(database, settings)
    with captured_logs() as lines:
        await follows.start()
        async with asyncio.timeout(3):
            await third.wait()
        await follows.stop()
    assert [(line["level"], line["event"]) for line in lines] == [("critical", "journal not followed")]
    assert "InvariantViolated" in lines[0]["problem"]


async def test_a_checkpoint_that_another_user_wrote_is_said_with_what_to_do(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(database, 3)
    await follower(database, settings).checkpoint()
    folder, kept = settings.data.stat(), (settings.data / "journal.checkpoint").stat()
    assert (kept.st_uid, kept.st_gid) == (folder.st_uid, folder.st_gid)

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError

    await fill(database, 3)
    for name in ("read_text", "write_text"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, name, refuse)
            with pytest.raises(Unavailable, match="chown --reference"):
                await follower(database, settings).checkpoint()
