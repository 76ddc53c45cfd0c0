"""What the whole server costs: tokens a second through it against the same engine process asked directly.

Both ways are measured in turns on one running installation, so that engine, model and the machine's noise are the same:
directly through the engine's unix socket, and through the gateway with key, limits, journal and durable metering. The
callers are threads with bare sockets, as in `bench.engine`.
"""

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET, AF_UNIX, SOCK_STREAM, socket
from statistics import median

from bench import machine
from bench.installation import Installation, Place, serving, set_up
from bench.load import percentile
from bench.report import Report

_STREAMS = (1, 4, 16)
_TOKENS = 128
_PROMPT_TOKENS = 64
_ROUNDS = 9

Connect = Callable[[], socket]


@dataclass(frozen=True)
class _Way:
    """How to reach the engine: a connection, and the header that lets one in."""

    connect: Connect
    header: str = ""


@dataclass(frozen=True)
class _Round:
    """One round at some number of streams: tokens a second, and the times to the first token."""

    tokens_per_s: float
    first_token_s: list[float]


def run() -> Report:
    """The figures for `brise`; takes about a minute."""
    with tempfile.TemporaryDirectory(prefix="galerne-bench-") as folder:
        place = Place(Path(folder) / "data", environment={"GALERNE_ENGINE_PARALLEL": str(max(_STREAMS))})
        with serving(place, set_up(place), os.sched_getaffinity(0), first_model="brise") as installation:
            before = installation.metered()
            rows = [_row(installation, streams) for streams in _STREAMS]
            metered = installation.metered() - before
            asked = sum((_repeats(each) + 1) * each * (_ROUNDS + 1) for each in _STREAMS)
    return Report(
        "server",
        f"Greedy, {_TOKENS} tokens after {_PROMPT_TOKENS} of prompt (cached), `brise`; median of {_ROUNDS} rounds, "
        "engine process and server in turns; the share is the median of each round's own.",
        ["streams", "engine tok/s", "server tok/s", "share", "engine TTFT p50 / p99 ms", "server TTFT p50 / p99 ms"],
        rows,
        [f"Requests metered: {metered} of {asked}."],
    )


def _row(installation: Installation, streams: int) -> list[str]:
    engine, server = _to_engine(installation), _to_server(installation)
    rounds = [(_together(engine, streams), _together(server, streams)) for _ in range(_ROUNDS + 1)][1:]
    share = median(through.tokens_per_s / alone.tokens_per_s for alone, through in rounds)
    alone, through = zip(*rounds, strict=True)
    rates = [f"{median(each.tokens_per_s for each in way):.0f}" for way in (alone, through)]
    return [str(streams), *rates, f"{share:.3f}", _first_ms(alone), _first_ms(through)]


def _first_ms(rounds: tuple[_Round, ...]) -> str:
    times = [each * 1000 for one in rounds for each in one.first_token_s]
    return f"{percentile(times, 50):.1f} / {percentile(times, 99):.1f}"


def _to_engine(installation: Installation) -> _Way:
    path = machine.option_of_child(installation.pid, "--name", "brise", "--socket")

    def connect() -> socket:
        connection = socket(AF_UNIX, SOCK_STREAM)
        connection.connect(path)
        return connection

    return _Way(connect)


def _to_server(installation: Installation) -> _Way:
    target = installation.target

    def connect() -> socket:
        connection = socket(AF_INET, SOCK_STREAM)
        connection.connect((target.host, target.port))
        return connection

    return _Way(connect, f"Authorization: Bearer {target.key}\r\n")


def _repeats(streams: int) -> int:
    return max(1, 4 // streams)


def _together(way: _Way, streams: int) -> _Round:
    first: list[float] = []
    repeats = _repeats(streams)

    def several(stream: int) -> None:
        first.extend(_stream(way, stream, _TOKENS) for _ in range(repeats))

    _read_prompts(way, streams)
    threads = [threading.Thread(target=several, args=(stream,)) for stream in range(streams)]
    began_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _Round(streams * repeats * _TOKENS / (time.perf_counter() - began_s), first)


def _read_prompts(way: _Way, streams: int) -> None:
    # Prefixes read for one caller are never used for another, so each way has to find its own.
    threads = [threading.Thread(target=_stream, args=(way, stream, 1)) for stream in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _stream(way: _Way, stream: int, tokens: int) -> float:
    prompt = [1, *((stream * 7 + place * 13) % 3000 + 100 for place in range(_PROMPT_TOKENS - 1))]
    body = {"model": "brise", "prompt": prompt, "stream": True, "temperature": 0, "stream_options": _USAGE}
    content = json.dumps({**body, "max_tokens": tokens, "min_tokens": tokens}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: bench\r\n{way.header}Content-Length: {len(content)}\r\n\r\n"
    began_s, first_s, tail = time.perf_counter(), 0.0, b""
    with closing(way.connect()) as connection:
        connection.sendall(head.encode() + content)
        while b"data: [DONE]" not in tail:
            arrived = connection.recv(65536)
            if not arrived:
                raise SystemExit(f"the answer broke off: {tail!r}")
            first_s = first_s or time.perf_counter()
            tail = (tail + arrived)[-400:]
    if f'"completion_tokens":{tokens}'.encode() not in tail:
        raise SystemExit(f"not {tokens} tokens: {tail!r}")
    return first_s - began_s


_USAGE = {"include_usage": True, "continuous_usage_stats": True}
