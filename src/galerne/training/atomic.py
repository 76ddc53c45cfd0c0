"""A file that is either the old one or the whole new one, whatever happens to the machine in between."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_path"]


@contextmanager
def atomic_path(path: Path) -> Generator[Path]:
    """A temporary path beside `path`; what was written there takes its place, synced, when the block ends well."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    yield unfinished
    with unfinished.open("rb") as written:
        os.fsync(written.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
