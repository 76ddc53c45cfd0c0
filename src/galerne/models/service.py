"""Use cases of the catalogue. None of them commits."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import SYSTEM, Actor
from galerne.journal import Entry, append
from galerne.kernel import BadRequest, Clock, Conflict, NotFound
from galerne.models.catalogue import (
    CHAT_CAPABILITIES,
    EMBEDDING_CAPABILITIES,
    ExternalModel,
    Model,
    base_url,
    check_external,
)
from galerne.models.embedded import EMBEDDED_NAMES
from galerne.models.tables import CatalogueRow


async def list_models(session: AsyncSession) -> list[Model]:
    """Every model of the catalogue, by name."""
    rows = (await session.scalars(select(CatalogueRow).order_by(CatalogueRow.id))).all()
    return [_model(row) for row in rows]


async def find_model(session: AsyncSession, name: str) -> Model:
    """The model with that id, or else with that alias; raises `NotFound` (`model_not_found`)."""
    models = await list_models(session)
    by_name = {alias: model for model in models for alias in model.aliases} | {model.id: model for model in models}
    if name not in by_name:
        raise NotFound(
            f"The model '{name[:100]}' does not exist, or not for you. GET /v1/models lists what there is.",
            code="model_not_found",
            param="model",
        )
    return by_name[name]


async def publish_embedded(session: AsyncSession, models: Sequence[Model], clock: Clock) -> None:
    """Make the catalogue say what this installation's own engines run; new versions are recorded in the journal."""
    for model in models:
        row = await session.get(CatalogueRow, model.id)
        if row is not None and row.engine == "openai":
            raise Conflict(
                f"Another server's model is registered as '{model.id}', the name of the embedded one: remove it first."
            )
        if row is None or _model(row) != model:
            await session.merge(_row(model))
            await append(session, [_entry("model.published", SYSTEM, model, clock)])


async def add_external(session: AsyncSession, actor: Actor, external: ExternalModel, clock: Clock) -> Model:
    """Register a model that another server runs; `Conflict` if the name is taken, `BadRequest` for what cannot be."""
    check_external(external)
    taken = {name for model in await list_models(session) for name in (model.id, *model.aliases)} | EMBEDDED_NAMES
    if external.name in taken:
        raise Conflict(
            f"A model or alias '{external.name}' exists already; remove it first or choose another name.", param="name"
        )
    model = Model(
        id=external.name,
        version=external.upstream_model or external.name,
        kind=external.kind,
        engine="openai",
        aliases=(),
        context_length=external.context_length,
        capabilities=EMBEDDING_CAPABILITIES if external.kind == "embedding" else CHAT_CAPABILITIES,
        upstream_model=external.upstream_model or external.name,
        url=base_url(external.url),
        api_key_env=external.api_key_env,
        api_key_file=external.api_key_file,
        zone=external.zone,
        licence=external.licence,
        owned_by="external",
        created_at=clock.now(),
        description=external.description,
    )
    session.add(_row(model))
    await session.flush()
    await append(session, [_entry("model.added", actor, model, clock)])
    return model


async def remove_model(session: AsyncSession, actor: Actor, name: str, clock: Clock) -> Model:
    """Take another server's model out of the catalogue; its records stay. `NotFound` if it is not there."""
    model = await find_model(session, name)
    if model.engine != "openai":
        raise BadRequest(f"'{model.id}' is embedded in this installation and cannot be removed.", param="name")
    await session.delete(await session.get_one(CatalogueRow, model.id))
    await append(session, [_entry("model.removed", actor, model, clock)])
    return model


def _model(row: CatalogueRow) -> Model:
    values: dict[str, Any] = {field.name: getattr(row, field.name) for field in fields(Model)}
    values["aliases"] = tuple(row.aliases)
    values["capabilities"] = frozenset(row.capabilities)
    return Model(**values)


def _row(model: Model) -> CatalogueRow:
    values: dict[str, Any] = {field.name: getattr(model, field.name) for field in fields(Model)}
    values["aliases"] = list(model.aliases)
    values["capabilities"] = sorted(model.capabilities)
    return CatalogueRow(**values)


def _entry(action: str, actor: Actor, model: Model, clock: Clock) -> Entry:
    detail = {"version": model.version, "engine": model.engine, "zone": model.zone}
    resource = f"model:{model.id}@{model.version}"
    return Entry(action=action, actor=actor, resource=resource, outcome="done", at=clock.now(), detail=detail)
