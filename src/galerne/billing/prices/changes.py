"""Changing the price book: rates and modifiers written together as one version, price lists, and who has them.

What is written is never changed. What cannot be is refused whole, naming what is wrong.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from functools import partial
from math import prod
from typing import Literal, get_args

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.prices.book import (
    DEFAULT_LIST,
    TOKEN_CLASSES,
    UNITS,
    Match,
    Modifier,
    ModifierKind,
    PriceBook,
    Rate,
)
from galerne.billing.prices.decimals import begin_of, check_currency, check_price, decimal_of
from galerne.billing.prices.pricing import (
    HIGHEST_FACTOR,
    HIGHEST_NANO_PER_MILLION,
    PPM,
    TIER_MODIFIERS_PPM,
    ServiceTier,
)
from galerne.billing.prices.reading import read_book, stored_match
from galerne.billing.prices.volume_tiers import Step, VolumeMode, steps_problem
from galerne.billing.tables import (
    ModifierRow,
    PlanRow,
    PriceAssignmentRow,
    PriceListRow,
    PriceVersionRow,
    RateRow,
)
from galerne.governance import Actor
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Conflict, Ids, NotFound

_HIGHEST_PPM = 10_000_000
_MOST_CHANGES = 1000
_EMPTY: tuple[Modifier, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRate:
    """A rate to be written: what as many units cost as `UNITS` says, nano-units; None withdraws it."""

    match: Match
    currency: str
    nano: int | None
    effective_from: datetime | None = None
    volume: VolumeMode | None = None
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewModifier:
    """A modifier to be written, in parts per million."""

    kind: ModifierKind
    ppm: int
    value: str = ""
    effective_from: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceChange:
    """What is written together into one list; `retroactive` only by a re-rating, for what it says may lie behind us."""

    rates: tuple[NewRate, ...] = ()
    modifiers: tuple[NewModifier, ...] = ()
    list_id: str = DEFAULT_LIST
    retroactive: bool = False


@dataclass(frozen=True, slots=True)
class WrittenPrices:
    """A version of the price book: its number and what it added."""

    number: int
    rates: tuple[Rate, ...]
    modifiers: tuple[Modifier, ...] = _EMPTY


async def change_prices(
    session: AsyncSession, actor: Actor, change: PriceChange, ids: Ids, clock: Clock
) -> WrittenPrices:
    """Write a version of the price book, journalled; raises `BadRequest` for what cannot be, `NotFound` for a list.

    Nothing begins before `NOTICE` is over, but for what a re-rating writes.
    """
    now = clock.now()
    check_change(change, now)
    if await session.get(PriceListRow, change.list_id) is None:
        raise _no_list(change.list_id)
    number = await _next_number(session)
    written = worked_out(change, number, ids, now)
    check_factors((await read_book(session)).plus(written.rates, written.modifiers))
    session.add(PriceVersionRow(number=number, retroactive=change.retroactive, created_at=now))
    await session.flush()
    session.add_all([_rate_row(rate) for rate in written.rates])
    session.add_all([_modifier_row(each) for each in written.modifiers])
    await session.flush()
    await append(session, [_entry(actor, "prices.change", f"price_list:{change.list_id}", now, _detail(written))])
    return written


def worked_out(change: PriceChange, number: int, ids: Ids, now: datetime) -> WrittenPrices:
    """What a change adds to the price book as version `number`."""
    begin = _beginning(change, now)
    rates = tuple(
        Rate(
            id=ids.new(),
            list_id=change.list_id,
            version=number,
            currency=new.currency,
            match=new.match,
            effective_from=begin(new.effective_from),
            nano=new.nano,
            per=UNITS[new.match.token_class],
            volume=new.volume,
            steps=new.steps,
        )
        for new in change.rates
    )
    modifiers = tuple(
        Modifier(
            list_id=change.list_id,
            version=number,
            effective_from=begin(new.effective_from),
            kind=new.kind,
            value=new.value,
            ppm=new.ppm,
        )
        for new in change.modifiers
    )
    return WrittenPrices(number, rates, modifiers)


def check_change(change: PriceChange, now: datetime) -> None:
    """Raise `BadRequest` naming the field if the change cannot be written at `now`. Two of one match are a tie."""
    count = len(change.rates) + len(change.modifiers)
    if not 0 < count <= _MOST_CHANGES:
        raise BadRequest(f"A change has 1 to {_MOST_CHANGES} rates and modifiers, not {count}.", param="rates")
    for new in change.rates:
        _check_rate(new)
    for modifier in change.modifiers:
        _check_modifier(modifier)
    begins = [new.effective_from for new in (*change.rates, *change.modifiers) if new.effective_from is not None]
    if not change.retroactive and any(begin < now for begin in begins):
        raise BadRequest(
            "A price cannot begin in the past: what was used has been priced. Leave it out for soon, or re-rate.",
            param="effective_from",
        )
    begin = _beginning(change, now)
    same = Counter((new.match, new.currency, begin(new.effective_from)) for new in change.rates)
    if max(same.values(), default=0) > 1:
        raise BadRequest("Two rates for the same thing from the same time on: nobody could say which.", param="rates")
    if max(Counter((new.kind, new.value) for new in change.modifiers).values(), default=0) > 1:
        raise BadRequest("Two modifiers of the same kind and value.", param="modifiers")


def check_factors(book: PriceBook) -> None:
    """Raise `BadRequest` if modifiers could make a price of that book dearer than any price may be.

    Simple, so a little too strict: the dearest price with the highest factor of each kind, whenever each counts.
    """
    nanos = [nano for rate in book.rates for nano in (rate.nano or 0, *(step.nano for step in rate.steps))]
    highest: dict[str, int] = {"tier": max(TIER_MODIFIERS_PPM.values())}
    for each in book.modifiers:
        highest[each.kind] = max(each.ppm, highest.get(each.kind, PPM))
    factor = prod((Fraction(max(ppm, PPM), PPM) for ppm in highest.values()), start=Fraction(1))
    if max(nanos, default=0) * factor > HIGHEST_NANO_PER_MILLION * HIGHEST_FACTOR:
        raise BadRequest(
            f"Together the modifiers would make the dearest price more than {HIGHEST_FACTOR} times"
            f" {decimal_of(HIGHEST_NANO_PER_MILLION)}.",
            param="factor",
        )


async def create_price_list(session: AsyncSession, actor: Actor, list_id: str, name: str, clock: Clock) -> None:
    """A new, empty price list, journalled; raises `Conflict` if there is one with that id."""
    if not list_id or len(list_id) > 40 or not list_id.replace("-", "").replace("_", "").isalnum():
        raise BadRequest("A price list's id has 1 to 40 letters, digits, '-' and '_'.", param="id")
    if await session.get(PriceListRow, list_id) is not None:
        raise Conflict(f"There is a price list '{list_id}' already.", code="price_list_exists")
    now = clock.now()
    session.add(PriceListRow(id=list_id, name=name[:200], created_at=now))
    await session.flush()
    await append(session, [_entry(actor, "price_lists.create", f"price_list:{list_id}", now, {"name": name[:200]})])


async def list_price_lists(session: AsyncSession) -> list[tuple[str, str, datetime]]:
    """Id, name and making of every price list."""
    rows = await session.scalars(select(PriceListRow).order_by(PriceListRow.id))
    return [(row.id, row.name, row.created_at) for row in rows]


async def assign_price_list(
    session: AsyncSession,
    actor: Actor,
    whom: tuple[Literal["plan", "organisation"], str],
    list_id: str | None,
    clock: Clock,
    effective_from: datetime | None = None,
) -> None:
    """Give a plan or an organisation a price list from a time on, journalled; `list_id` None ends it.

    It begins no sooner than a price does. `whom` is scope and id. Raises `NotFound` for a list or plan that is not,
    `BadRequest` for a time in the past.
    """
    now = clock.now()
    scope, subject = whom
    if effective_from is not None and effective_from < now:
        raise BadRequest("A price list cannot begin in the past.", param="effective_from")
    begin = begin_of(effective_from, now)
    if list_id is not None and await session.get(PriceListRow, list_id) is None:
        raise _no_list(list_id)
    if scope == "plan" and await session.get(PlanRow, subject) is None:
        raise NotFound(f"There is no plan '{subject[:100]}'.", code="plan_not_found", param="plan")
    row = PriceAssignmentRow(
        id=Ids().new(), scope=scope, subject=subject, list_id=list_id, effective_from=begin, created_at=now
    )
    session.add(row)
    await session.flush()
    detail: dict[str, str | int | bool | None] = {"list": list_id, "effective_from": begin.isoformat()}
    await append(session, [_entry(actor, "price_lists.assign", f"{scope}:{subject}", now, detail)])


def _beginning(change: PriceChange, now: datetime) -> Callable[[datetime | None], datetime]:
    if change.retroactive:
        return lambda asked: asked or now
    return partial(begin_of, now=now)


def _check_rate(new: NewRate) -> None:
    match = new.match
    check_currency(new.currency)
    if match.token_class not in TOKEN_CLASSES:
        raise BadRequest(f"'{match.token_class[:40]}' is no class of usage.", param="token_class")
    if match.service_tier is not None and match.service_tier not in get_args(ServiceTier):
        raise BadRequest(f"'{match.service_tier[:40]}' is no service tier.", param="service_tier")
    if "" in (match.model_id, match.zone):
        raise BadRequest("A model or zone has a name; leave it out for any.", param="model")
    for nano in (*(() if new.nano is None else (new.nano,)), *(step.nano for step in new.steps)):
        check_price(match.token_class, nano)
    problem = steps_problem(new.volume, new.steps)
    if problem is not None:
        raise BadRequest(problem, param="steps")


def _check_modifier(new: NewModifier) -> None:
    if new.kind not in get_args(ModifierKind) or (new.kind in ("tier", "zone")) != bool(new.value):
        raise BadRequest("A modifier is for a tier or a zone by name, or for batch or cached.", param="kind")
    if not 0 <= new.ppm <= _HIGHEST_PPM:
        raise BadRequest("A modifier lies between 0 and 10.", param="factor")


async def _next_number(session: AsyncSession) -> int:
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(text("LOCK TABLE price_versions IN EXCLUSIVE MODE"))
    return ((await session.scalar(select(func.max(PriceVersionRow.number)))) or 0) + 1


def _rate_row(rate: Rate) -> RateRow:
    return RateRow(
        id=rate.id,
        version=rate.version,
        list_id=rate.list_id,
        currency=rate.currency,
        effective_from=rate.effective_from,
        nano=rate.nano,
        per=rate.per,
        volume=rate.volume,
        steps=[[step.above, step.nano] for step in rate.steps],
        **stored_match(rate.match),
    )


def _modifier_row(each: Modifier) -> ModifierRow:
    return ModifierRow(
        version=each.version,
        list_id=each.list_id,
        kind=each.kind,
        value=each.value,
        effective_from=each.effective_from,
        ppm=each.ppm,
    )


def _no_list(list_id: str) -> NotFound:
    return NotFound(f"There is no price list '{list_id[:100]}'.", code="price_list_not_found", param="list")


def _detail(written: WrittenPrices) -> dict[str, str | int | bool | None]:
    begins = [each.effective_from for each in (*written.rates, *written.modifiers)]
    return {
        "version": written.number,
        "rates": len(written.rates),
        "modifiers": len(written.modifiers),
        "effective_from": min(begins).isoformat(),
    }


def _entry(actor: Actor, action: str, resource: str, at: datetime, detail: dict[str, str | int | bool | None]) -> Entry:
    return Entry(action=action, actor=actor, resource=resource, outcome="done", at=at, detail=detail)
