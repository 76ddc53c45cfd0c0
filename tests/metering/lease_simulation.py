"""Several gateway processes that share one pool, simulated: their books, the real scripts, and SQLite in memory."""

import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from sqlalchemy import Table as SqlTable
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateTable

from galerne.kernel import Script
from galerne.kernel.script import run_on_sqlite
from galerne.metering.lease_book import LeaseBook
from galerne.metering.limit_tables import LimitLeaseRow, LimitPoolRow
from galerne.metering.limits import PoolSpec
from galerne.metering.pool_laws import SHARE, Short, Taken
from galerne.metering.pools import reclaim_script, renew_script, spend_script, takes_script

TICK_MS = 20
LEASE_MS = 10_000

T = TypeVar("T")


class Books:
    """A database that runs one script after another."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        self._connection.execute("PRAGMA foreign_keys=ON")
        for row in (LimitPoolRow, LimitLeaseRow):
            table = CreateTable(cast(SqlTable, row.__table__))
            self._connection.execute(str(table.compile(dialect=sqlite.dialect())))

    def run(self, script: Script[T]) -> T:
        return run_on_sqlite(self._connection, script)

    def rows(self, sql: str) -> Sequence[Any]:
        return self._connection.execute(sql).fetchall()

    def close(self) -> None:
        self._connection.close()


@dataclass(slots=True)
class Running:
    ends_ms: int
    reserved: int
    used: int
    book: LeaseBook


@dataclass(slots=True)
class Process:
    """One gateway: requests arrive with `rate` a second, each reserving up to `largest` and using a part of that."""

    name: str
    book: LeaseBook
    rate: float
    largest: int
    waiting: list[int] = field(default_factory=list[int])
    running: list[Running] = field(default_factory=list[Running])
    used: int = 0
    served: int = 0
    refused: int = 0
    asked: int = 0
    recent: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def arrive(self, rng: random.Random) -> None:
        expected = self.rate * TICK_MS / 1000
        count = int(expected) + (rng.random() < expected % 1)
        self.waiting += [rng.randint(1, self.largest) for _ in range(count)]

    def admit(self, rng: random.Random, now_ms: int) -> None:
        still: list[int] = []
        for amount in self.waiting:
            if self.book.reserve(amount, now_ms):
                used = {"requests": 1, "concurrent": 0}.get(self.book.pool.quantity, rng.randint(0, amount))
                self.running.append(Running(now_ms + rng.randint(20, 1500), amount, used, self.book))
                self.recent.append((now_ms, amount))
                self.served += 1
            else:
                still.append(amount)
        self.waiting = still

    def finish(self, now_ms: int) -> None:
        for each in [one for one in self.running if one.ends_ms <= now_ms]:
            self.running.remove(each)
            each.book.settle(each.reserved, each.used)
            self.used += each.used

    def use_in_a_second(self, now_ms: int) -> int:
        """In the busiest of the last seconds, as the clock counts them."""
        seconds: dict[int, int] = {}
        self.recent = [(at_ms, amount) for at_ms, amount in self.recent if at_ms > now_ms - 3000]
        for at_ms, amount in self.recent:
            seconds[at_ms // 1000] = seconds.get(at_ms // 1000, 0) + amount
        return max(seconds.values(), default=0)


class Fleet:
    """Processes over one pool; each `step` is one tick of all of them, in a random order."""

    def __init__(self, spec: PoolSpec, processes: Sequence[tuple[float, int]], seed: int) -> None:
        self.spec = spec
        self.books = Books()
        self.rng = random.Random(seed)
        self.processes = [
            Process(f"p{number}", LeaseBook(spec, f"p{number}"), rate, largest)
            for number, (rate, largest) in enumerate(processes)
        ]
        self.dead: list[Process] = []

    def step(self, now_ms: int) -> None:
        for process in self.rng.sample(self.processes, len(self.processes)):
            process.arrive(self.rng)
            process.finish(now_ms)
            process.admit(self.rng, now_ms)
            self._write(process, now_ms)
            process.admit(self.rng, now_ms)
        if now_ms % 1000 == 0:
            self.books.run(reclaim_script(now_ms))

    def _write(self, process: Process, now_ms: int) -> None:
        book = process.book
        if book.unwritten and book.lease_id is not None:
            amount = book.unwritten
            self.books.run(spend_script({book.lease_id: amount}))
            book.written(amount)
        if now_ms % 1000 == 0 and book.lease_id is not None:
            self.books.run(renew_script([book.lease_id], now_ms + LEASE_MS))
            book.renewed(now_ms + LEASE_MS)
        least, need = min(process.waiting, default=0), sum(process.waiting)
        if need == 0 and not book.due(now_ms):
            return
        if need and book.pause_ms(least, now_ms) > 0:
            self._refuse(process, now_ms)
            return
        process.asked += 1
        [answer] = self.books.run(takes_script([book.take(least, need, now_ms, now_ms + LEASE_MS)], now_ms))
        if isinstance(answer, Taken):
            process.book = book.accept(answer, now_ms)
        else:
            book.refuse(answer, now_ms)
            self._refuse(process, now_ms, answer)

    def _refuse(self, process: Process, now_ms: int, short: Short | None = None) -> None:
        process.refused += len(process.waiting)
        process.waiting = []
        if short is None or self.spec.law == "bucket":
            return
        for other in self.processes:
            if other is not process:
                bound = min(2 * other.use_in_a_second(now_ms), 2 * self.spec.amount // SHARE)
                assert other.book.available <= bound, f"{other.name} holds {other.book.available}, bound {bound}"

    def kill(self, process: Process) -> None:
        self.processes.remove(process)
        self.dead.append(process)

    def drain(self, now_ms: int) -> int:
        """Let everything end without new requests; returns the time after it."""
        for process in self.processes:
            process.rate, process.waiting = 0, []
        for _ in range(400):
            now_ms += TICK_MS
            self.step(now_ms)
        return now_ms

    @property
    def committed(self) -> int:
        """What has been used, and what requests under way may still use."""
        everyone = [*self.processes, *self.dead]
        return sum(each.used + sum(one.reserved for one in each.running) for each in everyone)

    @property
    def taken(self) -> int:
        return self.books.rows("SELECT taken FROM limit_pools")[0][0]
