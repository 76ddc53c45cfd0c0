"""Portkey's gateway from npm, headless, routed by headers.

`@hono/node-server` is held at 1.12.2 because streaming fails with the version that npm takes by itself
(github.com/Portkey-AI/gateway/issues/1389).
"""

import shutil
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path

from bench.load import Target
from bench.peers.environment import install_once, ran
from bench.processes import Subject, free_port, running, until_answered

NAME = "Portkey"
WHAT = (
    "`@portkey-ai/gateway` 1.15.2 with `@hono/node-server` 1.12.2, one process, headless: no keys, no spend, no limits"
)
_HERE = Path(__file__).parent
_FILES = [_HERE / name for name in ("package.json", "package-lock.json", ".npmrc")]


def install(folder: Path) -> None:
    """Put it into `folder`, unless it is there."""

    def fill(fresh: Path) -> None:
        for file in _FILES:
            shutil.copy(file, fresh)
        ran(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], fresh)

    install_once(folder, _FILES, fill)


@contextmanager
def starting(folder: Path, mock: Target, cores: Collection[int]) -> Generator[Subject]:
    """The gateway on these cores, before the mock."""
    port = free_port()
    upstream = f"http://{mock.host}:{mock.port}/v1"
    headers = (("x-portkey-provider", "openai"), ("x-portkey-custom-host", upstream))
    target = Target("127.0.0.1", port, "unused", headers)
    script = folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    command = ["node", "--require", _HERE / "loopback.cjs", script, "--headless", f"--port={port}"]
    with running(command, cores, log=folder / "log") as (process, began_s):
        yield Subject(NAME, target, process.pid, until_answered(target, process) - began_s)
