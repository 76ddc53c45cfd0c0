"""What time has to bring about by itself: rating, alerts, renewals, burning and expiry of credit, forgetting.

Each is done in small transactions, may be killed between any two and begun again, and does no harm if two processes do
it at once. What goes wrong with one customer stops no other.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing import continue_rerating, list_reratings, rate_batch, rerate_unmatched
from galerne.billing.budgets import give_alerts, organisations_with_budgets
from galerne.billing.contracts import contracts_to_renew, renew_contract
from galerne.billing.subscriptions import advance_subscription, due_subscriptions
from galerne.kernel import Clock, Database, GalerneError, Ids, Settings, place_of
from galerne.kernel.outbox import News, take_news, waiting_news
from galerne.kernel.sealing import open_sealer
from galerne.ledger import burn_lots, sweep_all
from galerne.notices import TOPICS, Sender, forget_old, hear

_SMALL = 500
"""Requests rated in one transaction on SQLite, where whoever serves requests waits for it."""
_LARGE = 20_000
_FORGOTTEN = 1000
_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class DutyParts:
    """What duties work with; `rest` waits so many seconds, between transactions."""

    database: Database
    clock: Clock
    ids: Ids
    settings: Settings
    rest: Callable[[float], Awaitable[None]]


@dataclass(slots=True)
class DutyReport:
    """What a run came to: how many things were done, and with whom what went wrong."""

    done: int = 0
    refused: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def problem(self) -> str | None:
        """What went wrong in one line; None where nothing did."""
        if not self.refused:
            return None
        named = [f"{name}: {why}" for name, why in list(self.refused.items())[:_MOST_NAMED]]
        rest = len(self.refused) - len(named)
        return "; ".join(named) + (f"; and {rest} more" if rest else "")


@dataclass(frozen=True, slots=True)
class Duty:
    """Something to do every so many seconds; `longest_s` is when a run is given up, to be begun again later."""

    name: str
    every_s: float
    about: str
    work: Callable[[DutyParts], Awaitable[DutyReport]]
    longest_s: float = 900.0


async def _rate(parts: DutyParts) -> DutyReport:
    report, more = DutyReport(), True
    limit = _SMALL if parts.database.is_sqlite else _LARGE
    while more:
        begun_s = time.monotonic()
        async with parts.database.transaction() as session:
            batch = await rate_batch(session, parts.clock, limit=limit)
        report.done, more = report.done + batch.rated + batch.unmatched, batch.more
        if more and parts.database.is_sqlite:
            # SQLite has one writer and no queue for it: others get as long as this took.
            await parts.rest(time.monotonic() - begun_s)
    return report


async def _price_queue(parts: DutyParts) -> DutyReport:
    report, after, more = DutyReport(), "", True
    while more:
        async with parts.database.transaction() as session:
            count, after = await rerate_unmatched(session, parts.clock, after=after)
        report.done, more = report.done + count, bool(after)
    return report


async def _rerate(parts: DutyParts) -> DutyReport:
    async with parts.database.reading() as session:
        unfinished = [each.digest for each in await list_reratings(session, unfinished=True)]
    report, limit = DutyReport(), _SMALL if parts.database.is_sqlite else _LARGE // 10
    for digest in unfinished:
        finished = False
        while not finished:
            begun_s = time.monotonic()
            async with parts.database.transaction() as session:
                run = await continue_rerating(session, digest, parts.clock, limit)
            report.done, finished = report.done + 1, run.finished_at is not None
            if parts.database.is_sqlite:
                await parts.rest(time.monotonic() - begun_s)
    return report


async def _burn(parts: DutyParts) -> DutyReport:
    return DutyReport(await burn_lots(parts.database))


async def _expire(parts: DutyParts) -> DutyReport:
    return DutyReport(len(await sweep_all(parts.database, parts.clock)))


async def _advance(parts: DutyParts) -> DutyReport:
    async with parts.database.reading() as session:
        due = await due_subscriptions(session, parts.clock)

    async def one(name: str) -> int:
        async with parts.database.transaction() as session:
            await advance_subscription(session, name, parts.ids, parts.clock)
        return 1

    return await _each("subscription", due, one)


async def _renew(parts: DutyParts) -> DutyReport:
    async with parts.database.reading() as session:
        due = await contracts_to_renew(session, parts.clock)

    async def one(name: str) -> int:
        async with parts.database.transaction() as session:
            return await renew_contract(session, name, parts.clock)

    return await _each("contract", due, one)


async def _alert(parts: DutyParts) -> DutyReport:
    async with parts.database.reading() as session:
        whose = await organisations_with_budgets(session)

    async def one(name: str) -> int:
        async with parts.database.transaction() as session:
            return len(await give_alerts(session, name, parts.clock))

    return await _each("organisation", whose, one)


async def _tell(parts: DutyParts) -> DutyReport:
    async with parts.database.reading() as session:
        waiting = await waiting_news(session)

    async def one(news_id: str) -> int:
        async with parts.database.transaction() as session:
            news = await take_news(session, news_id)
            if news is not None:
                for hears in HEARERS.get(news.topic, ()):
                    await hears(session, news)
        return 1

    return await _each("news", waiting, one)


async def _send(parts: DutyParts) -> DutyReport:
    report = await _tell(parts)  # what has just happened need not wait for another round
    settings, sealer = parts.settings, open_sealer(parts.settings)
    sender = Sender(
        database=parts.database,
        sealer=sealer,
        clock=parts.clock,
        inside=settings.webhooks_inside,
        offline=settings.offline,
    )
    # What an endpoint refuses is its own trouble, and listed as such; only ours is a duty's.
    report.done += sum(each.state == "delivered" for each in await sender.deliver_due())
    return report


async def _forget(parts: DutyParts) -> DutyReport:
    report, more = DutyReport(), True
    while more:
        begun_s = time.monotonic()
        async with parts.database.transaction() as session:
            count = await forget_old(session, parts.clock.now(), _FORGOTTEN)
        report.done, more = report.done + count, count == _FORGOTTEN
        if more and parts.database.is_sqlite:
            await parts.rest(time.monotonic() - begun_s)
    return report


HEARERS: Mapping[str, Sequence[Callable[[AsyncSession, News], Awaitable[None]]]] = dict.fromkeys(TOPICS, (hear,))
"""Who hears of which news."""


async def _each(kind: str, names: Iterable[str], one: Callable[[str], Awaitable[int]]) -> DutyReport:
    report = DutyReport()
    for name in names:
        try:
            report.done += await one(name)
        except (GalerneError, SQLAlchemyError) as problem:
            said = problem.message if isinstance(problem, GalerneError) else type(problem).__name__
            report.refused[f"{kind} {name}"] = said
        except Exception as defect:  # noqa: BLE001 - a defect met with one customer must not stop the others' month
            report.refused[f"{kind} {name}"] = defect_text(defect)
    return report


def defect_text(defect: BaseException) -> str:
    """What is wrong with our own code, and where, without any value that it held."""
    return f"a defect, {place_of(defect)}"


DUTIES = (
    Duty("rating", 15, "Rate new usage.", _rate, longest_s=3600),
    Duty("unpriced", 300, "Rate what had no price and has one by now.", _price_queue),
    Duty("re-rating", 15, "Go on with re-ratings that were begun.", _rerate, longest_s=3600),
    Duty("credit-use", 15, "Burn what was spent onto lots of credit.", _burn),
    Duty("credit-expiry", 60, "Begin and end lots of credit.", _expire),
    Duty("subscriptions", 60, "Renew subscriptions, end trials, go on with dunning.", _advance),
    Duty("contracts", 600, "Renew contracts whose term is over.", _renew),
    Duty("budgets", 60, "Give the alerts of budgets.", _alert),
    Duty("webhooks", 10, "Tell what happened, and send webhooks that are due.", _send),
    Duty("old-webhooks", 3600, "Forget webhooks that ended 30 days ago.", _forget),
)
"""All of them."""
