"""`galerne usage`: for people a table, for scripts JSON, for a mistake one line."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from galerne.apps.cli import main
from galerne.apps.commands.usage import app
from galerne.kernel import BadRequest, Database
from tests.metering.events import event
from tests.metering.test_service import fill

runner = CliRunner()


@pytest.fixture
def filled(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def write() -> None:
        database = Database(database_url)
        await fill(
            database, *(event(number) for number in range(12)), event(99, model="large", organisation_id="org-2")
        )
        await database.close()

    asyncio.run(write())
    monkeypatch.setenv("GALERNE_DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "120")


def test_help_names_every_option() -> None:
    shown = runner.invoke(app, ["--help"], env={"COLUMNS": "120"})
    assert shown.exit_code == 0
    assert "Show what was consumed" in shown.output
    for option in ("--since", "--model", "--limit", "--data", "--json"):
        assert option in shown.output


@pytest.mark.usefixtures("filled")
def test_people_see_sums_by_model_and_the_latest_requests() -> None:
    shown = runner.invoke(app, [], catch_exceptions=False)
    assert shown.exit_code == 0
    lines = [line.split() for line in shown.output.splitlines()]
    assert ["brise", "12", "120", "36", "60", "216"] in lines
    assert ["all", "13", "130", "39", "65", "234"] in lines
    assert shown.output.count("completed") == 10


@pytest.mark.usefixtures("filled")
def test_scripts_get_json() -> None:
    shown = runner.invoke(app, ["--json", "--model", "large", "--limit", "5"], catch_exceptions=False)
    answer = json.loads(shown.stdout)
    assert answer["totals"]["requests"] == 1
    assert answer["by_model"][0]["model"] == "large"
    assert [one["id"] for one in answer["data"]] == [event(99).id]
    assert answer["has_more"] is False


@pytest.mark.usefixtures("filled")
def test_since_takes_a_span_or_a_time() -> None:
    def requests(since: str) -> int:
        shown = runner.invoke(app, ["--json", "--since", since], catch_exceptions=False)
        return json.loads(shown.stdout)["totals"]["requests"]

    assert requests("2026-11-23T12:00:10Z") == 3
    assert requests("2026-11-23T12:00:10") == 3
    assert requests("36500d") == 13
    assert isinstance(runner.invoke(app, ["--since", "yesterday"]).exception, BadRequest)


def test_nothing_consumed_is_said(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALERNE_DATABASE_URL", database_url)
    assert "Nothing was consumed" in runner.invoke(app, [], catch_exceptions=False).output


@pytest.mark.parametrize("command", [["usage"], ["journal", "verify"], ["journal", "export"]])
def test_a_folder_without_a_database_is_one_line_and_exit_1(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GALERNE_DATABASE_URL", raising=False)
    monkeypatch.setattr("sys.argv", ["galerne", *command, "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert said.count("\n") == 1
    assert str(tmp_path) in said
    assert "galerne serve" in said
    assert list(tmp_path.iterdir()) == []
