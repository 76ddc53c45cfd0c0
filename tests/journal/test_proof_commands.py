"""The journal's checkpoints and proofs at the command line, as one person makes them and another verifies them."""

import asyncio
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from galerne.apps.commands.journal import JournalBroken
from galerne.apps.commands.journal import app as journal
from galerne.apps.commands.verify import app as verify
from galerne.identity import bootstrap
from galerne.journal import ProofRefused
from galerne.kernel import Database, Ids, ManualClock
from tests.journal.entries import NOON
from tests.journal.test_service import fill
from tests.journal.test_tree import tamper_tree

runner = CliRunner()


def change(address: str, count: int = 0, *statements: str) -> None:
    async def work() -> None:
        database = Database(address)
        if count:
            await fill(database, count)
        if statements:
            await tamper_tree(database, *statements)
        await database.close()

    asyncio.run(work())


@pytest.fixture
def address(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    async def work() -> None:
        database = Database(database_url)
        async with database.transaction() as session:
            await bootstrap(session, Ids(), ManualClock(NOON), "gal_a-long-random-one-for-the-tests")
        await database.close()

    asyncio.run(work())
    change(database_url, 20)
    monkeypatch.setenv("GALERNE_DATABASE_URL", database_url)
    monkeypatch.setenv("GALERNE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return database_url


def do(app: typer.Typer, *words: str) -> str:
    return runner.invoke(app, list(words), catch_exceptions=False).stdout


def keep(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def test_what_one_person_signs_and_proves_another_verifies_offline(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = keep("old.checkpoint", do(journal, "checkpoint"))
    change(address, 5)
    signed = json.loads(do(journal, "checkpoint", "--json"))
    new = keep("new.checkpoint", signed["note"])
    first = int(Path(old).read_text().splitlines()[1])
    growth = keep("growth", do(journal, "consistency", str(first), str(signed["size"])))
    do(journal, "prove", "3", "-o", "entry.tlog-proof")
    do(journal, "export", "-o", "journal.jsonl")
    keys = keep("keys", do(journal, "keys"))
    assert json.loads(do(journal, "keys", "--json"))[0]["key"] == Path(keys).read_text().strip()
    assert json.loads(do(journal, "prove", "3", "--json"))["seq"] == 3
    assert json.loads(do(journal, "consistency", "1", "2", "--json"))["hashes"]

    monkeypatch.setenv("GALERNE_DATABASE_URL", "sqlite+aiosqlite:////nowhere/galerne.db")
    monkeypatch.setenv("GALERNE_DATA", "/nowhere")
    entry = json.loads(do(verify, "proof", "entry.tlog-proof", "--key", keys, "--json"))
    assert (entry["sound"], entry["seq"], entry["entry"]["seq"]) == (True, 3, 3)
    assert "sound: entry 3" in do(verify, "proof", "entry.tlog-proof", "--key", Path(keys).read_text().strip())
    words = ("checkpoint", new, "--since", old, "--consistency", growth, "--key", keys)
    assert json.loads(do(verify, *words, "--json"))["size"] == signed["size"]
    assert do(verify, *words).startswith("sound: galerne/")
    words = ("journal", "journal.jsonl", "--checkpoint", old, "--checkpoint", new, "--key", keys)
    assert json.loads(do(verify, *words, "--json"))["signed"] == signed["size"]
    assert do(verify, *words).startswith("sound: ")


@pytest.mark.usefixtures("address")
def test_what_was_tampered_with_is_refused_with_one_line() -> None:
    signed = keep("signed", do(journal, "checkpoint"))
    keys = keep("keys", do(journal, "keys"))
    do(journal, "prove", "3", "-o", "proof")
    do(journal, "export", "-o", "journal.jsonl")
    lines = Path("journal.jsonl").read_text().splitlines(keepends=True)
    keep("cut.jsonl", "".join(lines[:-1]))
    keep("other", Path("proof").read_text().replace("index 2", "index 1"))
    Path("binary").write_bytes(b"\xff\xfe")
    for words, why in [
        (("journal", "cut.jsonl", "--checkpoint", signed, "--key", keys), "cut off"),
        (("proof", "other", "--key", keys), "not in the tree"),
        (("proof", "proof"), "--key"),
        (("proof", "proof", "--key", "nonsense"), "public key looks like"),
        (("checkpoint", "binary", "--key", keys), "not a text"),
        (("checkpoint", signed, "--since", signed, "--consistency", keys, "--key", keys), "base64"),
    ]:
        shown = runner.invoke(verify, list(words))
        assert isinstance(shown.exception, ProofRefused), words
        assert why in shown.exception.message


def test_verify_compares_tree_and_kept_checkpoints_too(address: str) -> None:
    signed = keep("signed", do(journal, "checkpoint"))
    assert "1 checkpoints hold" in do(journal, "verify")
    found = json.loads(do(journal, "verify", "--checkpoint", signed, "--json"))
    assert (found["sound"], found["tree"]["checkpoints"], found["tree"]["problem"]) == (True, 2, None)
    change(address, 0, "DELETE FROM journal_tiles")
    shown = runner.invoke(journal, ["verify", "--json"])
    assert isinstance(shown.exception, JournalBroken)
    assert "Tile 0 of level 0" in json.loads(shown.stdout)["tree"]["problem"]


@pytest.mark.usefixtures("address")
def test_a_key_is_rotated_and_both_sign_the_next_checkpoint() -> None:
    do(journal, "checkpoint")
    new = do(journal, "rotate-key").strip()
    old = do(journal, "keys").splitlines()[0]
    signed = keep("signed", do(journal, "checkpoint"))
    for key in (old, new):
        assert "sound" in do(verify, "checkpoint", signed, "--key", key)
    assert json.loads(do(journal, "rotate-key", "--json"))["object"] == "journal_key"
