import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.engines.running import Engine, command, running, wait_until


def _refused(model: Path, folder: Path, *more: str) -> str:
    done = subprocess.run(
        command(model, folder / "e.sock", folder / "cache", *more), capture_output=True, text=True, timeout=60
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1, done.stderr
    assert len(lines) == 1, done.stderr
    assert not (folder / "e.sock").exists()
    return lines[0]


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def test_truncated_weights_are_refused_in_one_line(copy: Path, tmp_path: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "model.safetensors is truncated" in _refused(copy, tmp_path)


def test_foreign_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no model.safetensors and no .gguf file" in _refused(tmp_path / "empty", tmp_path)


def test_damaged_gguf_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(200))
    assert "bad.gguf is not a usable GGUF file" in _refused(tmp_path / "bad.gguf", tmp_path)


def test_text_model_cannot_be_started_for_embeddings(tiny_model: Path, tmp_path: Path) -> None:
    assert "leave out --embeddings" in _refused(tiny_model, tmp_path, "--embeddings")


def test_only_the_owner_can_connect(engine: Engine) -> None:
    for socket in (engine.socket, engine.socket.with_name("e.sock.native.sock")):
        assert stat.S_IMODE(socket.stat().st_mode) & 0o077 == 0


def test_nothing_listens_beyond_unix_sockets(engine: Engine) -> None:
    own = {str(link.readlink()) for link in Path(f"/proc/{engine.pid}/fd").iterdir()}
    for table in ("tcp", "tcp6"):
        rows = Path(f"/proc/{engine.pid}/net/{table}").read_text().splitlines()[1:]
        listening = {f"socket:[{row.split()[9]}]" for row in rows if row.split()[3] == "0A"}
        assert not own & listening


def test_health_and_model_card(engine: Engine) -> None:
    assert engine.get("/health").json == {"status": "ok"}
    card = engine.get("/v1/models").json["data"][0]
    assert (card["id"], card["max_context_length"]) == ("tiny", 512)


def test_unknown_path_is_not_found(engine: Engine) -> None:
    assert engine.get("/nowhere").status == 404
    assert "only generates text" in engine.post("/v1/embeddings", {"input": "x"}).error["message"]


def test_stop_by_signal_is_clean_and_leaves_no_sockets(tiny_model: Path, tmp_path: Path) -> None:
    with subprocess.Popen(command(tiny_model, tmp_path / "e.sock", tmp_path / "cache")) as process:
        wait_until(lambda: (tmp_path / "e.sock").exists(), 30)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert not list(tmp_path.glob("*.sock"))


def test_q8_weights_serve_too(tiny_model: Path, tmp_path: Path) -> None:
    with running(tiny_model, tmp_path, "--weights", "q8_0") as quantised:
        assert quantised.complete("the quick", max_tokens=3).status == 200
