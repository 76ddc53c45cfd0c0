"""Where a process listens, and how it answers there until a signal says stop."""

import asyncio
import gc
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from galerne.apps.connections import bounded_http, most_connections
from galerne.gateway import Gateway
from galerne.kernel import Conflict

_GRACE_S = 20


@dataclass(frozen=True, slots=True)
class Listening:
    """Where to listen; port 0 takes a free one."""

    host: str
    port: int


@contextmanager
def bound(where: Listening, *, shared: bool = False) -> Generator[socket.socket]:
    """A listening socket; a `shared` port may be listened on by other processes of this user too, if they share it.

    Raises `Conflict` when the address is not this machine's or the port is taken.
    """
    with _socket(where) as listening:
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(listening, where)
        listening.listen(2048)
        yield listening


def check_free(where: Listening) -> None:
    """Raise `Conflict` if anybody listens there; sharing a port does not tell."""
    with _socket(where) as probe:
        _bind(probe, where)


def address_of(where: Listening, listening: socket.socket) -> str:
    """The URL at which this machine reaches the socket."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(where.host, where.host)  # noqa: S104 - read here, never listened on
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


async def answer_until_told(
    app: ASGIApp, gateway: Gateway, listening: socket.socket, stopping: asyncio.Event | None = None
) -> None:
    """Serve `app`, and its inference by `gateway` without ASGI between, until SIGTERM or SIGINT.

    These set `stopping`; then running requests have had their time before this returns.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        http=cast(Any, bounded_http(gateway)),
        limit_concurrency=most_connections(),
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config, stopping or asyncio.Event())

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises the signal again when it is done; it has been obeyed then, and settling is still to come.
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    _spare_the_collector()
    await server.serve(sockets=[listening])


def _spare_the_collector() -> None:
    """Have Python look for cycles of garbage rarely, and never among what was there at the start.

    A request makes some hundred objects and no cycle (`tests/gateway/test_no_cycles.py`); by default they would be
    walked over every other request. What makes cycles (the control plane, SQLAlchemy) leaves 10,000 objects at most,
    some 2 MB, before they are found, and ten times as many where they had survived a first look.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._loop.call_soon_threadsafe(self._stopping.set)


def _socket(where: Listening) -> socket.socket:
    family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def _bind(listening: socket.socket, where: Listening) -> None:
    try:
        listening.bind((where.host, where.port))
    except socket.gaierror:
        raise Conflict(f"{where.host} is no address of this machine; name one with --host.") from None
    except OSError as error:
        raise Conflict(
            f"Cannot listen on {where.host}:{where.port}: {error.strerror}. Choose another with --port or --host."
        ) from None
