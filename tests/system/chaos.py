"""Kill -9 of gateway, engine and database at random points under load; afterwards everything is counted once more.

`python -m bench chaos` runs it at full length. The seed decides victims, moments and what clients ask, not how the
machine interleaves them.
"""

import asyncio
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import aiohttp

from galerne.billing import NOTICE, NewRates, set_rates
from galerne.identity import NewKey, NewOrganisation, bootstrap, create_key, create_organisation, resolve_key
from galerne.kernel import Database, Ids, ManualClock, SystemClock
from galerne.ledger import Grant, grant_credit
from galerne.metering import NewLimit, set_limit
from galerne.models import ExternalModel, add_external
from tests.serving import clean_environment
from tests.system.chaos_books import RATES, Books, discrepancies, left_over, read_books
from tests.system.chaos_engine import MODELS, tokens_sent
from tests.system.chaos_load import Load
from tests.system.chaos_parts import Part, PostgreSQL, engine, free_port, gateway, until

LEASE_S = 3
_SETTLED_S = 4.0 * LEASE_S + 10
_LONGEST_WAIT_S = 0.9
_AT_ANY_TIME = 0.25
_TWO_AT_ONCE = 0.15
_STAYS_AWAY = 0.2
_LONGEST_AWAY_S = 1.5
_CREDIT_NANO = {"plenty": 10**12, "little": 40_000_000}
_BUSY_KEY_PER_MINUTE = 400
_NEVER_LOGGED = {"defect", "settlement_refused", "settlement_lost", "settlement_unwritten", "flight_unreadable"}
_TOKENS_A_DAY = 50_000_000


@dataclass(frozen=True)
class Plan:
    """How much chaos."""

    kills: int
    seed: int
    postgresql: bool
    clients: int = 24


@dataclass
class Outcome:
    """What a run found: `problems` is empty when every token was metered and paid once."""

    plan: Plan
    kills: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    statuses: Mapping[tuple[int, str | None], int] = field(default_factory=dict)
    tokens: int = 0
    metered: int = 0
    recovered: int = 0
    unpaid: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


async def run(plan: Plan, folder: Path) -> Outcome:
    """One installation in `folder`, load, the kills of `plan`, and the count."""
    began_s = time.monotonic()
    async with _installed(plan, folder) as (parts, load, database):
        working = asyncio.create_task(load.run(plan.clients))
        try:
            await _kill_at_random(plan, parts, load)
            load.stopping = True
            await working
        finally:
            working.cancel()
        notes, data = folder / "engine.notes", folder / "data"
        problems = await _settle(parts, load.address, database, data)
        books = await read_books(database)
        problems += discrepancies(books, load.received, tokens_sent(notes))
        said = _logged(data.with_suffix(".log"))
        problems += [f"the gateway logged {name}" for name in said if name in _NEVER_LOGGED]
    outcome = _told(plan, parts, load, books)
    outcome.said = said
    outcome.seconds = time.monotonic() - began_s
    outcome.problems = problems
    return outcome


def run_in_passing(plan: Plan) -> Outcome:
    """The same in a folder of its own, which stays if something was found."""
    folder = Path(tempfile.mkdtemp(prefix="galerne-chaos-"))
    outcome = asyncio.run(run(plan, folder))
    if outcome.problems:
        outcome.problems.append(f"what it left is in {folder}")
    else:
        shutil.rmtree(folder)
    return outcome


@asynccontextmanager
async def _installed(plan: Plan, folder: Path) -> AsyncGenerator[tuple[dict[str, Part], Load, Database]]:
    data, port, engine_port = folder / "data", free_port(), free_port()
    data.mkdir()
    postgresql = PostgreSQL() if plan.postgresql else None
    parts: dict[str, Part] = {}
    address = f"sqlite+aiosqlite:///{data / 'galerne.db'}" if postgresql is None else postgresql.address
    try:
        if postgresql is not None:
            parts["database"] = postgresql.part(folder / "database.log")
            await parts["database"].start()
            await postgresql.create()
        database = Database(address)
        keys = await _prepared(database, f"http://127.0.0.1:{engine_port}/v1")
        variables = {"GALERNE_DATABASE_URL": address, "GALERNE_LEASE_S": str(LEASE_S), "GALERNE_PROBE_INTERVAL_S": "1"}
        parts["engine"] = engine(engine_port, folder / "engine.notes", clean_environment())
        parts["gateway"] = gateway(port, data, clean_environment(**variables))
        for name in ("engine", "gateway"):
            await parts[name].start()
        load = Load(f"http://127.0.0.1:{port}", keys, plan.seed)
        await until(lambda: _ready(load.address), "the gateway is ready")
        yield parts, load, database
        await database.close()
    finally:
        for part in parts.values():
            part.destroy()
        if postgresql is not None:
            postgresql.remove()


async def _prepared(database: Database, engine_url: str) -> list[str]:
    """Two organisations with credit; the secrets of their keys, which have limits."""
    await database.migrate()
    ids, clock = Ids(), SystemClock()
    sooner = ManualClock(clock.now() - NOTICE)  # so that prices have begun before the first request
    price = NewRates(
        currency="EUR",
        input_nano_per_million=RATES.input_nano_per_million,
        cached_nano_per_million=RATES.cached_nano_per_million,
        output_nano_per_million=RATES.output_nano_per_million,
    )
    keys: list[str] = []
    async with database.transaction() as session:
        admin_key = await bootstrap(session, ids, clock, None)
        assert admin_key is not None
        operator = (await resolve_key(session, admin_key, clock.now())).actor
        for model in MODELS:
            await add_external(session, operator, ExternalModel(name=model, url=engine_url), clock)
            await set_rates(session, operator, model, price, ids, sooner)
        for name, credit_nano in _CREDIT_NANO.items():
            _, created = await create_organisation(session, NewOrganisation(name=name), ids, clock)
            actor = (await resolve_key(session, created.secret, clock.now())).actor
            grant = Grant(id=f"grant-{name}", amount_nano=credit_nano, currency="EUR", reason="chaos")
            await grant_credit(session, actor, grant, clock)
            keys.append(created.secret)
            busy = NewKey(name="busy", requests_per_minute=_BUSY_KEY_PER_MINUTE, tokens_per_minute=1_000_000)
            keys.append((await create_key(session, actor, busy, ids, clock)).secret)
            limit = NewLimit(
                scope="organisation",
                scope_id=actor.organisation_id,
                quantity="tokens",
                window="day",
                amount=_TOKENS_A_DAY,
            )
            await set_limit(session, actor, limit, clock)
    return keys


async def _kill_at_random(plan: Plan, parts: Mapping[str, Part], load: Load) -> None:
    """Each kill comes while requests flow, now and then also while what died before is still coming back."""
    random = Random(plan.seed)
    for _ in range(plan.kills):
        victims = random.sample(sorted(parts), 2 if random.random() < _TWO_AT_ONCE else 1)
        away_s = random.uniform(0.0, _LONGEST_AWAY_S) if random.random() < _STAYS_AWAY else 0.0
        if random.random() >= _AT_ANY_TIME:
            before = _completed(load)
            await until(lambda before=before: _completed(load) > before, "requests flow again")
        await asyncio.sleep(random.uniform(0.0, _LONGEST_WAIT_S))
        for name in victims:
            parts[name].kill(away_s)
    before = _completed(load)
    await until(lambda: _completed(load) > before, "requests flow again after the last kill")


async def _settle(parts: Mapping[str, Part], address: str, database: Database, data: Path) -> list[str]:
    """Wait until nothing is left to settle, then end the gateway in good order; what is left all the same."""
    await until(lambda: _ready(address), "the gateway is ready after the last kill")
    problems: list[str] = []
    ended_s = time.monotonic() + _SETTLED_S
    while left := await left_over(database, data, 1):
        if time.monotonic() > ended_s:
            problems += [f"{_SETTLED_S:.0f} s after the load: {each}" for each in left]
            break
        await asyncio.sleep(0.2)
    status = await parts["gateway"].stop()
    if status != 0:
        problems.append(f"the gateway ended with {status}")
    return problems + [f"after the stop: {each}" for each in await left_over(database, data, 0)]


async def _ready(address: str) -> bool:
    try:
        async with aiohttp.ClientSession() as http, http.get(f"{address}/readyz") as response:
            return response.status == 200
    except (aiohttp.ClientError, OSError):
        return False


def _logged(log: Path) -> Counter[str]:
    """The kinds of lines that a gateway wrote which were no information."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return Counter(line["event"] for line in lines if line.get("level", line.get("log_level")) != "info")


def _completed(load: Load) -> int:
    return sum(each.end == "completed" for each in load.received)


def _told(plan: Plan, parts: Mapping[str, Part], load: Load, books: Books) -> Outcome:
    return Outcome(
        plan,
        kills=Counter({name: part.kills for name, part in parts.items()}),
        requests=len(load.received),
        ends=Counter(each.end for each in load.received),
        statuses=load.statuses(),
        tokens=sum(len(each.tokens) for each in load.received),
        metered=sum(each.output for each in books.usage.values()),
        recovered=books.recovered,
        unpaid=sum("unpaid_nano" in each for each in books.details.values()),
    )
