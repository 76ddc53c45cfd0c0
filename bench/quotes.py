"""How long a quote takes: worked out, with what it reads, and over HTTP; and what telling a cost takes.

The book holds 999 rates, three for each of 333 models; a mixed row asks for one of these at random each time.
"""

import asyncio
import gc
import http.client
import json
import os
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from bench.installation import HEADERS, Place, administered
from bench.load import percentile
from bench.report import Report
from galerne.billing import (
    NOTICE,
    Customer,
    PriceBook,
    QuoteAsk,
    cost_lines,
    quote,
    quote_line_fields,
    quote_now,
    quote_script,
    read_book,
    token_prices,
)
from galerne.governance import SYSTEM
from galerne.identity import find_installation_admin
from galerne.kernel import Database, SystemClock, open_reader
from galerne.models import ExternalModel, add_external

TARGET_MS = 1.0
_ASKED = 2000
_MIXED = 4_000
_MODELS = tuple(f"model-{number}" for number in range(333))
_MODEL = _MODELS[7]
_PRICES = {"input": "0.5", "cached": "0.05", "output": "1.5"}
_COUNTS = (600, 400, 500)
_SEED = 20261124
_clock = SystemClock()


@dataclass(frozen=True)
class _Times:
    seconds: list[float]

    @property
    def median_ms(self) -> float:
        return percentile(self.seconds, 50) * 1000

    def row(self, what: str, of: str) -> tuple[str, str, str, str]:
        met = "" if of != "quote" else "met" if self.median_ms <= TARGET_MS else "missed"
        return what, f"{self.median_ms:.3f}", f"{percentile(self.seconds, 99) * 1000:.3f}", met


def run() -> Report:
    """The figures: medians, for one caller who asks one thing after another."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder) / "data")
        place.cli("models", "add", _MODEL, "--url", "http://127.0.0.1:9/v1")
        asyncio.run(_add_models(place))
        over_http = _over_http(place)
        book, served = asyncio.run(_from_database(place))
    customer = Customer("o", "free")
    worked = _timed(lambda: quote(book, customer, _ask(_MODEL), _clock.now()))
    told = _timed(lambda: _told(book, customer))
    return Report(
        title="quotes",
        how=(
            f"{_ASKED:,} quotes one after another ({_MIXED:,} of mixed models), of a price book with "
            f"{len(_MODELS) * len(_PRICES)} rates, in SQLite; seed {_SEED}."
        ),
        columns=("what", "median ms", "p99 ms", f"target {TARGET_MS:g} ms"),
        rows=[
            worked.row("worked out by the model's prices at hand", "quote"),
            *served,
            *over_http,
            told.row("what `usage.cost` adds to a request that asks for it", "request"),
        ],
        remarks=("the database and HTTP rows share their cores with whatever else runs: look at the load above",),
    )


def _ask(model: str) -> QuoteAsk:
    return QuoteAsk(model_id=model, input_tokens=1000, output_tokens=500, tier="priority")


async def _add_models(place: Place) -> None:
    database = Database(f"sqlite+aiosqlite:///{place.data / 'galerne.db'}")
    async with database.transaction() as session:
        for name in _MODELS:
            await add_external(session, SYSTEM, ExternalModel(name=name, url="http://127.0.0.1:9/v1"), _clock)
    await database.close()


def _told(book: PriceBook, customer: Customer) -> object:
    found = token_prices(book, customer, _MODEL, ("chat.completions", "priority", ""), _clock.now())
    return None if found is None else list(map(quote_line_fields, cost_lines(found, _COUNTS)))


def _over_http(place: Place) -> list[tuple[str, str, str, str]]:
    rates = [
        {"token_class": name, "model": model, "currency": "EUR", "price": price}
        for model in _MODELS
        for name, price in _PRICES.items()
    ]
    drawn = random.Random(_SEED)
    with administered(place, os.sched_getaffinity(0)) as control:
        control.post("/v1/admin/prices/changes", {"rates": rates})
        time.sleep(NOTICE.total_seconds() + 0.5)
        connection = http.client.HTTPConnection("127.0.0.1", control.port, timeout=60)

        def answered(method: str, path: str, content: str | None = None) -> None:
            connection.request(method, path, content, HEADERS)
            response = connection.getresponse()
            said = response.read()
            if response.status != 200:
                raise SystemExit(f"{path}: {said[:200]!r}")

        def quoted(model: str) -> None:
            body = {"model": model, "input_tokens": 1000, "output_tokens": 500, "service_tier": "priority"}
            answered("POST", "/v1/admin/prices/quote", json.dumps(body))

        quoted(_MODEL)  # which loads the control plane
        return [
            _timed(lambda: quoted(_MODEL)).row("over HTTP, one kept connection: one model again and again", "quote"),
            _timed(lambda: quoted(drawn.choice(_MODELS)), _MIXED).row("over HTTP: mixed models", "quote"),
            _timed(lambda: answered("GET", "/healthz")).row("the same server's /healthz, beside it", "server"),
        ]


async def _from_database(place: Place) -> tuple[PriceBook, list[tuple[str, str, str, str]]]:
    database = Database(f"sqlite+aiosqlite:///{place.data / 'galerne.db'}")
    drawn = random.Random(_SEED)
    async with database.reading() as session:
        organisation_id = (await find_installation_admin(session)).organisation_id
        book = await read_book(session, model_id=_MODEL)  # as whoever quotes reads it

    async def anew() -> None:
        async with database.reading() as session:
            await quote_now(session, organisation_id, _ask(_MODEL), _clock.now())

    reader = open_reader(database.url)

    async def quoted(model: str) -> None:
        await reader.run(quote_script(organisation_id, _ask(model), _clock.now()))

    rows = [
        (await _waited(anew)).row("in a session, as the command reads", "quote"),
        (await _waited(lambda: quoted(_MODEL))).row("read by the server: one model again and again", "quote"),
        (await _waited(lambda: quoted(drawn.choice(_MODELS)), _MIXED)).row("read by the server: mixed models", "quote"),
    ]
    await reader.close()
    await database.close()
    return book, rows


async def _waited(work: Callable[[], Awaitable[object]], times: int = _ASKED) -> _Times:
    gc.collect()
    seconds: list[float] = []
    for _ in range(times):
        began_s = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - began_s)
    return _Times(seconds)


def _timed(work: Callable[[], object], times: int = _ASKED) -> _Times:
    gc.collect()
    seconds: list[float] = []
    for _ in range(times):
        began_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began_s)
    return _Times(seconds)
