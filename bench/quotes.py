"""How long a quote takes: worked out, with what it reads of the database, and over HTTP; and what telling a cost takes.

The book holds 999 rates, three of them for the model that is asked for, as an operator of 333 models would have them.
"""

import asyncio
import gc
import http.client
import json
import os
import tempfile
import time
from collections.abc import Callable
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
    customer_now,
    quote,
    quote_line_fields,
    quote_now,
    read_book,
    token_prices,
)
from galerne.identity import find_installation_admin
from galerne.kernel import Database, SystemClock

TARGET_MS = 1.0
_ASKED = 2000
_MODELS = 333
_MODEL = "model-7"
_PRICES = {"input": "0.5", "cached": "0.05", "output": "1.5"}
_ASK = {"model": _MODEL, "input_tokens": 1000, "output_tokens": 500, "service_tier": "priority"}
_COUNTS = (600, 400, 500)
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
        healthy, asked = _over_http(place)
        book, read = asyncio.run(_from_database(place))
    ask, customer = (
        QuoteAsk(model_id=_MODEL, input_tokens=1000, output_tokens=500, tier="priority"),
        Customer("o", "free"),
    )
    worked = _timed(lambda: quote(book, customer, ask, _clock.now()))
    told = _timed(lambda: _told(book, customer))
    return Report(
        title="quotes",
        how=f"{_ASKED:,} quotes one after another, of a price book with {_MODELS * 3} rates, in SQLite.",
        columns=("what", "median ms", "p99 ms", f"target {TARGET_MS:g} ms"),
        rows=[
            worked.row("worked out by the model's prices at hand", "quote"),
            read.row("with customer, model and book read from SQLite", "quote"),
            asked.row("over HTTP, one kept connection", "quote"),
            healthy.row("the same server's /healthz, beside it", "server"),
            told.row("what `usage.cost` adds to a request that asks for it", "request"),
        ],
        remarks=("the database and HTTP rows share their cores with whatever else runs: look at the load above",),
    )


def _told(book: PriceBook, customer: Customer) -> object:
    found = token_prices(book, customer, _MODEL, ("chat.completions", "priority", ""), _clock.now())
    return None if found is None else list(map(quote_line_fields, cost_lines(found, _COUNTS)))


def _over_http(place: Place) -> tuple[_Times, _Times]:
    rates = [
        {"token_class": name, "model": f"model-{number}", "currency": "EUR", "price": price}
        for number in range(_MODELS)
        for name, price in _PRICES.items()
    ]
    with administered(place, os.sched_getaffinity(0)) as control:
        control.post("/v1/admin/prices/changes", {"rates": rates})
        time.sleep(NOTICE.total_seconds() + 0.5)
        connection = http.client.HTTPConnection("127.0.0.1", control.port, timeout=60)
        body = json.dumps(_ASK)

        def answered(method: str, path: str, content: str | None) -> None:
            connection.request(method, path, content, HEADERS)
            response = connection.getresponse()
            said = response.read()
            if response.status != 200:
                raise SystemExit(f"{path}: {said[:200]!r}")

        healthy = _timed(lambda: answered("GET", "/healthz", None))
        return healthy, _timed(lambda: answered("POST", "/v1/admin/prices/quote", body))


async def _from_database(place: Place) -> tuple[PriceBook, _Times]:
    database = Database(f"sqlite+aiosqlite:///{place.data / 'galerne.db'}")
    ask = QuoteAsk(model_id=_MODEL, input_tokens=1000, output_tokens=500, tier="priority")
    seconds: list[float] = []
    async with database.reading() as session:
        organisation_id = (await find_installation_admin(session)).organisation_id
        book = await read_book(session, model_id=_MODEL)  # as whoever quotes reads it
    for _ in range(_ASKED):
        began_s = time.perf_counter()
        async with database.reading() as session:
            await quote_now(session, await customer_now(session, organisation_id), ask, _clock.now())
        seconds.append(time.perf_counter() - began_s)
    await database.close()
    return book, _Times(seconds)


def _timed(work: Callable[[], object]) -> _Times:
    gc.collect()
    seconds: list[float] = []
    for _ in range(_ASKED):
        began_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began_s)
    return _Times(seconds)
