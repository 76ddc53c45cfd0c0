"""Costs on both databases: sums by anything, pages, files that are exact, and nobody else's."""

import csv
import io
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from galerne.apps.commands import usage as usage_command
from galerne.apps.refusals import install_refusals
from galerne.billing import NewRates, rate_batch, set_rates
from galerne.billing.budgets import set_cost_centre
from galerne.billing.costs import (
    Cost,
    CostQuery,
    cost_groups,
    costs_page,
    costs_router,
    files,
    stream_costs,
    write_costs,
)
from galerne.billing.costs.query import names_before, page_after
from galerne.governance import SYSTEM, Permission
from galerne.identity import NewWorkspace, create_workspace
from galerne.kernel import BadRequest, Database, Unprocessable
from galerne.metering import record
from galerne.models import ExternalModel, add_external
from tests.identity.tenants import NOW, Tenants, two_tenants
from tests.journal.serving import Server
from tests.metering.events import event

parquet: Any = import_module("pyarrow.parquet")  # which has no types
ALL = CostQuery(organisation_id=None)


@pytest.fixture
async def tenants(database: Database) -> Tenants:
    """The stranger used `large` on two days by two keys, one of them of a workspace; the operator used it once."""
    tenants = await two_tenants(database)
    new = NewRates(
        currency="EUR",
        input_nano_per_million=1_000_003,
        cached_nano_per_million=100_000,
        output_nano_per_million=3_000_000,
    )
    async with database.transaction() as session:
        for name in ("large", "small"):
            await add_external(session, SYSTEM, ExternalModel(name=name, url="http://127.0.0.1:9/v1"), tenants.clock)
            await set_rates(session, SYSTEM, name, new, tenants.ids, tenants.clock)
        workspace = await create_workspace(
            session, tenants.stranger, NewWorkspace(name="risk"), tenants.ids, tenants.clock
        )
        await set_cost_centre(session, tenants.stranger, ("workspace", workspace.id), "desk", tenants.clock)
    whose = {"organisation_id": tenants.stranger.organisation_id, "model": "large"}
    at = NOW + timedelta(hours=1)
    events = [
        event(1, **whose, key_id="a", started_at=at, input_tokens=10**6, cached_tokens=7, output_tokens=11),
        event(2, **whose, key_id="b", started_at=at, input_tokens=5, workspace_id=workspace.id),
        event(3, **whose | {"model": "small"}, key_id="a", started_at=at + timedelta(days=1), input_tokens=10**9),
        event(4, organisation_id=tenants.operator.organisation_id, model="large", key_id="o", started_at=at),
    ]
    async with database.transaction() as session:
        await record(session, events)
    async with database.transaction() as session:
        await rate_batch(session, tenants.clock, after="")
    return tenants


@pytest.fixture
async def server(tenants: Tenants) -> AsyncGenerator[Server]:
    server = Server(costs_router, tenants.database, tenants.clock, tenants.stranger)
    install_refusals(server.app)
    async with server.client:
        yield server


async def costs(tenants: Tenants, **query: Any) -> list[Cost]:
    async with tenants.database.reading() as session:
        return (await costs_page(session, replace(ALL, **query), 1000))[0]


async def test_costs_are_summed_by_what_is_asked(tenants: Tenants) -> None:
    own = {"organisation_id": tenants.stranger.organisation_id}
    by_day = await costs(tenants, **own, group_by=["day", "model"])
    assert [each.names for each in by_day] == [("2026-11-23", "large", "EUR"), ("2026-11-24", "small", "EUR")]
    assert (by_day[0].input_tokens, by_day[0].cached_tokens, by_day[0].output_tokens) == (1_000_005, 10, 16)
    assert by_day[1].nano == 1_000_003_000 + 15
    by_centre = await costs(tenants, **own, group_by=["cost_centre"])
    assert [(each.names[0], each.input_tokens) for each in by_centre] == [(None, 1_001_000_000), ("desk", 5)]
    by_class = await costs(tenants, **own, group_by=["token_class"], models=["large"])
    assert [(each.names[0], each.quantity, each.requests) for each in by_class] == [
        ("cached", 10, 2),
        ("input", 1_000_005, 2),
        ("output", 16, 2),
    ]
    assert by_day[0].requests is None
    assert [each.input_tokens for each in await costs(tenants, **own, cost_centres=["desk"])] == [5]
    assert [each.names[0] for each in await costs(tenants, group_by=["organisation_id"])] == sorted(
        [tenants.operator.organisation_id, tenants.stranger.organisation_id]
    )
    later = NOW + timedelta(hours=12)
    assert [each.names[0] for each in await costs(tenants, **own, since=later, group_by=["model"])] == ["small"]
    assert [each.names[0] for each in await costs(tenants, **own, until=later, group_by=["api_key_id"])] == ["a", "b"]


async def test_pages_are_the_whole_in_its_order(tenants: Tenants) -> None:
    query = replace(ALL, group_by=["day", "api_key_id", "token_class"])
    async with tenants.database.reading() as session:
        whole = [each async for each in stream_costs(session, query)]
        pages, page = list[Cost](), None
        while True:
            found, page = await costs_page(session, query, 2, page)
            pages += found
            if page is None:
                break
        with pytest.raises(BadRequest):
            await costs_page(session, query, 2, page_after(["2026"]))
    assert pages == whole == sorted(whole, key=lambda cost: [name or "" for name in cost.names])


async def test_over_http_everyone_sees_the_costs_of_their_own(server: Server, tenants: Tenants) -> None:
    answer = await server.get("/v1/usage/costs", group_by=["model", "day"], limit=1)
    assert (answer["has_more"], answer["data"][0]["model"], answer["data"][0]["day"]) == (True, "large", "2026-11-23")
    rest = await server.get("/v1/usage/costs", group_by=["model", "day"], limit=1, page=answer["next_page"])
    assert (rest["has_more"], rest["data"][0]["cost"]) == (False, "1.000003015")
    assert rest["data"][0]["workspace_id"] is None
    server.actor = tenants.operator
    assert (await server.get("/v1/usage/costs"))["data"][0]["input_tokens"] == 10
    server.actor = replace(tenants.stranger, workspace_id="risk")
    assert (await server.get("/v1/usage/costs"))["data"] == []
    assert await server.status("/v1/usage/costs", workspace_id="another") == 403
    server.actor = replace(tenants.stranger, permissions=frozenset({Permission.INFERENCE_RUN}))
    assert await server.status("/v1/usage/costs") == 403


@pytest.mark.parametrize(
    "bad",
    [
        {"group_by": "colour"},
        {"limit": 0},
        {"limit": 1001},
        {"page": "%"},
        {"page": "W10"},
        {"page": "bnVsbA"},
        {"x": 1},
    ],
)
async def test_what_cannot_be_asked_is_refused(server: Server, bad: dict[str, Any]) -> None:
    assert await server.status("/v1/usage/costs", **bad) == 400


async def written(tenants: Tenants, to: Path, form: Any) -> Path:
    query = replace(ALL, group_by=["api_key_id", "day"])
    async with tenants.database.reading() as session:
        assert await write_costs(stream_costs(session, query), query, to, form) == 4
    return to


async def test_the_three_formats_hold_the_same_exact_sums(tenants: Tenants, tmp_path: Path) -> None:
    expected = [
        (cost.names[:2], Decimal(cost.nano) / 10**9) for cost in await costs(tenants, group_by=["api_key_id", "day"])
    ]
    text = (await written(tenants, tmp_path / "c.csv", "csv")).read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [((row["api_key_id"], row["day"]), Decimal(row["cost"])) for row in rows] == expected
    lines = (await written(tenants, tmp_path / "c.ndjson", "ndjson")).read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [((row["api_key_id"], row["day"]), Decimal(row["cost"])) for row in found] == expected
    table = parquet.read_table(await written(tenants, tmp_path / "c.parquet", "parquet"))
    assert str(table.schema.field("cost").type) == "decimal128(38, 9)"
    assert [((row["api_key_id"], row["day"]), row["cost"]) for row in table.to_pylist()] == expected
    assert {path.name for path in tmp_path.glob("c*")} == {"c.csv", "c.ndjson", "c.parquet"}  # noqa: ASYNC240  # a test's folder


async def many(count: int) -> AsyncGenerator[Cost]:
    for number in range(count):
        names = (f"=cmd{number}", "EUR")
        yield Cost(names=names, input_tokens=0, cached_tokens=0, output_tokens=0, nano=-number)


async def test_long_files_are_written_in_parts_and_appear_whole(tmp_path: Path) -> None:
    query, path = replace(ALL, group_by=["model"]), tmp_path / "c.parquet"
    assert await write_costs(many(12_000), query, path, "parquet") == 12_000
    assert parquet.ParquetFile(path).num_row_groups == 3
    assert parquet.read_table(path).column("cost")[11_999].as_py() == Decimal("-0.000011999")

    async def broken() -> AsyncGenerator[Cost]:
        async for each in many(3):
            yield each
        raise BadRequest("the rest cannot be read")

    with pytest.raises(BadRequest):
        await write_costs(broken(), query, tmp_path / "d.csv", "csv")
    assert [path.name for path in tmp_path.glob("[cd]*")] == ["c.parquet"]  # noqa: ASYNC240  # a test's folder


async def test_a_spreadsheet_runs_no_name_as_a_formula(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    await write_costs(many(2), replace(ALL, group_by=["model"]), buffer, "csv")
    assert buffer.getvalue().decode().splitlines()[1:] == ["'=cmd0,EUR,0.00,0,0,0", "'=cmd1,EUR,-0.000000001,0,0,0"]


async def test_without_the_extra_parquet_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(files, "import_module", missing)
    with pytest.raises(Unprocessable, match=r"galerne\[export\]"):
        await write_costs(many(1), ALL, tmp_path / "c.parquet", "parquet")
    with pytest.raises(Unprocessable, match="--output"):
        await write_costs(many(1), ALL, io.BytesIO(), "parquet")


def test_the_command_writes_to_a_file_or_a_pipe(tenants: Tenants, database_url: str, tmp_path: Path) -> None:
    environment = {"GALERNE_DATABASE_URL": database_url}
    run = CliRunner().invoke
    shown = run(usage_command.app, ["export", "--by", "day, api_key_id"], env=environment, catch_exceptions=False)
    assert shown.output.splitlines()[0] == "day,api_key_id,currency,cost,input_tokens,cached_tokens,output_tokens"
    assert len(shown.output.splitlines()) == 5
    arguments = ["export", "--format", "parquet", "--output", str(tmp_path / "c.parquet"), "--json"]
    own = ["--organisation", tenants.stranger.organisation_id, "--since", "2026-11-24T00:00Z"]
    told = run(usage_command.app, [*arguments, *own], env=environment, catch_exceptions=False)
    assert json.loads(told.output)["rows"] == parquet.read_table(tmp_path / "c.parquet").num_rows == 1
    assert isinstance(run(usage_command.app, ["export", "--by", "colour"], env=environment).exception, BadRequest)


@given(
    st.lists(
        st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))),
        min_size=2,
        max_size=2,
    )
)
def test_a_page_names_what_it_begins_behind(names: list[str | None]) -> None:
    query = replace(ALL, group_by=cost_groups("model"))
    assert names_before(page_after(names), query) == [name or "" for name in names]
