"""`galerne journal`: a verdict that a script can act on, and an export that proves itself."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from galerne.apps.commands.journal import JournalBroken, app
from galerne.journal import GENESIS, append
from galerne.journal.leaf import extend
from galerne.journal.merkle import hash_leaf
from galerne.kernel import Database
from tests.journal.entries import Someone, entry
from tests.journal.test_service import tamper

runner = CliRunner()


@pytest.fixture
def address(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    async def write() -> None:
        database = Database(database_url)
        async with database.transaction() as session:
            await append(session, [entry(number) for number in range(1500)])
            await append(session, [entry(1500, actor=Someone(organisation_id="org-2"))])
        await database.close()

    asyncio.run(write())
    monkeypatch.setenv("GALERNE_DATABASE_URL", database_url)
    return database_url


def spoil(address: str, statement: str) -> None:
    async def write() -> None:
        database = Database(address)
        await tamper(database, statement)
        await database.close()

    asyncio.run(write())


@pytest.mark.usefixtures("address")
def test_a_sound_journal_is_said_to_be_so_with_its_head() -> None:
    shown = runner.invoke(app, ["verify"], catch_exceptions=False)
    assert shown.exit_code == 0
    assert shown.output.startswith("sound: 1501 leaves, head 1501:")
    verdict = json.loads(runner.invoke(app, ["verify", "--json"], catch_exceptions=False).stdout)
    assert (verdict["sound"], verdict["count"], verdict["head"]["seq"]) == (True, 1501, 1501)


def test_a_broken_journal_fails_and_says_where(address: str) -> None:
    spoil(address, "UPDATE journal_leaves SET leaf = leaf_hash WHERE seq = 1200")
    shown = runner.invoke(app, ["verify", "--json"])
    verdict = json.loads(shown.stdout)
    assert (verdict["sound"], verdict["count"], verdict["problem_seq"]) == (False, 1199, 1200)
    assert isinstance(shown.exception, JournalBroken)
    assert "leaf 1200" in shown.exception.message


@pytest.mark.usefixtures("address")
def test_an_export_can_be_checked_without_the_database(tmp_path: Path) -> None:
    target = tmp_path / "journal.jsonl"
    assert runner.invoke(app, ["export", "--output", str(target)], catch_exceptions=False).exit_code == 0
    chain_hash = GENESIS
    lines = target.read_bytes().splitlines()
    for line in lines:
        fields = json.loads(line)
        # The leaf stands in the line byte for byte, between the two hashes.
        leaf = line[line.index(b'"leaf":') + 7 : line.rindex(b',"leaf_hash":')]
        assert hash_leaf(leaf).hex() == fields["leaf_hash"]
        chain_hash = extend(chain_hash, hash_leaf(leaf))
        assert chain_hash.hex() == fields["chain_hash"]
    assert len(lines) == 1501


@pytest.mark.usefixtures("address")
def test_an_export_of_one_organisation_holds_only_its_leaves() -> None:
    shown = runner.invoke(app, ["export", "--organisation", "org-2"], catch_exceptions=False)
    (line,) = shown.stdout.splitlines()
    assert json.loads(line)["leaf"]["actor"]["organisation_id"] == "org-2"


def test_help_names_both_commands() -> None:
    shown = runner.invoke(app, ["--help"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0
    assert "verify" in shown.output
    assert "export" in shown.output
