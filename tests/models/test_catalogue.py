from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from galerne.governance import SYSTEM
from galerne.kernel import BadRequest, Conflict, Database, ManualClock, NotFound
from galerne.models import ExternalModel, Model, add_external, find_model, list_models, publish_embedded, remove_model
from galerne.models.catalogue import base_url

CLOCK = ManualClock(datetime(2026, 11, 23, tzinfo=UTC))
EXTERNAL = ExternalModel(name="big", url="http://gpu1:8000", upstream_model="org/Big-70B", api_key_env="BIG_KEY")
EMBEDDED = Model(
    id="brise",
    version="1",
    kind="chat",
    engine="llamacpp",
    aliases=("brise-latest",),
    context_length=2048,
    capabilities=frozenset({"completion_chat"}),
    upstream_model="brise",
    zone="on-prem",
    licence="CC-BY-SA-4.0",
    owned_by="galerne",
    created_at=CLOCK.current,
    description="",
)


async def test_an_added_model_is_found_as_it_was_registered(database: Database) -> None:
    async with database.transaction() as session:
        added = await add_external(session, SYSTEM, EXTERNAL, CLOCK)
    async with database.reading() as session:
        found = await find_model(session, "big")
    assert found == added
    assert found.upstream_model == "org/Big-70B"
    assert [(each.url, each.api_key_env, each.zone) for each in found.addresses] == [
        ("http://gpu1:8000/v1", "BIG_KEY", "on-prem")
    ]


@pytest.mark.parametrize("alias", ["brise-latest", "brise-\u00e9t\u00e9", 'a "b" \\c', "%", "'"])
async def test_a_model_is_found_by_its_alias_too(database: Database, alias: str) -> None:
    named = replace(EMBEDDED, aliases=("other", alias))
    async with database.transaction() as session:
        await publish_embedded(session, [named], CLOCK)
        assert await find_model(session, alias) == named


async def test_a_models_own_name_goes_before_an_alias_of_another(database: Database) -> None:
    named = replace(EMBEDDED, id="brise-latest", aliases=())
    async with database.transaction() as session:
        await publish_embedded(session, [EMBEDDED, named], CLOCK)
        assert await find_model(session, "brise-latest") == named


@pytest.mark.parametrize("name", ["", "bris", "brise\x00", "\ud800", "x" * 100_000, '["brise-latest"]'])
async def test_a_name_that_means_nothing_is_not_found(database: Database, name: str) -> None:
    async with database.transaction() as session:
        await publish_embedded(session, [EMBEDDED], CLOCK)
        with pytest.raises(NotFound):
            await find_model(session, name)


async def test_publishing_the_same_again_writes_nothing_and_a_new_version_is_journalled(database: Database) -> None:
    async with database.transaction() as session:
        for model in (EMBEDDED, EMBEDDED, replace(EMBEDDED, version="2")):
            await publish_embedded(session, [model], CLOCK)
        resources = (await session.execute(text("SELECT resource FROM journal_leaves ORDER BY seq"))).scalars().all()
        assert resources == ["model:brise@1", "model:brise@2"]
        assert [model.version for model in await list_models(session)] == ["2"]


@pytest.mark.parametrize("name", ["brise", "brise-latest"])
async def test_a_name_or_alias_that_is_taken_is_a_conflict(name: str, database: Database) -> None:
    async with database.transaction() as session:
        await publish_embedded(session, [EMBEDDED], CLOCK)
        with pytest.raises(Conflict, match=name):
            await add_external(session, SYSTEM, replace(EXTERNAL, name=name), CLOCK)


@pytest.mark.parametrize(
    ("external", "field"),
    [
        (replace(EXTERNAL, name=""), "name"),
        (replace(EXTERNAL, name="a b"), "name"),
        (replace(EXTERNAL, url="gpu1:8000"), "url"),
        (replace(EXTERNAL, url="ftp://gpu1"), "url"),
        (replace(EXTERNAL, url="http://user:secret@gpu1"), "url"),
        (replace(EXTERNAL, api_key_env="sk-live-123"), "api_key_env"),
        (replace(EXTERNAL, api_key_file="/run/key"), "api_key_file"),
        (replace(EXTERNAL, context_length=0), "context_length"),
        (replace(EXTERNAL, url=f"http://{'a' * 2_000}"), "url"),
        (replace(EXTERNAL, url=None), "url"),
        (replace(EXTERNAL, adapter_of="brise"), "url"),
        (replace(EXTERNAL, most_parallel=0), "most_parallel"),
        (replace(EXTERNAL, zone="E U"), "zone"),
        (ExternalModel(name="lora", adapter_of="big", zone="eu"), "zone"),
        (ExternalModel(name="lora", adapter_of="big", most_parallel=1), "most_parallel"),
    ],
)
async def test_a_model_that_cannot_be_is_refused_naming_the_field(
    external: ExternalModel, field: str, database: Database
) -> None:
    async with database.transaction() as session:
        with pytest.raises(BadRequest) as refusal:
            await add_external(session, SYSTEM, external, CLOCK)
        assert refusal.value.param == field
        assert "secret" not in refusal.value.message or field == "url"
        assert "sk-live-123" not in refusal.value.message
        assert await list_models(session) == []


async def test_a_removed_model_is_gone_and_the_embedded_one_cannot_be_removed(database: Database) -> None:
    async with database.transaction() as session:
        await publish_embedded(session, [EMBEDDED], CLOCK)
        await add_external(session, SYSTEM, EXTERNAL, CLOCK)
        await remove_model(session, SYSTEM, "big", CLOCK)
        with pytest.raises(NotFound) as gone:
            await find_model(session, "big")
        with pytest.raises(BadRequest, match="embedded"):
            await remove_model(session, SYSTEM, "brise", CLOCK)
    assert (gone.value.code, gone.value.param) == ("model_not_found", "model")


@given(st.sampled_from(["http://h", "http://h/", "http://h/v1", "http://h/v1/", "https://h:1/x/v1//"]))
def test_an_address_always_ends_in_its_version(url: str) -> None:
    assert base_url(base_url(url)) == base_url(url)
    assert base_url(url).endswith("/v1")
