"""What /proc says of a process and its descendants: who they are, whether they live, where they listen."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_LISTEN = "0A"


@dataclass(frozen=True)
class Process:
    """One process; two with the same id at different times differ in `started_ticks`."""

    pid: int
    parent: int
    state: str
    started_ticks: int
    command: tuple[str, ...]

    @property
    def is_engine(self) -> bool:
        """Whether this is one of our engine processes."""
        return "engine" in self.command and "llamacpp" in self.command


def find(pid: int) -> Process | None:
    """The process, or None when it is gone."""
    try:
        _, _, rest = (_PROC / str(pid) / "stat").read_text().rpartition(")")
        command = (_PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return None
    fields = rest.split()
    return Process(pid, int(fields[1]), fields[0], int(fields[19]), tuple(part.decode() for part in command))


def tree(pid: int) -> list[Process]:
    """The process and everything that descends from it, itself first."""
    everyone = [process for process in map(find, _pids()) if process is not None]
    found = [process for process in everyone if process.pid == pid]
    for process in found:
        found += [child for child in everyone if child.parent == process.pid]
    return found


def is_running(process: Process) -> bool:
    """Whether it still runs; a zombie does not."""
    now = find(process.pid)
    return now is not None and now.started_ticks == process.started_ticks and now.state != "Z"


def has_gone(process: Process) -> bool:
    """Whether nothing of it is left, none of its threads either: its sockets are closed then."""
    now = find(process.pid)
    return now is None or now.started_ticks != process.started_ticks


def listening_addresses(pid: int) -> set[str]:
    """The local addresses, as /proc/net/tcp writes them, at which this process itself takes TCP connections."""
    sockets = {link.name for link in _links(pid)}
    found: set[str] = set()
    for table in ("tcp", "tcp6"):
        for line in (_PROC / str(pid) / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTEN and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1])
    return found


def wait_for(condition: Callable[[], bool], within_s: float, what: str) -> None:
    """Return as soon as `condition` holds; fail when it does not within the time."""
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, f"waited {within_s} s in vain: {what}"
        time.sleep(0.05)


def _pids() -> Iterator[int]:
    return (int(path.name) for path in _PROC.iterdir() if path.name.isdecimal())


def _links(pid: int) -> Iterator[Path]:
    for descriptor in (_PROC / str(pid) / "fd").iterdir():
        try:
            yield descriptor.readlink()
        except OSError:
            continue
