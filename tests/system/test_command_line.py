"""The command line: help, JSON, exit codes 0, 1 and 2, and errors of one line.

Most commands run in this process, where they need no second to start; what only a real process shows runs in one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from galerne.apps.cli import main
from tests.serving import Server, galerne, serving
from tests.upstreams import says, upstream

COMMANDS = [
    (),
    ("serve",),
    ("models",),
    ("models", "list"),
    ("models", "show"),
    ("models", "add"),
    ("models", "remove"),
    ("models", "verify"),
    *(("organisations", *command) for command in ((), ("create",), ("list",), ("show",), ("set",))),
    *(("workspaces", *command) for command in ((), ("create",), ("list",), ("set",))),
    *(("prices", *command) for command in ((), ("set",), ("list",))),
    *(("plans", *command) for command in ((), ("list",))),
    ("keys",),
    ("keys", "create"),
    ("keys", "list"),
    ("keys", "revoke"),
    ("usage",),
    ("journal",),
    ("journal", "verify"),
    ("journal", "export"),
    ("train",),
    ("engine",),
    ("engine", "llamacpp"),
]


Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    for name in [name for name in os.environ if name.startswith("GALERNE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "200")

    def in_this_process(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["galerne", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Done(arguments, int(ended.value.code or 0), said.out, said.err)

    return in_this_process


def printed(done: Done) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(run: Run, command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) > 4


def test_the_version_is_shown(run: Run) -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("galerne 0.")


@pytest.mark.parametrize(
    "wrong",
    [
        ("nothing",),
        ("serve", "--port", "many"),
        ("serve", "--port", "70000"),
        ("keys", "create"),
        ("keys", "create", "x", "--scope", "everything"),
        ("models", "add", "name"),
        ("models", "add", "name", "--url", "http://127.0.0.1:9/v1", "--adapter-of", "other"),
        ("models", "list", "--nonsense"),
        ("engine", "llamacpp"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(run: Run, wrong: tuple[str, ...]) -> None:
    done = run(*wrong)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("refused", "word"),
    [
        (("models", "show", "no-such-model"), "no-such-model"),
        (("models", "remove", "no-such-model"), "no-such-model"),
        (("models", "remove", "brise"), "brise"),
        (("models", "add", "brise", "--url", "http://127.0.0.1:9/v1"), "brise"),
        (("models", "add", "x", "--url", "gpu1"), "gpu1"),
        (("models", "add", "x", "--adapter-of", "no-such-model"), "no-such-model"),
        (("models", "add", "x y", "--url", "http://127.0.0.1:9/v1"), "x y"),
        (("models", "add", "x", "--url", "http://127.0.0.1:9/v1", "--engine", "magic"), "magic"),
        (("keys", "revoke", "no-such-key"), "no-such-key"),
        (("keys", "create", "x", "--expires", "soon"), "--expires"),
        (("keys", "create", "x", "--rpm", "0"), "requests_per_minute"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_refusal_is_one_line_and_exit_code_1(run: Run, server: Server, refused: tuple[str, ...], word: str) -> None:
    done = run(*refused, "--data", str(server.data))
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1
    assert word in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", [("keys", "list"), ("keys", "create", "x"), ("usage",), ("journal", "verify")])
def test_before_the_first_start_there_is_nothing_to_show(run: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    done = run(*command, "--data", str(tmp_path / "data"))
    assert done.returncode == 1
    assert "galerne serve" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_keys_are_created_listed_and_revoked(run: Run, server: Server) -> None:
    def keys(*arguments: str) -> Done:
        return run("keys", *arguments, "--data", str(server.data))

    made = printed(keys("create", "ci", "--expires", "1h", "--rpm", "7", "--tpm", "900", "--json"))
    assert made["key"].startswith("gal_")
    assert (made["name"], made["requests_per_minute"], made["tokens_per_minute"]) == ("ci", 7, 900)
    assert made["scopes"] == ["inference:run", "models:read"]
    assert made["expires_at"] > made["created_at"]
    listed = {key["id"]: key for key in printed(keys("list", "--json"))}
    assert "key" not in listed[made["id"]]
    assert made["key"].startswith(listed[made["id"]]["prefix"])
    revoked = printed(keys("revoke", made["id"], "--json"))
    assert revoked["revoked_at"] is not None
    shown = keys("list")
    assert "revoked" in shown.stdout
    assert made["key"] not in shown.stdout


def test_models_are_listed_and_shown(run: Run, server: Server) -> None:
    def models(*arguments: str) -> Done:
        return run("models", *arguments, "--data", str(server.data))

    listed = {model["id"]: model for model in printed(models("list", "--json"))}
    assert {"brise", "minilm"} <= set(listed)
    shown = printed(models("show", "brise-latest", "--json"))
    assert shown["id"] == "brise"
    assert shown["kind"] == "chat"
    assert shown["context_length"] > 0
    assert "brise" in models("list").stdout


def test_a_model_gains_and_loses_an_address_and_an_adapter(run: Run, tmp_path: Path) -> None:
    def models(*arguments: str) -> Done:
        return run("models", *arguments, "--data", str(tmp_path))

    first, second = "http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"
    printed(models("add", "big", "--url", first, "--json"))
    both = printed(models("add", "big", "--url", second, "--zone", "fr", "--parallel", "4", "--json"))
    assert [(each["url"], each["zone"], each["most_parallel"]) for each in both["addresses"]] == [
        (first, "on-prem", None),
        (second, "fr", 4),
    ]
    assert printed(models("add", "legal", "--adapter-of", "big", "--json"))["adapter_of"] == "big"
    shown = models("show", "big").stdout
    assert f"{second} (" in shown
    assert "most_parallel 4" in shown
    assert f"{first}, {second}" in models("list").stdout
    assert models("remove", "big", "--url", first).stdout == f"removed big from {first}: it runs on {second}\n"
    assert models("remove", "big").returncode == 1
    assert models("remove", "legal").stdout == "removed legal\n"


def test_the_shipped_weights_are_what_their_manifest_says(run: Run) -> None:
    checks = printed(run("models", "verify", "--json"))
    assert checks
    assert [check for check in checks if check["problem"]] == []


def test_usage_and_journal_are_readable_beside_the_running_server(server: Server) -> None:
    request_id = server.chat().headers["x-request-id"]
    page = printed(server.cli("usage", "--json"))
    assert request_id in [event["id"] for event in page["data"]]
    assert page["totals"]["requests"] >= 1
    assert "brise" in server.cli("usage").stdout
    verified = printed(server.cli("journal", "verify", "--json"))
    assert verified["sound"] is True
    assert verified["count"] == verified["head"]["seq"]
    exported = server.cli("journal", "export")
    assert exported.returncode == 0
    leaves = [json.loads(line) for line in exported.stdout.splitlines()]
    assert len(leaves) >= verified["count"]
    assert request_id in exported.stdout


def test_a_model_can_be_added_before_the_first_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with upstream(says("Hello")) as other:
        added = galerne("models", "add", "remote", "--url", other.url, "--data", str(data), "--json")
        assert printed(added)["id"] == "remote"
        listed = printed(galerne("models", "list", "--data", str(data), "--json"))
        assert {"remote", "brise"} <= {model["id"] for model in listed}
        with serving(data, "--no-engines") as server:
            answer = server.chat(model="remote")
            assert answer.json["choices"][0]["message"]["content"] == "Hello"
            removed = server.cli("models", "remove", "remote")
            assert removed.stdout == "removed remote\n"
