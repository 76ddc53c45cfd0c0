"""Usage over HTTP: Mistral's admin path, OpenAI's path with OpenAI's own client, and who sees what."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from openai import AsyncOpenAI

from galerne.governance import Actor, ActorKind, Permission
from galerne.kernel import Database, ManualClock
from galerne.metering.routes import router
from tests.journal.serving import Server
from tests.metering.events import NOON, event
from tests.metering.test_service import fill

READER = Actor(ActorKind.API_KEY, "key-1", "org-1", None, frozenset({Permission.USAGE_READ}))
NOON_S = int(NOON.timestamp())


@pytest.fixture
async def server(database: Database) -> AsyncGenerator[Server]:
    server = Server(router, database, ManualClock(NOON), READER)
    async with server.client:
        yield server


async def test_usage_shows_sums_models_and_the_latest_requests(server: Server, database: Database) -> None:
    await fill(database, event(1), event(2, model="large"), event(3, organisation_id="org-2"))
    answer = await server.get("/v1/admin/usage")
    assert answer["object"] == "usage"
    sums = {"requests": 2, "input_tokens": 20, "cached_tokens": 6, "output_tokens": 10, "total_tokens": 36}
    assert answer["totals"] == sums
    assert [model["model"] for model in answer["by_model"]] == ["brise", "large"]
    assert [one["id"] for one in answer["data"]] == [event(2).id, event(1).id]
    assert answer["has_more"] is False
    assert answer["data"][1] == {
        "object": "usage.event",
        "id": event(1).id,
        "workspace_id": None,
        "api_key_id": "key-1",
        "model": "brise",
        "model_version": "brise-1",
        "endpoint": "chat.completions",
        "dialect": "openai",
        "input_tokens": 10,
        "cached_tokens": 3,
        "output_tokens": 5,
        "total_tokens": 18,
        "estimated": False,
        "streamed": True,
        "partial": False,
        "outcome": "completed",
        "finish_reason": "stop",
        "status": 200,
        "started_at": "2026-11-23T12:00:01Z",
        "queue_ms": 0.1,
        "ttft_ms": 12.5,
        "total_ms": 80.25,
    }


async def test_pages_are_walked_with_last_id(server: Server, database: Database) -> None:
    await fill(database, *(event(number) for number in range(5)))
    first = await server.get("/v1/admin/usage", limit=3)
    second = await server.get("/v1/admin/usage", limit=3, after=first["last_id"])
    assert first["has_more"]
    assert not second["has_more"]
    assert [one["id"] for one in first["data"] + second["data"]] == [event(number).id for number in (4, 3, 2, 1, 0)]


async def test_time_is_a_month_or_a_range_in_iso_or_unix_time(server: Server, database: Database) -> None:
    october = datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC)
    await fill(
        database, event(1, started_at=october), event(2), event(3, started_at=datetime(2025, 12, 31, tzinfo=UTC))
    )

    async def found(**query: Any) -> list[int]:
        return [int(one["id"], 16) for one in (await server.get("/v1/admin/usage", **query))["data"]]

    assert await found(month=10, year=2026) == [1]
    assert await found(month=11) == [2]
    assert await found(year=2026) == [2, 1]
    assert await found(month=12, year=2025) == [3]
    assert await found(start="2026-11-01", end="2026-12-01T00:00:00Z") == [2]
    assert await found(start="2026-11-23T12:00:02") == [2]
    assert await found(end=NOON_S + 2) == [1, 3]
    assert await server.status("/v1/admin/usage", month=1, start=1) == 400


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1001}, {"month": 13}, {"start": "soon"}, {"colour": "blue"}])
async def test_a_query_that_means_nothing_is_refused(server: Server, query: dict[str, Any]) -> None:
    assert await server.status("/v1/admin/usage", **query) == 422


async def test_a_key_of_one_workspace_sees_that_workspace_only(server: Server, database: Database) -> None:
    await fill(database, event(1), event(2, workspace_id="space"), event(3, workspace_id="other"))
    assert (await server.get("/v1/admin/usage", workspace_id="other"))["totals"]["requests"] == 1
    server.actor = replace(READER, workspace_id="space")
    assert [one["id"] for one in (await server.get("/v1/admin/usage"))["data"]] == [event(2).id]
    assert (await server.get("/v1/admin/usage", workspace_id="space"))["totals"]["requests"] == 1
    assert await server.status("/v1/admin/usage", workspace_id="other") == 403
    buckets = await server.get("/v1/organization/usage/completions", start_time=NOON_S, end_time=NOON_S + 60)
    assert buckets["data"][0]["results"][0]["num_model_requests"] == 1
    assert await server.status("/v1/organization/usage/completions", start_time=NOON_S, project_ids="other") == 403


async def test_usage_needs_its_permission(server: Server) -> None:
    server.actor = replace(READER, permissions=frozenset({Permission.INFERENCE_RUN}))
    for path in ("/v1/admin/usage", "/v1/organization/usage/completions?start_time=0"):
        assert await server.status(path) == 403


async def test_openais_client_reads_its_own_shape(server: Server, database: Database) -> None:
    await fill(database, event(1), event(2, model="large"), event(4, endpoint="embeddings", output_tokens=0))
    client = AsyncOpenAI(
        api_key="key", admin_api_key="key", base_url="http://galerne/v1", http_client=server.client, max_retries=0
    )
    usage = client.admin.organization.usage
    page = await usage.completions(
        start_time=NOON_S - 3600,
        end_time=NOON_S + 3600,
        bucket_width="1h",
        group_by=["model"],
        models=["brise", "large"],
    )
    assert [(bucket.start_time, bucket.end_time) for bucket in page.data] == [
        (NOON_S - 3600, NOON_S),
        (NOON_S, NOON_S + 3600),
    ]
    results: list[Any] = [result.model_dump() for result in page.data[1].results]
    assert [result["model"] for result in results] == ["brise", "large"]
    assert results[0]["object"] == "organization.usage.completions.result"
    # OpenAI counts cached tokens as a part of the input.
    assert (results[0]["input_tokens"], results[0]["input_cached_tokens"], results[0]["output_tokens"]) == (13, 3, 5)
    first = await usage.embeddings(start_time=NOON_S - 60, end_time=NOON_S + 60, bucket_width="1m", limit=1)
    assert first.has_more
    assert first.next_page is not None
    second = await usage.embeddings(
        start_time=NOON_S - 60, end_time=NOON_S + 60, bucket_width="1m", limit=1, page=first.next_page
    )
    assert (second.has_more, second.data[0].results[0].object) == (False, "organization.usage.embeddings.result")


async def test_buckets_are_days_until_now_unless_asked_otherwise(server: Server, database: Database) -> None:
    await fill(database, event(0))
    answer = await server.get("/v1/organization/usage/completions", start_time=NOON_S - 86_400)
    assert [len(bucket["results"]) for bucket in answer["data"]] == [0, 1]
    assert answer["data"][1]["end_time"] == NOON_S + 1


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 422),
        ({"start_time": 0, "bucket_width": "1w"}, 422),
        ({"start_time": 0, "group_by": "user_id"}, 422),
        ({"start_time": 0, "limit": 32}, 400),
        ({"start_time": 0, "bucket_width": "1m", "limit": 1441}, 400),
        ({"start_time": 0, "page": "next"}, 422),
    ],
)
async def test_buckets_that_cannot_be_are_refused(server: Server, query: dict[str, Any], status: int) -> None:
    assert await server.status("/v1/organization/usage/completions", **query) == status
