"""Measures what the engine process costs: tokens per second through its socket against xllamacpp called directly.

Both run on the same converted model, one after the other in the same process pair, in turns, so that noise of the
machine hits both. Greedy, 128 tokens each, the same prompts, which both find in their prefix caches.
"""

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from galerne.engines import EngineSpec, Supervisor
from galerne.engines.llamacpp.conversion import gguf_file
from galerne.engines.llamacpp.model_file import read_model_file
from galerne.engines.llamacpp.native import NativeOptions, start_native, threads_for
from galerne.kernel.clock import SystemClock

STREAMS = (1, 4, 16)
TOKENS = 128
PROMPT_TOKENS = 64
ROUNDS = 5


@dataclass(frozen=True)
class Row:
    """Median tokens per second at `streams` at once, and the engine's share of what xllamacpp does alone."""

    streams: int
    raw_tokens_per_s: float
    engine_tokens_per_s: float
    ratio: float
    raw_first_token_ms: float
    engine_first_token_ms: float


def run(model_dir: Path, rounds: int = ROUNDS) -> list[Row]:
    """One row for each number of streams; takes about a minute for `brise`."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measured(model_dir, Path(folder), rounds))


async def _measured(model_dir: Path, folder: Path, rounds: int) -> list[Row]:
    file = gguf_file(model_dir, folder)
    model = read_model_file(file)
    context = min(model.context_length, 2048)
    options = NativeOptions(max(STREAMS), context, threads_for(model, os.cpu_count() or 1), embeddings=False)
    raw = start_native(model, options, folder / "raw.sock")
    supervisor = Supervisor(SystemClock())
    spec = EngineSpec("bench", file, folder / "engine.sock", folder, parallel=max(STREAMS), context=context)
    await supervisor.start([spec])
    try:
        if not await supervisor.wait_ready("bench", 120):
            raise RuntimeError(supervisor.replica("bench").last_error)
        return [await _row(raw, spec.socket, streams, rounds) for streams in STREAMS]
    finally:
        await supervisor.stop()


async def _row(raw: Any, socket: Path, streams: int, rounds: int) -> Row:
    pairs: list[tuple[float, float, float, float]] = []
    repeats = max(1, 4 // streams)
    for turn in range(rounds + 1):
        with _timed() as raw_time:
            raw_first = [first for _ in range(repeats) for first in await asyncio.to_thread(_raw_streams, raw, streams)]
        with _timed() as engine_time:
            engine_first = [first for _ in range(repeats) for first in await _engine_streams(socket, streams)]
        if turn:  # the first round warms both up
            tokens = streams * repeats * TOKENS
            pairs.append((tokens / raw_time[0], tokens / engine_time[0], median(raw_first), median(engine_first)))
    raw_rate, engine_rate, raw_first_s, engine_first_s = (median(column) for column in zip(*pairs, strict=True))
    ratio = median(engine / raw for raw, engine, _, _ in pairs)
    return Row(streams, raw_rate, engine_rate, ratio, raw_first_s * 1000, engine_first_s * 1000)


@contextmanager
def _timed() -> Iterator[list[float]]:
    taken = [0.0]
    begun = time.perf_counter()
    yield taken
    taken[0] = time.perf_counter() - begun


def _prompt(stream: int) -> list[int]:
    return [1, *((stream * 7 + place * 13) % 3000 + 100 for place in range(PROMPT_TOKENS - 1))]


def _raw_streams(server: Any, streams: int) -> list[float]:
    first: list[float] = []

    def one(stream: int) -> None:
        begun, seen = time.perf_counter(), list[float]()
        body = {"prompt": _prompt(stream), "max_tokens": TOKENS, "stream": True, "ignore_eos": True}
        body |= {"temperature": 0.0, "samplers": ["temperature"]}
        server.handle_completions(
            json.dumps(body).encode(), lambda _: seen.append(time.perf_counter() - begun) and False
        )
        first.append(seen[0])

    threads = [threading.Thread(target=one, args=(stream,)) for stream in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return first


async def _engine_streams(socket: Path, streams: int) -> list[float]:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(socket), limit=0)) as session:
        return list(await asyncio.gather(*(_engine_stream(session, stream) for stream in range(streams))))


async def _engine_stream(session: aiohttp.ClientSession, stream: int) -> float:
    begun, first = time.perf_counter(), 0.0
    body = {"prompt": _prompt(stream), "max_tokens": TOKENS, "stream": True, "ignore_eos": True, "temperature": 0.0}
    body |= {"repetition_penalty": 1.0}
    async with session.post("http://engine/v1/completions", json=body) as response:
        response.raise_for_status()
        async for _ in response.content.iter_any():
            first = first or time.perf_counter() - begun
    return first


def table(rows: list[Row]) -> str:
    """The rows as text."""
    lines = ["streams   raw tok/s   engine tok/s   ratio   raw TTFT ms   engine TTFT ms"]
    for row in rows:
        lines.append(
            f"{row.streams:7d} {row.raw_tokens_per_s:11.0f} {row.engine_tokens_per_s:14.0f} {row.ratio:7.3f}"
            f" {row.raw_first_token_ms:13.1f} {row.engine_first_token_ms:16.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(run(Path(sys.argv[1]))))
    sys.stdout.flush()
    os._exit(0)
