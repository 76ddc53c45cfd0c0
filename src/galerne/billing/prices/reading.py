"""The price book as the database has it, whole or as much of it as one question needs."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.billing.prices.book import DEFAULT_LIST, Assignment, Match, Modifier, PriceBook, Rate
from galerne.billing.prices.volume_tiers import Step
from galerne.billing.tables import PriceVersionRow
from galerne.kernel import Query, Script, json_list, run_in_session, utc_time

_RATES = """
SELECT id, list_id, version, currency, model_id, token_class, service_tier, zone, batch, effective_from, nano, per,
  volume, steps
FROM rates"""
_MODIFIERS = "SELECT list_id, version, effective_from, kind, value, ppm FROM price_modifiers"
_ASSIGNMENTS = "SELECT id, scope, subject, list_id, effective_from FROM price_assignments"
_OF_MODEL = "model_id IN :models"
_OF_LISTS = "list_id IN :lists"
_OF_SUBJECTS = "subject IN :subjects"
_UP_TO = "version <= :version"
_ANY = ""
_ANY_BATCH = -1


def book_script(
    *, model_id: str | None = None, version: int | None = None, subjects: tuple[str, ...] = ()
) -> Script[PriceBook]:
    """The price book, what begins later included; as it was at `version`, or as it is.

    With `model_id` only rates that can price that model; with `subjects` (an organisation, a plan) only what is in
    their lists and in the default one: few rows, however many customers have prices of their own.
    """
    values: dict[str, Any] = {"models": [model_id, _ANY], "version": version, "subjects": list(subjects)}
    assignments = yield _where(_ASSIGNMENTS, values, _OF_SUBJECTS if subjects else "")
    assigned = list(map(_assignment, assignments))
    values["lists"] = [DEFAULT_LIST, *{each.list_id for each in assigned if each.list_id is not None}]
    conditions = ("" if version is None else _UP_TO, _OF_LISTS if subjects else "")
    rates = yield _where(_RATES, values, "" if model_id is None else _OF_MODEL, *conditions)
    modifiers = yield _where(_MODIFIERS, values, *conditions)
    return PriceBook(list(map(_rate, rates)), list(map(_modifier, modifiers)), assigned)


async def read_book(
    session: AsyncSession, *, model_id: str | None = None, version: int | None = None, subjects: tuple[str, ...] = ()
) -> PriceBook:
    """The same in a session."""
    return await run_in_session(session, book_script(model_id=model_id, version=version, subjects=subjects))


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


def _where(select: str, values: Mapping[str, Any], *conditions: str) -> Query:
    wanted = [condition for condition in conditions if condition]
    return Query(f"{select} WHERE {' AND '.join(wanted)}" if wanted else select, values)


def _rate(row: Any) -> Rate:
    rate_id, list_id, version, currency, model_id, token_class, service_tier, zone, batch, *rest = row
    effective_from, nano, per, volume, steps = rest
    match = Match(
        token_class=token_class,
        model_id=model_id or None,
        service_tier=service_tier or None,
        zone=zone or None,
        batch=None if batch == _ANY_BATCH else bool(batch),
    )
    return Rate(
        id=rate_id,
        list_id=list_id,
        version=version,
        currency=currency,
        match=match,
        effective_from=utc_time(effective_from),
        nano=nano,
        per=per,
        volume=volume,
        steps=tuple(Step(above, nano) for above, nano in json_list(steps)),
    )


def _modifier(row: Any) -> Modifier:
    list_id, version, effective_from, kind, value, ppm = row
    return Modifier(
        list_id=list_id, version=version, effective_from=utc_time(effective_from), kind=kind, value=value, ppm=ppm
    )


def _assignment(row: Any) -> Assignment:
    assignment_id, scope, subject, list_id, effective_from = row
    return Assignment(
        id=assignment_id, scope=scope, subject=subject, list_id=list_id, effective_from=utc_time(effective_from)
    )
