"""What is settled twice or in doubt: a dead process's file beside its exact record, commits that nobody confirmed."""

import asyncio
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from galerne.gateway.commit import Commit, commit_script
from galerne.gateway.reservations import Answers
from galerne.gateway.settled import Ending, recovered, settle_flight
from galerne.gateway.settlement import Settlements, Waits
from galerne.gateway.unsettled import UnsettledFile, save_unsettled
from galerne.gateway.wire.answer import TokenCount
from galerne.kernel import Database, Script, SystemClock, open_writer
from tests.gateway.flying import flight
from tests.gateway.test_settlement import ACTOR, NOW, FakeDesk, files, until
from tests.gateway.test_upstream_behaviours import ask, paid_gateway
from tests.gateway.upstream_behaviours import upstream, well

WAITS = Waits((0.01,), 0.05, 60.0)
ALL = TokenCount(11, 0, 9)
SENT = TokenCount(11, 0, 8)
DONE = Ending(outcome="completed", status=200, finish_reason="stop", queue_ms=0.0, ttft_ms=1.0, total_ms=2.0, at=NOW)
EVENTS = "SELECT id, outcome, output_tokens FROM usage_events"


async def rows(database: Database, sql: str) -> list[tuple[Any, ...]]:
    async with database.reading() as session:
        return [tuple(row) for row in await session.execute(text(sql))]


async def test_a_request_recorded_exactly_in_a_file_is_not_recovered_from_what_had_been_sent(
    database: Database, tmp_path: Path, logs: list[MutableMapping[str, Any]]
) -> None:
    one = flight("a" * 32)
    save_unsettled(tmp_path, [settle_flight(one, ALL, DONE, "inference.completed", ACTOR)], NOW)
    flights = tmp_path / "flights-dead.bin"
    flights.touch()
    writer = open_writer(database.url)

    async def write(commit: Commit) -> Answers:
        return (await writer.run([commit_script(commit)]))[0]

    queue = Settlements(write, FakeDesk(), SystemClock(), tmp_path, waits=WAITS)
    queue.start([(recovered(one, SENT, NOW), UnsettledFile(flights, 1))])
    await until(lambda: not len(queue))
    await queue.stop()
    await writer.close()
    assert await rows(database, EVENTS) == [("a" * 32, "completed", 9)]
    assert (files(tmp_path), flights.exists()) == ([], False)
    assert [line["event"] for line in logs if line["level"] == "error"] == []


async def test_no_errand_runs_before_what_an_earlier_run_left_is_written(tmp_path: Path) -> None:
    ran: list[str] = []
    down = True

    async def write(commit: Commit) -> Answers:
        await asyncio.sleep(0)
        if commit.errand is not None:
            ran.append("errand")
            return Answers(errand=1)
        if down and commit.settled:
            raise OSError
        ran.extend(each.event.id for each in commit.settled)
        return Answers()

    def errand() -> Script[int]:
        raise AssertionError("the writer of this test runs none")

    flights = tmp_path / "flights-dead.bin"
    flights.touch()
    queue = Settlements(write, FakeDesk(), SystemClock(), tmp_path, waits=WAITS)
    queue.start([(recovered(flight("a" * 32), SENT, NOW), UnsettledFile(flights, 1))])
    asked = asyncio.create_task(queue.run(errand))
    await asyncio.sleep(0.05)
    assert ran == []
    down = False
    assert await asked == 1
    assert ran == ["a" * 32, "errand"]
    await queue.stop()


async def test_a_hold_whose_commit_nobody_confirmed_is_given_back(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with upstream(well, 0) as up, paid_gateway(database, up, 1) as gateway:
        writer = gateway.gateway._writer
        run = writer.run
        lost: list[int] = []

        async def confirm_not(scripts: Sequence[Script[Any]]) -> list[Any]:
            results = await run(scripts)
            if not lost and any(getattr(each, "holds", None) for each in results):
                lost.append(1)
                raise ConnectionResetError
            return results

        monkeypatch.setattr(writer, "run", confirm_not)
        _, seen = await ask(gateway, stream=False)
        assert (lost, seen.status, seen.code) == ([1], 503, "database_unavailable")
        for _ in range(2):
            _, seen = await ask(gateway, stream=False)
            assert seen.status == 200
        assert await rows(database, "SELECT count(*) FROM ledger_holds WHERE NOT closed") == [(1,)]
