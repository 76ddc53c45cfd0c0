"""The operator's commands for organisations, workspaces, keys, plans and prices, on both databases."""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from galerne.apps.cli import main
from galerne.governance import SYSTEM
from galerne.identity import bootstrap
from galerne.kernel import Database, Ids, SystemClock
from galerne.models import ExternalModel, add_external

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    async def start() -> None:
        database, clock = Database(database_url), SystemClock()
        async with database.transaction() as session:
            await bootstrap(session, Ids(), clock, None)
            await add_external(session, SYSTEM, ExternalModel(name="large", url="http://127.0.0.1:9/v1"), clock)
        await database.close()

    asyncio.run(start())
    monkeypatch.setenv("GALERNE_DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "200")

    def in_this_process(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["galerne", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return in_this_process


def printed(run: Run, *arguments: str) -> Any:
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_an_organisation_is_made_shown_changed_and_given_workspaces_and_keys(run: Run) -> None:
    made = printed(run, "organisations", "create", "Banque X", "--plan", "team", "--zones", "eu, fr")
    assert made["key"].startswith("gal_")
    assert (made["plan"], made["zones"]) == ("team", ["eu", "fr"])
    there = ("--organisation", made["id"])
    workspace = printed(run, "workspaces", "create", "risk", "--zones", "fr", "--trace-content", "yes", *there)
    assert (workspace["organization_id"], workspace["trace_content"]) == (made["id"], True)
    key = printed(run, "keys", "create", "k", "--workspace", workspace["id"], "--zones", "fr", *there)
    assert (key["workspace_id"], key["zones"]) == (workspace["id"], ["fr"])
    assert {each["id"] for each in printed(run, "keys", "list", *there)} == {key["id"], made["key_id"]}
    changed = printed(run, "organisations", "set", made["id"], "--plan", "enterprise", "--anywhere")
    assert (changed["name"], changed["plan"], changed["zones"]) == ("Banque X", "enterprise", None)
    assert printed(run, "organisations", "show", made["id"]) == changed
    lifted = printed(run, "workspaces", "set", workspace["id"], "--anywhere", "--trace-content", "no", *there)
    assert (lifted["zones"], lifted["trace_content"]) == (None, False)
    assert [each["name"] for each in printed(run, "workspaces", "list", *there)] == ["default", "risk"]
    assert [each["name"] for each in printed(run, "organisations", "list")] == ["default", "Banque X"]


def test_people_see_tables(run: Run) -> None:
    assert "shown this once" in run("organisations", "create", "Banque X", "--zones", "eu,fr")[1]
    assert "eu,fr" in run("organisations", "list")[1]
    assert "created risk" in run("workspaces", "create", "risk")[1]
    assert "anywhere" in run("workspaces", "list")[1]
    assert "enterprise" in run("plans", "list")[1]
    prices = ("--input", "0.5", "--cached", "0.05", "--output", "1.5", "--currency", "EUR")
    assert "large: EUR input 0.5, cached 0.05, output 1.5" in run("prices", "set", "large", *prices)[1]
    assert "0.05" in run("prices", "list")[1]


def test_a_price_is_set_now_and_to_come(run: Run) -> None:
    price = ("prices", "set", "large", "--cached", "0.05", "--output", "1.5", "--currency", "EUR", "--input")
    assert printed(run, *price, "0.5")["input"] == "0.5"
    assert printed(run, *price, "9", "--from", "30d")["input"] == "9"
    assert [each["input"] for each in printed(run, "prices", "list")] == ["0.5"]
    assert [each["input"] for each in printed(run, "prices", "list", "--at", "31d")] == ["9"]


def test_plans_are_listed(run: Run) -> None:
    assert [each["id"] for each in printed(run, "plans", "list")] == [
        "free",
        "developer",
        "pro",
        "team",
        "enterprise",
    ]


PRICE = ("prices", "set", "large", "--cached", "0", "--output", "0")


@pytest.mark.parametrize(
    ("refused", "word"),
    [
        (("organisations", "create", "x", "--plan", "platinum"), "platinum"),
        (("organisations", "create", "x", "--zones", "EU"), "EU"),
        (("organisations", "create", " "), "name"),
        (("organisations", "show", "nobody"), "nobody"),
        (("organisations", "set", "nobody", "--name", "x"), "nobody"),
        (("workspaces", "create", "x", "--organisation", "nobody"), "nobody"),
        (("workspaces", "set", "nothing", "--name", "x"), "nothing"),
        (("workspaces", "set", "nothing", "--zones", "eu", "--anywhere"), "--anywhere"),
        (("keys", "create", "x", "--zones", "e u"), "e u"),
        (("keys", "create", "x", "--workspace", "nothing"), "nothing"),
        ((*PRICE, "--currency", "EUR", "--input", "-1"), "negative"),
        ((*PRICE, "--currency", "EUR", "--input", "0.1234567891"), "9 digits"),
        ((*PRICE, "--currency", "EUR", "--input", "a lot"), "a lot"),
        ((*PRICE, "--currency", "euro", "--input", "1"), "euro"),
        ((*PRICE, "--currency", "EUR", "--input", "1", "--from", "2020-01-01"), "past"),
        (("prices", "set", "nope", *PRICE[3:], "--currency", "EUR", "--input", "1"), "nope"),
    ],
)
def test_a_refusal_is_one_line_and_exit_code_1(run: Run, refused: tuple[str, ...], word: str) -> None:
    code, out, err = run(*refused)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert word in err
