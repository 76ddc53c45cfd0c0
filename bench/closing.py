"""What closing a month takes: every request rated, every customer's invoice drafted, checked and made final.

Beside each stage stands what bounds it, measured in the same run on the same rows: SQLite reading or writing them by
itself, and SHA-256 over as many leaves.
"""

import asyncio
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.month import MONTHLY, month_before, set_up, write_events
from bench.report import Report

_ASKED = 500_000  # rows that a limit is measured on
_COLUMNS = (
    "e.id, e.started_at, e.workspace_id, e.key_id, e.organisation_id, e.model, e.endpoint, e.tier, e.zone, "
    "e.input_tokens, e.cached_tokens, e.output_tokens"
)
_LEAF = b"\0" * 300
_NODE = b"\1" * 65


def run(events: int = 1_000_000, customers: int = 1000, folder: str | None = None) -> Report:
    """Make the month in a folder of its own (below `folder`), close it, and take it away again."""
    place = Path(tempfile.mkdtemp(prefix="galerne-closing-", dir=folder))
    try:
        start = month_before(datetime.now(UTC))
        names = asyncio.run(set_up(place, start, customers))
        began_s = time.monotonic()
        write_events(place, names, start, events)
        made_s = time.monotonic() - began_s
        read_per_s = _reading(place)
        found = _closed(place, f"{start:%Y-%m}")
        written_per_s, leaves = _writing(place), _leaves(place)
        size_mb = (place / "galerne.db").stat().st_size / 1e6
    finally:
        shutil.rmtree(place)
    limits = {"read": read_per_s, "write": written_per_s, "hash": _hashing() * events / max(1, leaves)}
    return _report(found, limits, (events, customers, leaves), (made_s, size_mb))


def _closed(place: Path, month: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.closer", str(place), month]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _report(
    found: dict[str, Any], limits: dict[str, float], counts: tuple[int, int, int], made: tuple[float, float]
) -> Report:
    events, customers, leaves = counts
    stages = found["stages"]
    rows = [
        _row("rated: states and hourly sums written", stages["rating"], events, limits["write"]),
        _row("walked: rated again, leaves hashed", stages["requests"], events, limits["hash"]),
        _row("drafted, checked, made final", stages["customers"], events, 0.0),
    ]
    whole: dict[str, float] = {name: sum(each[name] for each in stages.values()) for name in ("wall_s", "cpu_s")}
    rows.append(_row("closing, all together", whole | {"rss_mb": found["peak_mb"]}, events, 0.0))
    checking = (
        f"{found['checking_s']:.0f} s waiting for the checker, a process that used {found['checker_cpu_s']:.0f} s"
    )
    dense = "the whole month" if events >= MONTHLY else f"as dense as {MONTHLY:,} a month"
    return Report(
        title="closing",
        how=f"{events:,} requests ({dense}) of {customers:,} customers with two keys each, each tenth under contract; "
        f"{leaves:,} leaves; SQLite, FULL, one process; made in {made[0]:.0f} s, {made[1]:,.0f} MB when closed.",
        columns=("stage", "min", "CPU s", "requests/s", "per CPU s", "limit", "of limit", "MB at its end"),
        rows=rows,
        remarks=(
            f"{found['report']['invoices']} invoices; of the last stage {checking}; it goes by customers, not requests",
            f"limit of rating: SQLite alone, writing the same states ({limits['read']:,.0f} reading)",
            "limit of the walk: SHA-256 alone, over as many leaves and nodes; limits are requests a CPU second",
            "target: minutes, in flat memory; the last line's memory is the peak",
        ),
        failed=not found["report"]["done"],
    )


def _row(name: str, took: dict[str, float], events: int, limit: float) -> tuple[str, ...]:
    wall_s, cpu_s = took["wall_s"], max(took["cpu_s"], 1e-9)
    of_limit = (f"{limit:,.0f}", f"{events / cpu_s / limit:.2f}") if limit else ("", "")
    per_s = (f"{events / wall_s:,.0f}", f"{events / cpu_s:,.0f}")
    return (name, f"{wall_s / 60:.1f}", f"{cpu_s:.0f}", *per_s, *of_limit, f"{took['rss_mb']:.0f}")


def _reading(place: Path) -> float:
    connection = sqlite3.connect(place / "galerne.db")
    count, last, began_s = 0, "", time.process_time()
    while count < _ASKED:
        sql = f"SELECT {_COLUMNS} FROM usage_events e WHERE e.id > ? ORDER BY e.id LIMIT 20000"  # names of ours
        rows = connection.execute(sql, (last,)).fetchall()
        if not rows:
            break
        count, last = count + len(rows), rows[-1][0]
    took_s = time.process_time() - began_s
    connection.close()
    return count / took_s


def _writing(place: Path) -> float:
    """States a second when SQLite copies them by itself into a table like theirs, on the same disk."""
    source, copy = place / "galerne.db", sqlite3.connect(place / "copy.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-32768"):
        copy.execute(f"PRAGMA {pragma}")
    copy.execute("ATTACH ? AS source", (str(source),))
    about = "SELECT sql FROM source.sqlite_master WHERE tbl_name = 'usage_ratings' AND type IN ('table', 'index')"
    for (sql,) in copy.execute(f"{about} AND sql IS NOT NULL ORDER BY type DESC").fetchall():
        copy.execute(sql)
    rows = copy.execute("SELECT * FROM source.usage_ratings ORDER BY event_id LIMIT ?", (_ASKED,)).fetchall()
    marks = ",".join("?" * len(rows[0]))
    began_s = time.process_time()
    for start in range(0, len(rows), 20_000):
        copy.execute("BEGIN IMMEDIATE")
        copy.executemany(f"INSERT INTO main.usage_ratings VALUES ({marks})", rows[start : start + 20_000])  # as above
        copy.execute("COMMIT")
    took_s = time.process_time() - began_s
    copy.close()
    return len(rows) / took_s


def _leaves(place: Path) -> int:
    connection = sqlite3.connect(place / "galerne.db")
    (found,) = connection.execute("SELECT sum(usage_size) FROM invoices").fetchone()
    connection.close()
    return found or 0


def _hashing() -> float:
    """Leaves a second: each hashed, and one node above it."""

    def once(sha256: Callable[[bytes], Any]) -> None:
        for _ in range(_ASKED):
            sha256(_LEAF).digest()
            sha256(_NODE).digest()

    began_s = time.process_time()
    once(hashlib.sha256)
    return _ASKED / (time.process_time() - began_s)
