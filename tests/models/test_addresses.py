import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from galerne.governance import SYSTEM
from galerne.kernel import BadRequest, Conflict, Database, GalerneError, ManualClock, NotFound
from galerne.models import (
    ExternalModel,
    Model,
    add_external,
    find_model,
    list_models,
    publish_embedded,
    remove_address,
    remove_model,
)
from galerne.models.registration import registered, without_address
from tests.models.test_catalogue import EMBEDDED

NOW = datetime(2026, 11, 23, tzinfo=UTC)
CLOCK = ManualClock(NOW)
FIRST = ExternalModel(name="big", url="http://gpu1:8000", upstream_model="org/Big-70B", api_key_env="BIG_KEY")
SECOND = ExternalModel(name="big", url="http://gpu2:8000", zone="fr", most_parallel=64)
LORA = ExternalModel(name="legal", adapter_of="big", upstream_model="legal-lora")


async def added(session: AsyncSession, *externals: ExternalModel) -> list[Model]:
    return [await add_external(session, SYSTEM, each, CLOCK) for each in externals]


def in_memory(*externals: ExternalModel) -> dict[str, Model]:
    models: dict[str, Model] = {}
    for each in externals:
        base = None if each.adapter_of is None else models[each.adapter_of]
        models[each.name] = registered(each, models.get(each.name), base, NOW)
    return models


async def test_the_same_name_with_another_url_adds_an_address(database: Database) -> None:
    async with database.transaction() as session:
        await added(session, FIRST, SECOND)
    async with database.reading() as session:
        found = await find_model(session, "big")
    assert {(each.url, each.zone, each.most_parallel, each.api_key_env) for each in found.addresses} == {
        ("http://gpu1:8000/v1", "on-prem", None, "BIG_KEY"),
        ("http://gpu2:8000/v1", "fr", 64, None),
    }
    assert found.upstream_model == "org/Big-70B"
    assert found.zones == {"on-prem", "fr"}
    assert found.zone is None


async def test_the_same_url_changes_what_is_said_and_leaves_the_rest(database: Database) -> None:
    async with database.transaction() as session:
        before = (await added(session, FIRST, SECOND))[-1]
        after = (await added(session, ExternalModel(name="big", url="http://gpu1:8000/v1/", most_parallel=8)))[-1]
        assert await find_model(session, "big") == after
    assert [address.id for address in after.addresses] == [address.id for address in before.addresses]
    assert after.addresses[0] == replace(before.addresses[0], most_parallel=8)
    assert after.addresses[1] == before.addresses[1]


async def test_registering_what_is_registered_writes_nothing_and_a_change_is_journalled(database: Database) -> None:
    async with database.transaction() as session:
        await added(session, FIRST, FIRST, SECOND, SECOND)
        await remove_address(session, SYSTEM, "big", "http://gpu1:8000", CLOCK)
        actions = (await session.execute(text("SELECT action FROM journal_leaves ORDER BY seq"))).scalars().all()
    assert actions == ["model.added", "model.changed", "model.changed"]


async def test_an_adapter_runs_where_its_base_does_and_has_no_row_of_an_address(database: Database) -> None:
    async with database.transaction() as session:
        _, legal, _ = await added(session, FIRST, LORA, SECOND)
        big, found = await find_model(session, "big"), await find_model(session, "legal")
        rows = (await session.execute(text("SELECT model_id FROM model_addresses"))).scalars().all()
    assert (legal.adapter_of, legal.kind, legal.upstream_model) == ("big", "chat", "legal-lora")
    assert found.addresses == big.addresses
    assert len(found.addresses) == 2
    assert set(rows) == {"big"}


async def test_a_base_stays_while_it_has_adapters(database: Database) -> None:
    async with database.transaction() as session:
        await added(session, FIRST, LORA)
        with pytest.raises(Conflict, match="legal"):
            await remove_model(session, SYSTEM, "big", CLOCK)
        await remove_model(session, SYSTEM, "legal", CLOCK)
        await remove_model(session, SYSTEM, "big", CLOCK)
        assert await list_models(session) == []
        assert (await session.execute(text("SELECT count(*) FROM model_addresses"))).scalar_one() == 0


async def test_an_address_can_be_removed_but_not_the_last_one(database: Database) -> None:
    async with database.transaction() as session:
        await added(session, FIRST, SECOND)
        await remove_address(session, SYSTEM, "big", "http://gpu1:8000", CLOCK)
        assert [each.url for each in (await find_model(session, "big")).addresses] == ["http://gpu2:8000/v1"]
        with pytest.raises(Conflict, match="only address"):
            await remove_address(session, SYSTEM, "big", "http://gpu2:8000", CLOCK)


@pytest.mark.parametrize(
    ("external", "refusal", "field"),
    [
        (ExternalModel(name="brise", url="http://gpu1"), Conflict, "name"),
        (ExternalModel(name="brise-latest", url="http://gpu1"), Conflict, "name"),
        (replace(SECOND, kind="embedding"), Conflict, "kind"),
        (replace(SECOND, upstream_model="other"), Conflict, "upstream_model"),
        (ExternalModel(name="big", adapter_of="legal"), BadRequest, "adapter_of"),
        (ExternalModel(name="legal", url="http://gpu3"), Conflict, "name"),
        (ExternalModel(name="other", adapter_of="brise"), BadRequest, "adapter_of"),
        (ExternalModel(name="other", adapter_of="legal"), BadRequest, "adapter_of"),
        (ExternalModel(name="other", adapter_of="big", kind="embedding"), BadRequest, "kind"),
        (ExternalModel(name="other", adapter_of="nothing"), NotFound, "model"),
    ],
)
async def test_what_contradicts_the_catalogue_is_refused(
    external: ExternalModel, refusal: type[GalerneError], field: str, database: Database
) -> None:
    async with database.transaction() as session:
        await publish_embedded(session, [EMBEDDED], CLOCK)
        await added(session, FIRST, LORA)
        before = await list_models(session)
        with pytest.raises(refusal) as refused:
            await added(session, external)
        assert refused.value.param == field
        assert await list_models(session) == before


def test_the_upstream_name_may_change_while_there_is_one_address() -> None:
    assert in_memory(FIRST, replace(FIRST, upstream_model="org/Big-72B"))["big"].version == "org/Big-72B"


@pytest.mark.parametrize("url", ["http://gpu9", "http://gpu1:8000/v1/other"])
def test_an_address_that_is_none_of_the_models_cannot_be_removed(url: str) -> None:
    with pytest.raises(BadRequest, match="no address"):
        without_address(in_memory(FIRST, SECOND)["big"], url)
    with pytest.raises(BadRequest, match="of its own"):
        without_address(in_memory(FIRST, LORA)["legal"], "http://gpu1:8000")


@given(st.permutations(["http://a", "http://b", "http://c/v1", "http://a/v1", "http://b/v1/"]))
def test_however_often_and_in_whatever_order_an_address_is_registered_it_is_one(urls: Sequence[str]) -> None:
    model = in_memory(*(ExternalModel(name="m", url=url) for url in urls))["m"]
    assert {address.url for address in model.addresses} == {"http://a/v1", "http://b/v1", "http://c/v1"}
    assert len({address.id for address in model.addresses}) == len(model.addresses) == 3


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[str]:
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'old.db'}"
        return
    address = str(request.getfixturevalue("postgresql_server"))
    connection = await asyncpg.connect(address.format(name="postgres").replace("+asyncpg", ""))
    await connection.execute("CREATE DATABASE before_addresses")
    yield address.format(name="before_addresses")
    await connection.execute("DROP DATABASE before_addresses")
    await connection.close()


async def test_models_of_before_keep_their_address_their_key_and_their_checks(empty_url: str) -> None:
    config = Config()
    config.set_main_option("script_location", "galerne:migrations")
    config.attributes["url"] = empty_url
    await asyncio.to_thread(command.upgrade, config, "0003")
    database = Database(empty_url)
    try:
        async with database.transaction() as session:
            await session.execute(text(BEFORE), {"now": NOW if "postgresql" in empty_url else "2026-11-23 00:00:00"})
        await database.migrate()
        async with database.reading() as session:
            old = {model.id: model for model in await list_models(session)}
        (address,) = old["old"].addresses
        assert (address.url, address.zone, address.api_key_env, address.created_at) == (
            "http://gpu1/v1",
            "eu",
            "OLD_KEY",
            NOW,
        )
        assert (old["old"].zone, old["inside"].zone, old["inside"].addresses) == (None, "fr", ())
        async with database.transaction() as session:
            changed = (await added(session, ExternalModel(name="old", url="http://gpu1", most_parallel=2)))[-1]
            assert changed.addresses == (replace(address, most_parallel=2),)
        for wrong in ("kind = 'x'", "engine = 'x'", "context_length = 0", "adapter_of = id", "adapter_of = 'none'"):
            with pytest.raises(Exception, match=r"(?i)constraint"):
                async with database.transaction() as session:
                    await session.execute(text(f"UPDATE models SET {wrong}"))
    finally:
        await database.close()


_COLUMNS = (
    "id, version, kind, engine, aliases, capabilities, upstream_model, url, api_key_env, zone, licence, owned_by, "
    "description, created_at"
)
BEFORE = (
    f"INSERT INTO models ({_COLUMNS}) VALUES "
    "('old', 'o', 'chat', 'openai', '[]', '[]', 'o', 'http://gpu1/v1', 'OLD_KEY', 'eu', 'x', 'external', '', :now), "
    "('inside', 'i', 'chat', 'llamacpp', '[]', '[]', 'i', NULL, NULL, 'fr', 'x', 'galerne', '', :now)"
)
