"""This machine and its processes, from /proc: which processor it is, what a process has used, where it may run."""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROC = Path("/proc")
_AUTOGROUP = _PROC / "self" / "autogroup"
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


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


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used, all its threads together; resolution 10 ms."""
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def pss_mb(pid: int) -> float:
    """Its share of memory in MiB: pages that are shared count in parts."""
    found = re.search(r"^Pss:\s+(\d+) kB", (_PROC / str(pid) / "smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


@contextmanager
def ahead_of_others(nice: int = -10) -> Iterator[bool]:
    """Run this session's processes ahead of others on the machine, where that is allowed; whether it was.

    Linux weighs sessions before processes (sched(7), "The autogroup feature"): it is the session that needs it.
    """
    try:
        _AUTOGROUP.write_text(str(nice))
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        _AUTOGROUP.write_text("0")


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
