"""Use cases of the catalogue. None of them commits."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import SYSTEM, Actor
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Conflict, run_in_session
from galerne.models.catalogue import Address, ExternalModel, Model, check_external
from galerne.models.embedded import EMBEDDED_NAMES
from galerne.models.finding import find_model_script
from galerne.models.registration import registered, without_address
from galerne.models.tables import AddressRow, CatalogueRow

_ADDRESS_FIELDS = tuple(field.name for field in fields(Address))
_MODEL_FIELDS = tuple(field.name for field in fields(Model) if field.name != "addresses")


async def list_models(session: AsyncSession) -> list[Model]:
    """Every model of the catalogue, by name, with its addresses, the oldest first; an adapter's are its base's."""
    rows = (await session.scalars(select(CatalogueRow).order_by(CatalogueRow.id))).all()
    oldest_first = select(AddressRow).order_by(AddressRow.created_at, AddressRow.id)
    addresses: dict[str, tuple[Address, ...]] = {}
    for row in await session.scalars(oldest_first):
        addresses[row.model_id] = (*addresses.get(row.model_id, ()), _address(row))
    return [_model(row, addresses.get(row.adapter_of or row.id, ())) for row in rows]


async def find_model(session: AsyncSession, name: str) -> Model:
    """The model with that id, or else with that alias; raises `NotFound` (`model_not_found`)."""
    return await run_in_session(session, find_model_script(name))


async def publish_embedded(session: AsyncSession, models: Sequence[Model], clock: Clock) -> None:
    """Make the catalogue say what this installation's own engines run; new versions are recorded in the journal."""
    known = {model.id: model for model in await list_models(session)}
    for model in models:
        before = known.get(model.id)
        if before is not None and before.engine == "openai":
            raise Conflict(
                f"Another server's model is registered as '{model.id}', the name of the embedded one: remove it first."
            )
        if before != model:
            await session.merge(_row(model))
            await append(session, [_entry("model.published", SYSTEM, model, clock)])


async def add_external(session: AsyncSession, actor: Actor, external: ExternalModel, clock: Clock) -> Model:
    """Register a model that another server runs, one more address of a known one, or an adapter.

    What is registered already, at the same address too, is changed where `external` says something. `Conflict` if the
    name means something else, `BadRequest` for what cannot be, `NotFound` for an adapter of nothing.
    """
    check_external(external)
    models = await list_models(session)
    known = next((model for model in models if model.id == external.name), None)
    taken = {alias for model in models for alias in model.aliases} | EMBEDDED_NAMES
    if known is None and external.name in taken:
        raise Conflict(f"A model or alias '{external.name}' exists already; choose another name.", param="name")
    base = None if external.adapter_of is None else await find_model(session, external.adapter_of)
    model = registered(external, known, base, clock.now())
    if model != known:
        action = "model.added" if known is None else "model.changed"
        await _write(session, model)
        await append(session, [_entry(action, actor, model, clock)])
    return model


async def remove_model(session: AsyncSession, actor: Actor, name: str, clock: Clock) -> Model:
    """Take another server's model out of the catalogue; its records stay.

    `NotFound` if it is not there, `Conflict` while it has adapters, `BadRequest` for an embedded one.
    """
    model = await _external(session, name)
    adapters = [each.id for each in await list_models(session) if each.adapter_of == model.id]
    if adapters:
        raise Conflict(f"'{model.id}' is the base of {', '.join(adapters)}: remove these first.", param="name")
    await session.execute(delete(AddressRow).where(AddressRow.model_id == model.id))
    await session.delete(await session.get_one(CatalogueRow, model.id))
    await append(session, [_entry("model.removed", actor, model, clock)])
    return model


async def remove_address(session: AsyncSession, actor: Actor, name: str, url: str, clock: Clock) -> Model:
    """The model without the address `url`; `Conflict` if it has no other, `BadRequest` if it has not this one."""
    model = without_address(await _external(session, name), url)
    await _write(session, model)
    await append(session, [_entry("model.changed", actor, model, clock)])
    return model


async def _external(session: AsyncSession, name: str) -> Model:
    model = await find_model(session, name)
    if model.engine != "openai":
        raise BadRequest(f"'{model.id}' is embedded in this installation and cannot be removed.", param="name")
    return model


async def _write(session: AsyncSession, model: Model) -> None:
    await session.merge(_row(model))
    await session.flush()
    if model.adapter_of is not None:
        return
    kept = [address.id for address in model.addresses]
    await session.execute(delete(AddressRow).where(AddressRow.model_id == model.id, AddressRow.id.not_in(kept)))
    for address in model.addresses:
        values = {name: getattr(address, name) for name in _ADDRESS_FIELDS}
        await session.merge(AddressRow(model_id=model.id, **values))
    await session.flush()


def _address(row: AddressRow) -> Address:
    return Address(**{name: getattr(row, name) for name in _ADDRESS_FIELDS})


def _model(row: CatalogueRow, addresses: tuple[Address, ...]) -> Model:
    values: dict[str, Any] = {name: getattr(row, name) for name in _MODEL_FIELDS}
    values["aliases"] = tuple(row.aliases)
    values["capabilities"] = frozenset(row.capabilities)
    return Model(**values, addresses=addresses)


def _row(model: Model) -> CatalogueRow:
    values: dict[str, Any] = {name: getattr(model, name) for name in _MODEL_FIELDS}
    values["aliases"] = list(model.aliases)
    values["capabilities"] = sorted(model.capabilities)
    return CatalogueRow(**values)


def _entry(action: str, actor: Actor, model: Model, clock: Clock) -> Entry:
    detail = {"version": model.version, "engine": model.engine, "zone": ", ".join(sorted(model.zones))}
    resource = f"model:{model.id}@{model.version}"
    return Entry(action=action, actor=actor, resource=resource, outcome="done", at=clock.now(), detail=detail)
