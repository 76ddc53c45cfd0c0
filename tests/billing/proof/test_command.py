"""`galerne verify invoice`, as a customer runs it: a file and a public key."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from galerne.apps.commands.verify import InvoiceRefused, app
from galerne.journal import ProofRefused
from tests.billing.proof.samples import SIGNER, sample

runner = CliRunner()
KEY = SIGNER.verifier.text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "FR-2026-000007.proof.json"
    path.write_bytes(sample().file())
    return path


def test_a_sound_invoice_is_said_to_be_one(file: Path) -> None:
    done = runner.invoke(app, ["invoice", str(file), "--key", KEY], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.startswith("sound: invoice FR-2026-000007 for 2026-12: 9 requests, 2 of them of earlier months")
    said = json.loads(runner.invoke(app, ["invoice", str(file), "--key", KEY, "--json"]).stdout)
    assert (said["sound"], said["requests"], said["problems"]) == (True, 9, [])


def test_what_is_wrong_is_named_and_the_command_fails(file: Path) -> None:
    fields = sample().fields()
    fields["requests"][2]["entries"][0]["quantity"] += 1
    file.write_text(json.dumps(fields))
    done = runner.invoke(app, ["invoice", str(file), "--key", KEY])
    assert isinstance(done.exception, InvoiceRefused)
    assert "tokens: request 3" in done.stdout
    done = runner.invoke(app, ["invoice", str(file), "--key", KEY, "--json"])
    problem = next(each for each in json.loads(done.stdout)["problems"] if each["rule"] == "tokens")
    assert (problem["expected"], problem["found"]) == ("1234", "1235")
    assert done.exit_code == 1


def test_a_key_is_needed(file: Path) -> None:
    assert isinstance(runner.invoke(app, ["invoice", str(file)]).exception, ProofRefused)
