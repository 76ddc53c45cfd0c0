"""The price book as the database has it, whole or as much of it as one question needs."""

from typing import Any, cast

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.prices.book import Assignment, Match, Modifier, ModifierKind, PriceBook, Rate
from galerne.billing.prices.pricing import ServiceTier, TokenClass
from galerne.billing.prices.volume_tiers import Step, VolumeMode
from galerne.billing.tables import ModifierRow, PriceAssignmentRow, PriceVersionRow, RateRow

_RATES = select(*RateRow.__table__.columns)
_MODIFIERS = select(*ModifierRow.__table__.columns)
_ASSIGNMENTS = select(*PriceAssignmentRow.__table__.columns)
_ANY = ""
_ANY_BATCH = -1


async def read_book(
    session: AsyncSession, *, model_id: str | None = None, version: int | None = None, subjects: tuple[str, ...] = ()
) -> PriceBook:
    """The price book, what begins later included; as it was at `version`, or as it is.

    With `model_id` only rates that can price that model, with `subjects` (an organisation, a plan) only their lists.
    """
    rates, modifiers, assignments = _RATES, _MODIFIERS, _ASSIGNMENTS
    if model_id is not None:
        rates = rates.where(RateRow.model_id.in_((model_id, _ANY)))
    if subjects:
        assignments = assignments.where(PriceAssignmentRow.subject.in_(subjects))
    if version is not None:
        rates = rates.where(RateRow.version <= version)
        modifiers = modifiers.where(ModifierRow.version <= version)
    return PriceBook(
        [_rate(row) for row in await _all(session, rates)],
        [_modifier(row) for row in await _all(session, modifiers)],
        [_assignment(row) for row in await _all(session, assignments)],
    )


async def newest_version(session: AsyncSession) -> int:
    """The number of the price book's last change; 0 before the first."""
    return (await session.scalar(select(func.max(PriceVersionRow.number)))) or 0


def stored_match(match: Match) -> dict[str, object]:
    """The columns that say what a rate is for."""
    return {
        "model_id": match.model_id or _ANY,
        "token_class": match.token_class,
        "service_tier": match.service_tier or _ANY,
        "zone": match.zone or _ANY,
        "batch": _ANY_BATCH if match.batch is None else int(match.batch),
    }


async def _all(session: AsyncSession, query: Select[Any]) -> list[Any]:
    return list(await session.execute(query))


def _rate(row: Any) -> Rate:
    match = Match(
        token_class=cast(TokenClass, row.token_class),
        model_id=row.model_id or None,
        service_tier=cast(ServiceTier, row.service_tier) or None,
        zone=row.zone or None,
        batch=None if row.batch == _ANY_BATCH else bool(row.batch),
    )
    return Rate(
        id=row.id,
        list_id=row.list_id,
        version=row.version,
        currency=row.currency,
        match=match,
        effective_from=row.effective_from,
        nano=row.nano,
        per=row.per,
        volume=cast(VolumeMode | None, row.volume),
        steps=tuple(Step(above, nano) for above, nano in row.steps),
    )


def _modifier(row: Any) -> Modifier:
    return Modifier(
        list_id=row.list_id,
        version=row.version,
        effective_from=row.effective_from,
        kind=cast(ModifierKind, row.kind),
        value=row.value,
        ppm=row.ppm,
    )


def _assignment(row: Any) -> Assignment:
    return Assignment(
        id=row.id, scope=row.scope, subject=row.subject, list_id=row.list_id, effective_from=row.effective_from
    )
