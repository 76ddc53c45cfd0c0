"""What `galerne serve` says when it cannot start: one line, exit code 1, nothing left behind."""

import shutil
import socket
from importlib import resources
from pathlib import Path

import pytest

from tests.serving import ADMIN_KEY, Server, clean_environment, galerne


def refused_in_one_line(done, *words: str) -> None:
    assert done.returncode == 1, (done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]


def test_a_second_server_on_the_same_folder_is_refused(server: Server) -> None:
    done = server.cli("serve", "--port", "0")
    refused_in_one_line(done, "galerne serve", str(server.data))
    assert server.chat().status == 200


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = galerne("serve", "--port", port, "--data", str(tmp_path / "data"))
    refused_in_one_line(done, port, "--port")


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("mysql://user:hidden-word@localhost/galerne", "GALERNE_DATABASE_URL"),
        ("postgresql+asyncpg://user:hidden-word@127.0.0.1:1/galerne", "database"),
        ("sqlite+aiosqlite:////dev/null/galerne.db", "database"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named_without_its_password(tmp_path: Path, url: str, word: str) -> None:
    environment = clean_environment(GALERNE_DATABASE_URL=url)
    done = galerne("serve", "--port", "0", "--data", str(tmp_path / "data"), environment=environment)
    refused_in_one_line(done, word)
    assert "hidden-word" not in done.stderr + done.stdout


def test_an_admin_key_that_is_too_short_is_refused(tmp_path: Path) -> None:
    environment = clean_environment(GALERNE_ADMIN_KEY="short")
    done = galerne("serve", "--port", "0", "--data", str(tmp_path / "data"), environment=environment)
    refused_in_one_line(done, "GALERNE_ADMIN_KEY")


def test_a_data_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused_in_one_line(galerne("serve", "--port", "0", "--data", str(tmp_path / "file")), str(tmp_path / "file"))


@pytest.mark.parametrize("harm", ["cut", "empty", "missing", "no config"])
def test_an_engine_refuses_a_corrupt_model_folder_and_names_the_file(tmp_path: Path, harm: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(Path(str(resources.files("galerne.models"))) / "weights" / "brise", folder)
    weights = folder / "model.safetensors"
    if harm == "cut":
        weights.write_bytes(weights.read_bytes()[:100_000])
    elif harm == "empty":
        weights.write_bytes(b"")
    elif harm == "missing":
        weights.unlink()
    else:
        (folder / "config.json").unlink()
    options = ("--model", str(folder), "--socket", str(tmp_path / "e.sock"), "--cache", str(tmp_path / "cache"))
    done = galerne("engine", "llamacpp", *options)
    refused_in_one_line(done, "config.json" if harm == "no config" else "safetensors")
    assert not (tmp_path / "e.sock").exists()


def test_the_data_folder_is_private_and_holds_no_secret_in_the_clear(server: Server) -> None:
    assert server.data.stat().st_mode & 0o077 == 0
    assert [path for path in server.data.rglob("galerne.db*") if path.stat().st_mode & 0o077] == []
    key = server.new_key("kept as a hash")
    assert server.chat(key=key.secret).status == 200
    kept = b"".join(path.read_bytes() for path in server.data.glob("galerne.db*"))
    assert key.id.encode() in kept
    assert key.secret.encode() not in kept
    assert ADMIN_KEY.encode() not in kept
