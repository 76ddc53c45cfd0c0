import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from galerne.engines import EngineSpec, Policy, State, Supervisor
from galerne.kernel import NotFound, SystemClock
from tests.engines.running import Engine, session, wait_until

QUICK = Policy(first_pause_s=0.05, longest_pause_s=0.2, failed_after=3, grace_s=20.0)


@pytest.fixture
def spec(tiny_model: Path, tmp_path: Path) -> EngineSpec:
    return EngineSpec("tiny", tiny_model, tmp_path / "e.sock", tmp_path / "cache", parallel=2)


@pytest.fixture
async def supervisor() -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(SystemClock(), QUICK)
    yield supervisor
    await supervisor.stop()


def _pids(socket: Path) -> list[int]:
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(socket) in words and b"llamacpp" in words:
            found.append(int(process.name))
    return found


async def _ask(spec: EngineSpec, tokens: int = 3) -> int:
    async with session(Engine(spec.socket, 0)) as http:
        body = {"prompt": "the", "max_tokens": tokens, "ignore_eos": True}
        async with http.post("/v1/completions", json=body) as response:
            return (await response.json())["usage"]["completion_tokens"]


@pytest.mark.timeout(120)  # starts an engine twice
async def test_killed_engine_is_started_again_and_answers_within_seconds(
    supervisor: Supervisor, spec: EngineSpec
) -> None:
    await supervisor.start([spec])
    assert await supervisor.wait_ready("tiny", 60)
    assert await _ask(spec) == 3
    (pid,) = _pids(spec.socket)
    os.kill(pid, signal.SIGKILL)
    begun = time.monotonic()
    while supervisor.replica("tiny").ready:
        await asyncio.sleep(0.01)
        assert time.monotonic() - begun < 10
    assert supervisor.replica("tiny").last_error == "was ended by SIGKILL"
    assert await supervisor.wait_ready("tiny", 60)
    assert await _ask(spec) == 3
    assert supervisor.replica("tiny").restarts == 1


@pytest.mark.timeout(120)  # starts an engine several times
async def test_engine_that_cannot_start_backs_off_and_says_why(
    supervisor: Supervisor, spec: EngineSpec, tmp_path: Path
) -> None:
    missing = EngineSpec("missing", tmp_path / "nowhere", spec.socket, spec.cache)
    await supervisor.start([missing])
    assert not await supervisor.wait_ready("missing", 0.2)
    await asyncio.to_thread(wait_until, lambda: supervisor.replica("missing").state is State.FAILED, 30)
    failed = supervisor.replica("missing")
    assert not failed.ready
    assert failed.last_error is not None
    assert "nowhere does not exist" in failed.last_error
    assert "exit code 1" in failed.last_error


@pytest.mark.timeout(120)  # starts an engine
async def test_stop_lets_running_requests_finish(supervisor: Supervisor, spec: EngineSpec, brise_model: Path) -> None:
    spec = replace(spec, model_dir=brise_model)
    await supervisor.start([spec])
    assert await supervisor.wait_ready("tiny", 60)
    asking = [asyncio.create_task(_ask(spec, 700)) for _ in range(2)]
    engine = Engine(spec.socket, 0)
    await asyncio.to_thread(wait_until, lambda: engine.metric("galerne_engine_requests_running") == 2, 20)
    assert not any(request.done() for request in asking)
    await supervisor.stop()
    assert await asyncio.gather(*asking) == [700, 700]
    assert supervisor.replica("tiny").state is State.STOPPED
    assert _pids(spec.socket) == []


@pytest.mark.timeout(120)  # starts an engine
async def test_unknown_engine_is_not_found(supervisor: Supervisor) -> None:
    with pytest.raises(NotFound):
        supervisor.replica("other")
    assert supervisor.replicas() == []


@pytest.mark.timeout(120)  # starts a parent that starts an engine
def test_engine_ends_when_its_parent_is_killed(spec: EngineSpec) -> None:
    program = f"""
import asyncio
from pathlib import Path
from galerne.engines import EngineSpec, Supervisor
from galerne.kernel import SystemClock

async def main():
    supervisor = Supervisor(SystemClock())
    spec = EngineSpec("tiny", Path({str(spec.model_dir)!r}), Path({str(spec.socket)!r}), Path({str(spec.cache)!r}))
    await supervisor.start([spec])
    assert await supervisor.wait_ready("tiny", 60)
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        while "ready\n" not in (line := parent.stdout.readline()):
            assert line, "the parent ended"
        assert _pids(spec.socket)
        parent.kill()
        parent.wait()
    wait_until(lambda: _pids(spec.socket) == [], 8)
