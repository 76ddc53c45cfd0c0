"""`galerne invoices proof` and `export`: files that `galerne verify invoice` accepts, from an installation at rest."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from galerne.apps.commands.invoices import app as invoices
from galerne.apps.commands.verify import app as verify
from galerne.billing.documents.pdf import extract_xml
from galerne.journal import list_keys
from galerne.kernel import Database, NotFound
from tests.billing.invoice_usage.houses import installation
from tests.billing.invoice_usage.test_empty import paid_by_credit
from tests.billing.invoice_usage.test_making import DAYS
from tests.billing.invoices.customers import house_in

runner = CliRunner()


@pytest.fixture
def address(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    async def work() -> None:
        database = Database(database_url)
        served = installation(await house_in(database), tmp_path / "data")
        for name in ("Erdre", "Loire"):
            await served.serve(await served.house.customer(name), *DAYS)
        await paid_by_credit(served, *DAYS)
        await database.close()

    asyncio.run(work())
    monkeypatch.setenv("GALERNE_DATABASE_URL", database_url)
    monkeypatch.setenv("GALERNE_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return database_url


def key_of(address: str) -> str:
    async def work() -> str:
        database = Database(address)
        async with database.reading() as session:
            keys = await list_keys(session)
        await database.close()
        return keys[0].key.text

    return asyncio.run(work())


def test_a_proof_that_is_written_is_one_that_is_accepted(address: str) -> None:
    done = runner.invoke(invoices, ["proof", "FR-2026-000001", "-o", "proof.json"], catch_exceptions=False)
    assert done.exit_code == 0
    key = key_of(address)
    done = runner.invoke(verify, ["invoice", "proof.json", "--key", key], catch_exceptions=False)
    assert done.stdout.startswith("sound: invoice FR-2026-000001 for 2026-10: 5 requests, ")
    again = runner.invoke(invoices, ["proof", "FR-2026-000001"], catch_exceptions=False)
    assert again.stdout_bytes == Path("proof.json").read_bytes()
    assert isinstance(runner.invoke(invoices, ["proof", "FR-2026-000009"]).exception, NotFound)


def test_an_export_has_every_invoice_as_pdf_and_as_proof(address: str) -> None:
    done = runner.invoke(invoices, ["export", "out", "--json"], catch_exceptions=False)
    written = json.loads(done.stdout)
    empty = written.pop()
    assert sorted(path.name for path in Path("out").iterdir()) == [
        f"{empty['id']}.proof.json",
        "FR-2026-000001.pdf",
        "FR-2026-000001.proof.json",
        "FR-2026-000002.pdf",
        "FR-2026-000002.proof.json",
    ]
    for each in written:
        found = json.loads(runner.invoke(verify, ["invoice", each["proof"], "--key", key_of(address), "--json"]).stdout)
        assert (found["sound"], found["number"]) == (True, each["number"])
        assert each["number"].encode() in extract_xml(Path(each["pdf"]).read_bytes())
    assert (empty["number"], empty["pdf"]) == (None, None)
    done = runner.invoke(verify, ["invoice", empty["proof"], "--key", key_of(address)])
    assert done.stdout.startswith(f"sound: invoice {empty['id']} for 2026-10: 5 requests, 0.00 EUR due; ")
    done = runner.invoke(invoices, ["export", "none", "--period", "2026-11"], catch_exceptions=False)
    assert (done.stdout, list(Path("none").iterdir())) == ("0 invoices written to none\n", [])
