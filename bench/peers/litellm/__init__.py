"""LiteLLM's proxy from PyPI, one worker, with a master key and without a database.

Its keys and its spend need a database engine that is a binary downloaded at run time, which a closed network refuses: a
proxy with the duties of ours costs more than what is measured here.
"""

import json
import os
import sys
from collections.abc import Collection, Generator
from contextlib import contextmanager
from pathlib import Path

from bench.load import Target
from bench.peers.environment import install_once, ran
from bench.processes import Subject, free_port, running, until_answered

NAME = "LiteLLM"
WHAT = (
    "`litellm[proxy]` 1.106.2, one worker, master key and no database (its database engine is a binary that cannot be "
    "downloaded here): no virtual keys, no spend, no limits"
)
_KEY = "sk-bench"
_REQUIREMENTS = Path(__file__).parent / "requirements.txt"
_QUIET = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "127.0.0.1",
}


def install(folder: Path) -> None:
    """Put it into `folder`, an environment of its own, unless it is there."""

    def fill(fresh: Path) -> None:
        ran([sys.executable, "-m", "venv", "."], fresh)
        ran([_bin(fresh) / "python", "-m", "pip", "install", "--quiet", "--requirement", _REQUIREMENTS], fresh)

    install_once(folder, [_REQUIREMENTS], fill)


@contextmanager
def starting(folder: Path, mock: Target, cores: Collection[int]) -> Generator[Subject]:
    """The proxy on these cores, before the mock."""
    target = Target("127.0.0.1", free_port(), _KEY)
    config = folder / "config.json"
    config.write_text(json.dumps(_config(mock)))
    options = ["--host", target.host, "--port", str(target.port), "--num_workers", "1", "--telemetry", "False"]
    command = [_bin(folder) / "python", _bin(folder) / "litellm", "--config", config, *options]
    with running(command, cores, environment={**os.environ, **_QUIET}, log=folder / "log") as (process, began_s):
        yield Subject(NAME, target, process.pid, until_answered(target, process) - began_s)


def _config(mock: Target) -> dict[str, object]:
    upstream = {"model": "openai/mock-*", "api_base": f"http://{mock.host}:{mock.port}/v1", "api_key": "unused"}
    return {
        "model_list": [{"model_name": "mock-*", "litellm_params": upstream}],
        "general_settings": {"master_key": _KEY},
    }


def _bin(folder: Path) -> Path:
    return folder / "bin"
