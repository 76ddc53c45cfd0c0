"""Workers on both databases: a duty is one worker's at a time, whoever dies is followed, trouble stays where it is."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from typer.testing import CliRunner

from galerne.apps import duties as duties_module
from galerne.apps import worker_child
from galerne.apps.commands.worker import app as command
from galerne.apps.duties import DUTIES, Duty, DutyParts, DutyReport
from galerne.apps.duty_figures import DutyFigures, duty_figures
from galerne.apps.worker import Worker
from galerne.apps.worker_child import beside_duties
from galerne.billing import rating_counts
from galerne.billing.budgets import NewBudget, list_alerts, set_budget
from galerne.billing.subscriptions import Order, find_subscription, subscribe
from galerne.governance import SYSTEM
from galerne.kernel import Conflict, Database, ManualClock, Settings, SystemClock
from galerne.kernel.duties import DutyState, duty_states, keep_duty, take_duty
from galerne.ledger import Grant, grant_credit, lots_of
from tests.billing.invoices.customers import OCTOBER, house_in
from tests.processes import Process, tree

LEASE = timedelta(seconds=60)


@dataclass
class Work:
    """A duty that waits until it may end, and counts who is at it."""

    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0
    ended: int = 0
    cancelled: int = 0

    async def __call__(self, _parts: DutyParts) -> DutyReport:
        self.begun += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended += 1
        return DutyReport(self.ended)


def duty(name: str, work: Callable[[DutyParts], Awaitable[DutyReport]], **other: float) -> Duty:
    return Duty(name, 30, "", work, **other)


async def states(database: Database) -> dict[str, DutyState]:
    async with database.reading() as session:
        return {state.name: state for state in await duty_states(session)}


async def enrolled(database: Database, clock: ManualClock, *duties: Duty, lease_s: float = 60) -> Worker:
    worker = Worker(database, clock, Settings(), duties=duties, lease_s=lease_s)
    await worker._enrol()  # pyright: ignore[reportPrivateUsage] # what `run` begins with
    return worker


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is awaited is another task's or process's doing
            await asyncio.sleep(0.01)


async def test_of_two_workers_one_does_a_duty_and_the_next_run_is_whoever_comes_first(database: Database) -> None:
    clock, work = ManualClock(OCTOBER), Work()
    first = await enrolled(database, clock, duty("x", work))
    second = await enrolled(database, clock, duty("x", work))
    await asyncio.gather(*(each.step() for each in (first, second, first, second)))
    await until(lambda: work.begun == 1)
    await asyncio.sleep(0.05)
    assert (await second.step(), work.begun) == (5.0, 1)
    assert (await states(database))["x"].holder in {first.name, second.name}
    work.may_end.set()
    await asyncio.gather(first.wait(), second.wait())
    done = (await states(database))["x"]
    assert (work.begun, done.holder, done.done, done.failures) == (1, None, 1, 0)
    assert done.due_at == OCTOBER + timedelta(seconds=30)
    clock.current += timedelta(seconds=30)
    await second.step()
    await second.wait()
    assert work.begun == 2


async def test_a_duty_whose_worker_was_killed_is_taken_over_once_its_lease_has_run_out(database: Database) -> None:
    clock, work = ManualClock(OCTOBER), Work()
    work.may_end.set()
    worker = await enrolled(database, clock, duty("x", work))
    async with database.transaction() as session:
        assert await take_duty(session, "x", "dead", clock.now(), LEASE)
    clock.current += LEASE - timedelta(seconds=1)
    await worker.step()
    await worker.wait()
    assert work.begun == 0
    clock.current += timedelta(seconds=1)
    await worker.step()
    await worker.wait()
    assert (work.begun, (await states(database))["x"].holder) == (1, None)
    async with database.transaction() as session:
        assert not await keep_duty(session, "x", "dead", clock.now() + LEASE)


async def test_whoever_lost_its_duty_stops_and_writes_nothing_down(database: Database) -> None:
    clock, work = ManualClock(OCTOBER), Work()
    worker = await enrolled(database, clock, duty("x", work), lease_s=0.06)
    await worker.step()
    await until(lambda: work.begun == 1)
    clock.current += LEASE  # this process was asleep, say
    async with database.transaction() as session:
        assert await take_duty(session, "x", "other", clock.now(), LEASE)
    await worker.wait()
    assert (work.cancelled, (await states(database))["x"].holder) == (1, "other")


async def test_a_worker_that_is_told_to_stop_lets_go_of_what_it_is_at(database: Database) -> None:
    clock, work = ManualClock(OCTOBER), Work()
    worker = await enrolled(database, clock, duty("x", work))
    running = asyncio.create_task(worker.run())
    await until(lambda: work.begun == 1)
    running.cancel()
    await asyncio.wait((running,))
    assert (work.cancelled, (await states(database))["x"].is_free(clock.now())) == (1, True)


async def test_a_duty_that_fails_or_hangs_stops_no_other_and_says_why(database: Database) -> None:
    clock, work = ManualClock(OCTOBER), Work()
    work.may_end.set()

    async def refuse(_parts: DutyParts) -> DutyReport:
        raise Conflict("The books are shut.")

    async def break_down(_parts: DutyParts) -> DutyReport:
        raise ZeroDivisionError

    hung = duty("hung", Work(), longest_s=0)
    worker = await enrolled(
        database, clock, duty("refused", refuse), duty("broken", break_down), hung, duty("well", work), lease_s=0.06
    )
    for _ in range(2):
        await worker.step()
        await worker.wait()
        clock.current += timedelta(seconds=30)
    found = await states(database)
    assert (work.ended, found["well"].failures, found["well"].problem) == (2, 0, None)
    assert (found["refused"].failures, found["refused"].problem) == (2, "refused: The books are shut.")
    assert found["broken"].problem is not None
    assert found["broken"].problem.startswith("broken: a defect, ZeroDivisionError at ")
    assert "break_down:" in found["broken"].problem, "where, and no value that it held"
    assert found["hung"].problem == "hung: given up after 0 s"
    assert found["refused"].succeeded_at is None
    registry = CollectorRegistry()
    registry.register(DutyFigures(list(found.values())))
    told = generate_latest(registry).decode()
    assert 'galerne_duty_failures{duty="refused"} 2.0' in told
    assert 'galerne_duty_succeeded_timestamp_seconds{duty="well"}' in told
    assert (await duty_figures(database)).decode() == told


async def test_what_goes_wrong_with_one_customer_stops_no_other(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = await house_in(database)
    house.clock.current = OCTOBER
    own = [await house.customer(name) for name in ("Erdre", "Loire", "Sarthe")]
    for name in own:
        async with database.transaction() as session:
            order = Order(plan_id="pro", trial=False)
            await subscribe(session, replace(SYSTEM, organisation_id=name), order, house.ids, house.clock)
    house.clock.current += timedelta(days=40)
    well = duties_module.advance_subscription

    async def advance(session: object, name: str, *parts: object) -> object:
        async with database.reading() as reading:
            unlucky = (await find_subscription(reading, own[1])).id
        if name == unlucky:
            raise ZeroDivisionError
        return await well(session, name, *parts)  # type: ignore[arg-type]  # what was passed in

    monkeypatch.setattr(duties_module, "advance_subscription", advance)
    (state,) = await Worker(database, house.clock, Settings()).run_now(["subscriptions"])
    assert state.done == 2
    assert state.problem is not None
    assert "a defect, ZeroDivisionError" in state.problem


async def test_all_that_time_brings_about_is_done(database: Database) -> None:
    house = await house_in(database)
    house.clock.current = OCTOBER
    own = await house.customer("Erdre")
    actor = replace(SYSTEM, organisation_id=own)
    async with database.transaction() as session:
        new = NewBudget(scope="organisation", scope_id=own, window="month", nano=1000, currency="EUR")
        await set_budget(session, actor, new, house.ids, house.clock)
        await subscribe(session, actor, Order(plan_id="pro"), house.ids, house.clock)
        ends = OCTOBER + timedelta(days=1)
        grant = Grant(id="g", amount_nano=10**9, currency="EUR", reason="test", expires_at=ends)
        await grant_credit(session, actor, grant, house.clock)
    names = await house.use(own, (1000, 0, 7))
    await house.settle(own, {names[0]: 500})
    house.clock.current += timedelta(days=20)
    found = await Worker(database, house.clock, Settings()).run_now()
    assert [state.problem for state in found] == [None for _ in DUTIES]
    async with database.reading() as session:
        assert (await rating_counts(session))["rated"] == 1
        assert [alert.percent for alert in await list_alerts(session, own)] == [100, 80, 50]
        (lot,) = await lots_of(session, own)
    assert (lot.burned_nano, lot.expired_nano) == (500, 10**9 - 500)
    again = await Worker(database, house.clock, Settings()).run_now()
    assert [(state.problem, state.done) for state in again] == [(None, 0) for _ in DUTIES]


HANGING = """
import asyncio, sys
from galerne.apps.duties import Duty
from galerne.apps.worker import Worker
from galerne.kernel import Database, Settings, SystemClock

async def hang(_parts):
    print("begun", flush=True)
    await asyncio.sleep(60)

duties = [Duty("x", 30, "", hang)]
asyncio.run(Worker(Database(sys.argv[1]), SystemClock(), Settings(), duties=duties, lease_s=1.5).run())
"""


async def test_kill_9_of_a_worker_is_made_good_by_another(database: Database, database_url: str) -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", HANGING, database_url, stdout=PIPE)
    assert child.stdout is not None
    assert await child.stdout.readline() == b"begun\n"
    work = Work()
    work.may_end.set()
    worker = Worker(database, SystemClock(), Settings(), duties=[duty("x", work)], lease_s=1.5)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(1.6)
    assert work.begun == 0, "the other lives and renews its lease"
    child.kill()
    await child.wait()
    await until(lambda: work.ended == 1)
    running.cancel()
    await asyncio.wait((running,))


async def test_a_server_has_a_worker_beside_it_that_ends_with_it(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_child, "_AFTER_S", 0)
    monkeypatch.setenv("GALERNE_DATABASE_URL", database_url)
    database = Database(database_url)
    async with beside_duties(Settings(), SystemClock(), tmp_path, wanted=True):
        async with asyncio.timeout(20):
            found: dict[str, DutyState] = {}
            while not found or not all(state.succeeded_at for state in found.values()):
                await asyncio.sleep(0.1)
                found = await states(database)
        assert len(workers()) == 1
    assert sorted(found) == sorted(each.name for each in DUTIES)
    assert workers() == []
    async with beside_duties(Settings(), SystemClock(), tmp_path, wanted=False):
        pass
    await database.close()


def workers() -> list[Process]:
    return [each for each in tree(os.getpid()) if "worker" in each.command]


def test_duties_are_done_and_shown_from_the_command_line(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALERNE_DATABASE_URL", database_url)
    runner = CliRunner()
    assert json.loads(runner.invoke(command, ["status", "--json"], catch_exceptions=False).stdout) == []
    done = runner.invoke(command, ["run", "budgets", "contracts", "--json"], catch_exceptions=False)
    assert [(row["name"], row["failures"], row["problem"]) for row in json.loads(done.stdout)] == [
        ("budgets", 0, None),
        ("contracts", 0, None),
    ]
    shown = json.loads(runner.invoke(command, ["status", "--json"], catch_exceptions=False).stdout)
    assert {row["name"] for row in shown if row["succeeded_at"]} == {"budgets", "contracts"}
    assert "budgets" in runner.invoke(command, ["status"], catch_exceptions=False).stdout
    assert runner.invoke(command, ["run", "laundry"]).exit_code == 2
