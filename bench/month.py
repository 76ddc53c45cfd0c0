"""A month of many customers' usage in a database: customers, contracts and prices by the real services, events by SQL.

Events are a function of their number, so that every run has
the same ones: dense in time, two keys a customer, two models, three tiers.
"""

import sqlite3
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing import Match, NewRate, PriceChange, change_prices
from galerne.billing.contracts import ContractTerms, draft_contract, sign_contract
from galerne.billing.documents.document import Address, Identifier
from galerne.billing.invoices import BillingProfile, Issuer, set_issuer, set_profile
from galerne.governance import SYSTEM
from galerne.identity import NewOrganisation, create_organisation
from galerne.kernel import Database, Ids, ManualClock
from galerne.models import ExternalModel, add_external

MODELS = ("large", "small")
_NANTES = Address(line1="12 quai de la Fosse", city="Nantes", postcode="44000", country="FR")
_PRICES = {"input": 400_000_000, "cached": 40_000_000, "output": 1_600_000_000}
_CONTRACTED = 10  # every tenth customer has one
_PART = 100_000
MONTHLY = 10_000_000
"""Events of a whole month; fewer are as dense in time, over a part of it."""

# A number's digits, multiplied by odd constants, are dice enough; `started_ms` is even over the month, so ids ascend.
_EVENTS = """
WITH RECURSIVE numbers(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :end),
 dice AS MATERIALIZED (
  SELECT n, :start_ms + n * :month_ms / :events AS ms, (n * 2654435761 + 7) % 4294967296 AS a,
   (n * 2246822519 + 13) % 4294967296 AS b, (n * 3266489917 + 29) % 4294967296 AS c FROM numbers)
INSERT INTO usage_events (id, organisation_id, workspace_id, key_id, model, model_version, endpoint, dialect,
 input_tokens, cached_tokens, output_tokens, estimated, streamed, partial, outcome, finish_reason, status, started_at,
 queue_ms, ttft_ms, total_ms, tier, zone, recorded_at)
SELECT printf('%012x7%019x', ms, n), o.id, NULL, printf('%032x', o.number * 2 + (b >> 9) % 2),
 CASE WHEN (b >> 12) % 4 THEN 'large' ELSE 'small' END, '1', 'chat.completions', 'openai',
 (a >> 8) % 5000, CASE WHEN (b >> 16) % 2 THEN (b >> 17) % 2000 ELSE 0 END, (c >> 8) % 1000, 0, 1, 0, 'completed',
 'stop', 200, strftime('%Y-%m-%d %H:%M:%S', ms / 1000, 'unixepoch') || printf('.%03d000', ms % 1000),
 0.0, 120.0, 900.0, CASE (c >> 20) % 4 WHEN 0 THEN 'batch' WHEN 1 THEN 'priority' ELSE 'standard' END, '',
 strftime('%Y-%m-%d %H:%M:%S', ms / 1000 + 1, 'unixepoch') || '.000000'
FROM dice JOIN bench_customers o ON o.number = (a >> 4) % :customers ORDER BY n
"""


def month_before(now: datetime) -> datetime:
    """The beginning of the month before `now`'s."""
    return (now.replace(day=1) - timedelta(days=1)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


async def set_up(folder: Path, start: datetime, customers: int) -> list[str]:
    """An installation in `folder` with prices, an issuer and customers, as of the day before `start`; their ids."""
    database = Database(f"sqlite+aiosqlite:///{folder / 'galerne.db'}")
    await database.migrate()
    clock, ids = ManualClock(start - timedelta(days=1)), Ids()
    rates = tuple(
        NewRate(match=Match(token_class=name, model_id=model), currency="EUR", nano=nano // (1 + number))  # type: ignore[arg-type]  # the classes
        for number, model in enumerate(MODELS)
        for name, nano in _PRICES.items()
    )
    issuer = Issuer(id="fr", name="Galerne SAS", address=_NANTES, prefix="FR", vat_id="FR40303265045")
    issuer = replace(issuer, legal_id=Identifier(value="303265045", scheme="0002"), iban="FR7630006000011234567890189")
    async with database.transaction() as session:
        for model in MODELS:
            await add_external(session, SYSTEM, ExternalModel(name=model, url="http://127.0.0.1:9/v1"), clock)
        await change_prices(session, SYSTEM, PriceChange(rates=rates), ids, clock)
        await set_issuer(session, SYSTEM, replace(issuer, account_name="Galerne SAS"), clock)
    names: list[str] = []
    for number in range(customers):
        async with database.transaction() as session:
            names.append(await _customer(session, number, start, ids, clock))
    await database.close()
    return names


async def _customer(session: AsyncSession, number: int, start: datetime, ids: Ids, clock: ManualClock) -> str:
    new = NewOrganisation(name=f"Customer {number}")
    organisation, _ = await create_organisation(session, new, ids, clock)
    profile = BillingProfile(
        organisation_id=organisation.id, issuer_id="fr", name=new.name, address=_NANTES, is_business=True
    )
    await set_profile(session, SYSTEM, profile, clock)
    if number % _CONTRACTED == 0:
        actor = replace(SYSTEM, organisation_id=organisation.id)
        terms = ContractTerms(currency="EUR", start=start, months=12, fee_nano=100 * 10**9)
        made = await draft_contract(session, actor, "Frame", terms, ids, clock)
        await sign_contract(session, actor, made.contract_id, (1, made.sha256, "Ada"), clock)
    return organisation.id


def write_events(folder: Path, customers: list[str], start: datetime, events: int) -> None:
    """Write that many events from `start` on, as dense as `MONTHLY` are over the month."""
    after = (start + timedelta(days=32)).replace(day=1)
    connection = sqlite3.connect(folder / "galerne.db", isolation_level=None)
    for pragma in ("synchronous=OFF", "cache_size=-262144"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TEMP TABLE bench_customers (number INTEGER PRIMARY KEY, id TEXT)")
    connection.executemany("INSERT INTO bench_customers VALUES (?, ?)", enumerate(customers))
    start_ms, month_ms = int(start.timestamp() * 1000), int((after - start).total_seconds() * 1000)
    values = {"start_ms": start_ms, "month_ms": month_ms, "events": max(events, MONTHLY), "customers": len(customers)}
    for first in range(0, events, _PART):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_EVENTS, {**values, "first": first, "end": min(events, first + _PART)})
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
