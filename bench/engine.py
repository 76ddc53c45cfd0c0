"""What the engine process costs: tokens a second through its socket against xllamacpp called directly.

Both run the same converted model, side by side and in turns, so that the machine's noise hits both alike. Each stream
is one thread that waits for its tokens: in a callback of xllamacpp there, in a read of the socket here.
"""

import asyncio
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from socket import AF_UNIX, SOCK_STREAM, socket
from statistics import median
from typing import Any

import galerne.models
from bench.report import Report
from galerne.engines import EngineSpec, Supervisor
from galerne.engines.llamacpp.conversion import gguf_file
from galerne.engines.llamacpp.model_file import read_model_file
from galerne.engines.llamacpp.native import NativeOptions, start_native, threads_for
from galerne.kernel import SystemClock

STREAMS = (1, 4, 16)
TOKENS = 128
PROMPT_TOKENS = 64
ROUNDS = 9
_BRISE = Path(str(galerne.models.__file__)).parent / "weights" / "brise"


@dataclass(frozen=True)
class Row:
    """Medians at `streams` at once: tokens per second, first token in milliseconds, and the engine's share of raw."""

    streams: int
    raw_tokens_per_s: float
    engine_tokens_per_s: float
    share: float
    raw_first_token_ms: float
    engine_first_token_ms: float


def run(model_dir: Path = _BRISE) -> Report:
    """The figures for `model_dir`; takes about a minute for `brise`."""
    return Report(
        title="engine",
        how=(
            f"Greedy, {TOKENS} tokens after {PROMPT_TOKENS} of prompt (cached on both sides), `{model_dir.name}`, F16; "
            f"median of {ROUNDS} rounds, xllamacpp and the engine process in turns; the share is the median of each "
            "round's own."
        ),
        columns=("streams", "xllamacpp tok/s", "engine tok/s", "share", "xllamacpp TTFT ms", "engine TTFT ms"),
        rows=[
            (
                str(row.streams),
                f"{row.raw_tokens_per_s:.0f}",
                f"{row.engine_tokens_per_s:.0f}",
                f"{row.share:.3f}",
                f"{row.raw_first_token_ms:.1f}",
                f"{row.engine_first_token_ms:.1f}",
            )
            for row in measure(model_dir)
        ],
    )


def measure(model_dir: Path, rounds: int = ROUNDS) -> list[Row]:
    """One row for each number of streams."""
    with tempfile.TemporaryDirectory(prefix="galerne-bench-") as folder:
        return asyncio.run(_measured(model_dir, Path(folder), rounds))


async def _measured(model_dir: Path, folder: Path, rounds: int) -> list[Row]:
    file = gguf_file(model_dir, folder)
    model = read_model_file(file)
    context = min(model.context_length, 2048)
    threads = threads_for(model, os.cpu_count() or 1)
    raw = start_native(model, NativeOptions(max(STREAMS), context, threads, embeddings=False), folder / "raw.sock")
    supervisor = Supervisor(SystemClock())
    spec = EngineSpec("bench", file, folder / "engine.sock", folder, parallel=max(STREAMS), context=context)
    await supervisor.start([spec])
    try:
        if not await supervisor.wait_ready("bench", 120):
            raise RuntimeError(supervisor.replica("bench").last_error)
        return [await asyncio.to_thread(_row, raw, spec.socket, streams, rounds) for streams in STREAMS]
    finally:
        await supervisor.stop()


def _row(raw: Any, path: Path, streams: int, rounds: int) -> Row:
    turns: list[tuple[float, float, float, float]] = []
    for turn in range(rounds + 1):
        raw_rate, raw_first = _together(streams, lambda stream: _raw_stream(raw, stream))
        engine_rate, engine_first = _together(streams, lambda stream: _engine_stream(path, stream))
        if turn:  # the first round warms both up
            turns.append((raw_rate, engine_rate, raw_first, engine_first))
    share = median(engine / alone for alone, engine, _, _ in turns)
    raw_rate, engine_rate, raw_first, engine_first = (median(column) for column in zip(*turns, strict=True))
    return Row(streams, raw_rate, engine_rate, share, raw_first * 1000, engine_first * 1000)


def _together(streams: int, one: Callable[[int], float]) -> tuple[float, float]:
    first: list[float] = []
    repeats = max(1, 4 // streams)

    def several(stream: int) -> None:
        first.extend(one(stream) for _ in range(repeats))

    threads = [threading.Thread(target=several, args=(stream,)) for stream in range(streams)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return streams * repeats * TOKENS / (time.perf_counter() - begun), median(first)


def _prompt(stream: int) -> list[int]:
    return [1, *((stream * 7 + place * 13) % 3000 + 100 for place in range(PROMPT_TOKENS - 1))]


def _raw_stream(server: Any, stream: int) -> float:
    begun, seen = time.perf_counter(), list[float]()
    body = {"prompt": _prompt(stream), "max_tokens": TOKENS, "stream": True, "ignore_eos": True}
    body |= {"temperature": 0.0, "samplers": ["temperature"]}

    def take(_: bytes) -> bool:
        seen.append(time.perf_counter())
        return False

    server.handle_completions(json.dumps(body).encode(), take)
    return seen[0] - begun


def _engine_stream(path: Path, stream: int) -> float:
    body = {"prompt": _prompt(stream), "max_tokens": TOKENS, "stream": True, "ignore_eos": True}
    content = json.dumps(body | {"temperature": 0.0, "repetition_penalty": 1.0}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: engine\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    begun, first, tail = time.perf_counter(), 0.0, b""
    with socket(AF_UNIX, SOCK_STREAM) as connection:
        connection.connect(str(path))
        connection.sendall(head + content)
        while b"data: [DONE]" not in tail:
            arrived = connection.recv(65536)
            if not arrived:
                raise RuntimeError(f"the engine broke off: {tail!r}")
            first = first or time.perf_counter()
            tail = (tail + arrived)[-200:]
    return first - begun
