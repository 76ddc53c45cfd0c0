"""This machine and its processes, from /proc: which processor it is, what a process has used, where it may run."""

import os
import platform
import re
import time
from collections.abc import Collection, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_AHEAD = -10
_BLOCK = b"\0" * 4096


def describe() -> str:
    """Processor, cores, kernel, Python and the load when asked."""
    return (
        f"{processor()}, {len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )


def processor() -> str:
    """The processor's name for itself."""
    found = re.search(r"model name\s*: (.+)", (_PROC / "cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for each in found:
        with suppress(OSError):  # it may end while we look
            for task in (_PROC / str(each) / "task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process and its descendants have used, all threads together; resolution 10 ms."""
    return sum(map(_own_cpu_s, tree(pid)))


def pss_mb(pid: int) -> float:
    """The share of memory of a process and its descendants in MB (10^6 bytes): pages that are shared count in parts."""
    rollups = [(_PROC / str(each) / "smaps_rollup").read_text() for each in tree(pid)]
    found = [re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE) for rollup in rollups]
    return sum(int(each[1]) * 1024 / 1e6 for each in found if each)


def rss_mb(pid: int) -> float:
    """What a process alone holds in memory in MB (10^6 bytes), shared pages in full."""
    return int((_PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb(pid: int) -> float:
    """The most that a process alone has held in memory in MB (10^6 bytes); not, as `getrusage`, who started it too."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", (_PROC / str(pid) / "status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def descriptors(pid: int) -> int:
    """How many files, pipes and sockets a process has open."""
    return len(list((_PROC / str(pid) / "fd").iterdir()))


def core_times_s(cores: Collection[int]) -> tuple[float, float]:
    """Seconds for which these cores were busy, with whatever, and seconds in all."""
    busy = total = 0
    for line in (_PROC / "stat").read_text().splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            times = [int(each) for each in ticks[:8]]
            idle = times[3] + times[4]
            busy, total = busy + sum(times) - idle, total + sum(times)
    return busy / _TICKS_PER_S, total / _TICKS_PER_S


def fdatasync_times_s(folder: Path, count: int, gap_s: float) -> list[float]:
    """How long an append of 4 KiB takes to reach the disk of `folder`, one every `gap_s`."""
    path = folder / "fdatasync"
    times: list[float] = []
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(count):
            began_s = time.perf_counter()
            os.write(file, _BLOCK)
            os.fdatasync(file)
            times.append(time.perf_counter() - began_s)
            time.sleep(max(0.0, gap_s - times[-1]))
    finally:
        os.close(file)
        path.unlink()
    return times


@contextmanager
def ahead_of_others() -> Generator[bool]:
    """Run this session's processes ahead of others on the machine, where that is allowed; whether it was."""
    if not put_ahead(os.getpid()):
        yield False
        return
    try:
        yield True
    finally:
        _autogroup(os.getpid()).write_text("0")


def put_ahead(pid: int) -> bool:
    """Run the session of this process ahead of others; whether that is allowed.

    Linux weighs sessions before processes (sched(7), "The autogroup feature"): it is the session that needs it.
    """
    try:
        _autogroup(pid).write_text(str(_AHEAD))
    except OSError:
        return False
    return True


@contextmanager
def on_cores(cores: Collection[int]) -> Generator[None]:
    """Run this process, and what it starts meanwhile, on these cores only."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def option_of_child(pid: int, name: str, value: str, wanted: str) -> str:
    """What follows the option `wanted` in the command of that child whose option `name` is `value`."""
    children = (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split()
    for child in children:
        words = (_PROC / child / "cmdline").read_bytes().decode().split("\0")
        if name in words and words[words.index(name) + 1] == value:
            return words[words.index(wanted) + 1]
    raise LookupError(f"no child of {pid} runs with {name} {value}")


def split_cores() -> tuple[set[int], set[int]]:
    """One core for what is measured, the others for who measures; the same one when there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return {cores[0]}, set(cores[1:]) or {cores[0]}


def _own_cpu_s(pid: int) -> float:
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _autogroup(pid: int) -> Path:
    return _PROC / str(pid) / "autogroup"
