"""What it costs that nobody asks twice: requests of one key, and of so many in turn that each is read anew.

A gateway keeps a key for a second and its terms for five. With as many callers as a second has requests nothing of that
helps, and each request reads who calls, and what is agreed with them.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import uvloop

from bench import machine
from bench.installation import Installation, Place, serving, set_up
from bench.load import Connection, connect
from bench.postgresql import running_postgresql
from bench.processes import mocking
from bench.report import Report
from bench.upstream import SHORT
from galerne.identity import NewKey, create_key, find_installation_admin
from galerne.kernel import Database, Ids, SystemClock

_KEYS = 20_000
_PLENTY = 2_000_000_000
_CONNECTIONS = 32
_ROUNDS = 3


def run(*, seconds: float = 4.0, postgresql: bool = False) -> Report:
    """Requests a second and CPU a request of one worker on one core, for one caller and for thousands."""
    measured, callers = machine.split_cores()
    with (
        tempfile.TemporaryDirectory(prefix="galerne-bench-") as folder,
        mocking(callers) as mock,
        running_postgresql(callers) if postgresql else nullcontext() as database,
    ):
        place = Place(Path(folder) / "data", database.address if database else None)
        key = set_up(place, mock.target, [SHORT])
        keys = uvloop.run(_made(place))
        with serving(place, key, measured, "--no-engines") as installation, machine.on_cores(callers):
            one, many = uvloop.run(_compared(installation, key, keys, seconds))
    return Report(
        "callers",
        f"One worker on one core, {'PostgreSQL on the other' if postgresql else 'SQLite'}, {_CONNECTIONS} connections, "
        f"{_ROUNDS} rounds of {seconds:g} s each in turns, the middle one of each.",
        ["figure", "one key", f"{_KEYS:,} keys in turn", "ratio"],
        [
            ["requests/s", f"{one[0]:,.0f}", f"{many[0]:,.0f}", f"{many[0] / one[0]:.1%}"],
            ["CPU a request, ms", f"{one[1]:.3f}", f"{many[1]:.3f}", f"{many[1] / one[1]:.2f} x"],
        ],
    )


async def _made(place: Place) -> list[str]:
    address = place.database_url or f"sqlite+aiosqlite:///{place.data / 'galerne.db'}"
    database, ids, clock = Database(address), Ids(), SystemClock()
    new = NewKey(name="bench", requests_per_minute=_PLENTY, tokens_per_minute=_PLENTY)
    async with database.transaction() as session:
        admin = await find_installation_admin(session)
        made = [(await create_key(session, admin, new, ids, clock)).secret for _ in range(_KEYS)]
    await database.close()
    return made


async def _compared(
    installation: Installation, key: str, keys: list[str], seconds: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    one, many = itertools.repeat(key), itertools.cycle(keys)
    await _asked(installation, one, seconds / 4)
    rounds = [
        (await _asked(installation, one, seconds), await _asked(installation, many, seconds)) for _ in range(_ROUNDS)
    ]
    ones, manys = zip(*rounds, strict=True)
    return sorted(ones)[_ROUNDS // 2], sorted(manys)[_ROUNDS // 2]


async def _asked(installation: Installation, keys: Iterator[str], seconds: float) -> tuple[float, float]:
    """Requests a second, and CPU milliseconds a request."""
    target, count = installation.target, 0
    began_s, began_cpu_s = time.monotonic(), machine.cpu_s(installation.pid)

    async def ask_on(connection: Connection) -> None:
        nonlocal count
        while time.monotonic() - began_s < seconds:
            answer = await connection.ask(replace(target, key=next(keys)).request(SHORT, stream=False))
            if answer.status != 200:
                raise SystemExit(f"a request was answered with {answer.status}")
            count += 1
        connection.close()

    await asyncio.gather(*map(ask_on, await connect(target, _CONNECTIONS)))
    took_s, used_s = time.monotonic() - began_s, machine.cpu_s(installation.pid) - began_cpu_s
    return count / took_s, used_s / count * 1000
