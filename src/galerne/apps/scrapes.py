"""What Prometheus is told of several processes that share a port: each one's figures, under a label of its own.

Whichever of them accepts the scrape asks the others at their sockets in the run folder. Figures are not added up: a sum
would jump back when one process starts anew, and a rate over it would be wrong.
"""

import asyncio
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from galerne.kernel.http_client import Client, Lost, NotConnected, request_to

_TIMEOUT_S = 2.0
_LARGEST = 64 * 1024 * 1024
_PREFIX = "worker-"
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"


def socket_of(run: Path, worker: str) -> Path:
    """Where the worker of this name tells its figures."""
    return run / f"{_PREFIX}{worker}.sock"


def labelled(texts: Mapping[str, str]) -> str:
    """Several expositions as one: every sample with the label `worker`, each family in one piece, as it must be."""
    families: dict[str, tuple[list[str], list[str]]] = {}
    for worker, text in texts.items():
        heads: list[str] = []
        samples: list[str] = []
        for line in text.splitlines():
            if line.startswith("# HELP "):
                heads, samples = families.setdefault(line.split(" ", 3)[2], ([], []))
            if line.startswith("#"):
                if line not in heads:
                    heads.append(line)
            elif line:
                samples.append(_with_label(line, worker))
    return "".join(f"{line}\n" for heads, samples in families.values() for line in (*heads, *samples))


class SharedScrapes:
    """One process's part: it tells the others its figures, and asks them for theirs."""

    def __init__(self, run: Path, worker: str, registry: CollectorRegistry) -> None:
        self._run = run
        self._worker = worker
        self._registry = registry
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to answer the others, and whoever supervises this process."""
        self._server = await asyncio.start_unix_server(self._tell, socket_of(self._run, self._worker))

    def stop(self) -> None:
        """Answer no more."""
        if self._server is not None:
            self._server.close()

    async def all(self) -> bytes:
        """Everybody's figures; one that does not answer within two seconds is left out."""
        others = {
            path.stem.removeprefix(_PREFIX): path
            for path in sorted(self._run.glob(f"{_PREFIX}*.sock"))
            if path != socket_of(self._run, self._worker)
        }
        told = await asyncio.gather(*map(_ask, others.values()))
        texts = {self._worker: self._own().decode()}
        texts |= {worker: text for worker, text in zip(others, told, strict=True) if text is not None}
        return labelled(dict(sorted(texts.items()))).encode()

    def _own(self) -> bytes:
        return generate_latest(self._registry)

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await reader.readuntil(b"\r\n\r\n")
            body = self._own() if asked.startswith(b"GET /metrics ") else b""
            writer.write(_HEAD % len(body) + body)
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()


async def _ask(path: Path) -> str | None:
    address, head = request_to("GET", "http://worker/metrics", {"connection": "close"}, path)
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            with closing(await Client().send(address, head, None, _TIMEOUT_S)) as answer:
                raw = await answer.read_all(_LARGEST)
    except (NotConnected, Lost, TimeoutError):
        return None
    return None if raw is None else raw.decode()


def _with_label(sample: str, worker: str) -> str:
    at = min(at for at in (sample.find("{"), sample.find(" ")) if at >= 0)
    rest = f",{sample[at + 1 :]}" if sample[at] == "{" else f"}}{sample[at:]}"
    return f'{sample[:at]}{{worker="{worker}"{rest}'
