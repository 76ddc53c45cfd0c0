"""The worker: does each duty when it is due, unless another worker is at it, and writes down how it went.

Any number of workers may run on one database, on one machine or several. Each duty is one process's at a time by a
lease, which its worker renews while it is at work; whose worker was killed is taken over when that has run out.
"""

import asyncio
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from galerne.apps.duties import DUTIES, Duty, DutyParts, DutyReport, defect_text
from galerne.kernel import Clock, Database, GalerneError, Ids, Settings, get_logger
from galerne.kernel.duties import (
    DutyRun,
    DutyState,
    duty_states,
    end_duty,
    enrol_duties,
    keep_duty,
    release_duties,
    take_duty,
)

LEASE_S = 60.0
_LONGEST_SLEEP_S = 5.0
_SHORTEST_SLEEP_S = 0.1
_DATABASE_AGAIN_S = 5.0
_ROOM_FOR_HOST = 60


class Worker:
    """One worker; `name` tells it from all others."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        settings: Settings,
        *,
        duties: Sequence[Duty] = DUTIES,
        lease_s: float = LEASE_S,
    ) -> None:
        self.name = f"{socket.gethostname()[:_ROOM_FOR_HOST]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._parts = DutyParts(database, clock, Ids(), settings, asyncio.sleep)
        self._duties = {duty.name: duty for duty in duties}
        self._lease = timedelta(seconds=lease_s)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._said: dict[str, str | None] = {}

    async def run(self) -> None:
        """Do what is due, for ever; cancelled, it lets go of what it is at."""
        await self._enrol()
        try:
            while True:
                try:
                    pause_s = await self.step()
                except (SQLAlchemyError, OSError, TimeoutError) as problem:
                    self._say("database", f"the database: {type(problem).__name__}")
                    pause_s = _DATABASE_AGAIN_S
                await asyncio.sleep(pause_s)
        finally:
            await self.stop()

    async def step(self) -> float:
        """Begin what is due; in how many seconds to look again."""
        now = self._parts.clock.now()
        states = await self._states()
        for state in states:
            if state.name not in self._running and state.can_be_taken(now):
                self._begin(self._duties[state.name])
        waits = [_until(state, now) for state in states if state.name not in self._running]
        return min([_LONGEST_SLEEP_S, *(max(_SHORTEST_SLEEP_S, wait) for wait in waits)])

    async def run_now(self, names: Sequence[str] = ()) -> list[DutyState]:
        """Do these duties, or all, whether or not they are due, and wait for them; how they stand then."""
        await self._enrol()
        chosen = [self._duties[name] for name in names] or list(self._duties.values())
        for duty in chosen:
            await self._run(duty, early=True)
        return [state for state in await self._states() if state.name in {duty.name for duty in chosen}]

    async def wait(self) -> None:
        """Wait until nothing is being done."""
        while self._running:
            await asyncio.wait(self._running.values())

    async def stop(self) -> None:
        """Leave what is being done: its transaction is undone, another worker may begin it at once."""
        for task in self._running.values():
            task.cancel()
        if self._running:
            await asyncio.wait(self._running.values())
        with suppress(SQLAlchemyError, OSError, TimeoutError):
            async with self._parts.database.transaction() as session:
                await release_duties(session, self.name)

    async def _enrol(self) -> None:
        async with self._parts.database.transaction() as session:
            await enrol_duties(session, list(self._duties), self._parts.clock.now())

    async def _states(self) -> list[DutyState]:
        async with self._parts.database.reading() as session:
            return [state for state in await duty_states(session) if state.name in self._duties]

    def _begin(self, duty: Duty) -> None:
        task = asyncio.create_task(self._guarded(duty))
        self._running[duty.name] = task
        task.add_done_callback(lambda _task: self._running.pop(duty.name))

    async def _guarded(self, duty: Duty) -> None:
        try:
            await self._run(duty)
        except (SQLAlchemyError, OSError, TimeoutError) as problem:
            # It could not even be taken, or written down; the lease ends by itself.
            self._say(duty.name, f"the database: {type(problem).__name__}")

    async def _run(self, duty: Duty, *, early: bool = False) -> None:
        clock, database = self._parts.clock, self._parts.database
        begun = clock.now()
        async with database.transaction() as session:
            if not await take_duty(session, duty.name, self.name, begun, self._lease, early=early):
                return
        report = await self._worked(duty)
        if report is None:
            self._say(duty.name, "taken over by another worker")
            return
        ended = clock.now()
        next_at = ended + timedelta(seconds=duty.every_s)
        run = DutyRun(begun_at=begun, ended_at=ended, done=report.done, problem=report.problem, next_at=next_at)
        async with database.transaction() as session:
            await end_duty(session, duty.name, self.name, run)
        self._say(duty.name, report.problem)

    async def _worked(self, duty: Duty) -> DutyReport | None:
        """What the duty came to, its lease renewed meanwhile; None once another worker has taken it over."""
        work = asyncio.ensure_future(duty.work(self._parts))
        until = self._parts.clock.monotonic() + duty.longest_s
        try:
            while not (await asyncio.wait((work,), timeout=self._lease.total_seconds() / 3))[0]:
                if self._parts.clock.monotonic() >= until:
                    return DutyReport(refused={duty.name: f"given up after {duty.longest_s:.0f} s"})
                if not await self._kept(duty):
                    return None
            return _reported(duty, work)
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait((work,))

    async def _kept(self, duty: Duty) -> bool:
        until = self._parts.clock.now() + self._lease
        try:
            async with self._parts.database.transaction() as session:
                return await keep_duty(session, duty.name, self.name, until)
        except (SQLAlchemyError, OSError, TimeoutError):
            return True  # nobody else can take it either; the work will meet the same trouble

    def _say(self, name: str, problem: str | None) -> None:
        if self._said.get(name) == problem:
            return
        self._said[name] = problem
        log = get_logger("worker")
        if problem is None:
            log.info("duty well again", duty=name)
        else:
            log.error("duty failed", duty=name, problem=problem)


def _reported(duty: Duty, work: "asyncio.Future[DutyReport]") -> DutyReport:
    problem = work.exception()
    if problem is None:
        return work.result()
    if isinstance(problem, GalerneError):
        return DutyReport(refused={duty.name: problem.message})
    if isinstance(problem, SQLAlchemyError | OSError | TimeoutError):
        return DutyReport(refused={duty.name: type(problem).__name__})
    return DutyReport(refused={duty.name: defect_text(problem)})


def _until(state: DutyState, now: datetime) -> float:
    at = state.due_at if state.lease_until is None else max(state.due_at, state.lease_until)
    return (at - now).total_seconds()
