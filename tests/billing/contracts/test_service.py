"""Contracts on both databases: only what was signed counts, and nobody signs what they were not shown."""

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from galerne.apps.refusals import install_refusals
from galerne.billing import NewRates, rate_batch, set_rates
from galerne.billing.contracts import (
    ContractTerms,
    ContractVersion,
    Renewal,
    TermsIn,
    Version,
    amend_contract,
    charges_of_contract,
    contract_usage,
    contract_versions,
    contracts_router,
    draft_contract,
    renew_due,
    sign_contract,
)
from galerne.governance import SYSTEM
from galerne.kernel import BadRequest, Conflict, Database, Forbidden, NotFound
from galerne.metering import record
from galerne.models import ExternalModel, add_external
from tests.apps.test_tenant_commands import Run, printed, run
from tests.identity.tenants import NOW, Tenants, two_tenants
from tests.journal.serving import Server
from tests.metering.events import event

__all__ = ["run"]

DAY = timedelta(days=1)
TERMS = ContractTerms(currency="EUR", start=NOW, months=12, fee_nano=5)


@pytest.fixture
async def tenants(database: Database) -> Tenants:
    return await two_tenants(database)


async def draft(tenants: Tenants, terms: ContractTerms = TERMS) -> ContractVersion:
    operator = replace(SYSTEM, organisation_id=tenants.stranger.organisation_id)
    async with tenants.database.transaction() as session:
        return await draft_contract(session, operator, "Frame", terms, tenants.ids, tenants.clock)


async def amend(tenants: Tenants, contract_id: str, terms: ContractTerms, days: int) -> ContractVersion:
    operator = replace(SYSTEM, organisation_id=tenants.stranger.organisation_id)
    async with tenants.database.transaction() as session:
        return await amend_contract(session, operator, contract_id, Version(NOW + days * DAY, terms), tenants.clock)


async def sign(tenants: Tenants, drafted: ContractVersion, **other: Any) -> ContractVersion:
    signature: dict[str, Any] = {"version": drafted.version, "sha256": drafted.sha256, "by": "Ada"} | other
    async with tenants.database.transaction() as session:
        return await sign_contract(
            session,
            tenants.stranger,
            drafted.contract_id,
            (signature["version"], signature["sha256"], signature["by"]),
            tenants.clock,
        )


async def fees(tenants: Tenants, contract_id: str) -> list[int]:
    async with tenants.database.reading() as session:
        return [each.amount_nano for each in await charges_of_contract(session, tenants.stranger, contract_id, {})]


async def test_a_contract_counts_once_it_is_signed_and_an_amendment_from_its_day_on(tenants: Tenants) -> None:
    made = await draft(tenants)
    assert await fees(tenants, made.contract_id) == []
    assert (await sign(tenants, made)).signed_by == "Ada"
    assert await sign(tenants, made) == await sign(tenants, made)
    assert await fees(tenants, made.contract_id) == [5] * 12
    amended = await amend(tenants, made.contract_id, replace(TERMS, fee_nano=9), 40)
    assert await fees(tenants, made.contract_id) == [5] * 12
    await sign(tenants, amended)
    assert await fees(tenants, made.contract_id) == [5] * 2 + [9] * 10
    assert [each["version"] for each in await tenants.journal("contract.signed")] == [1, 2]
    assert len(await tenants.journal("contract.drafted")) == 2


async def test_nobody_signs_what_they_were_not_shown_nor_what_is_out_of_date(tenants: Tenants) -> None:
    made = await draft(tenants)
    for other, error in (
        ({"sha256": "0" * 64}, Conflict),
        ({"version": 7}, NotFound),
        ({"by": " "}, BadRequest),
    ):
        with pytest.raises(error):
            await sign(tenants, made, **other)
    newer = await amend(tenants, made.contract_id, replace(TERMS, fee_nano=6), 0)
    with pytest.raises(Conflict):
        await sign(tenants, made)
    await sign(tenants, newer)
    late = await amend(tenants, made.contract_id, replace(TERMS, fee_nano=7), 3)
    tenants.clock.current += 4 * DAY
    with pytest.raises(Conflict, match="before now"):
        await sign(tenants, late)
    assert await fees(tenants, made.contract_id) == [6] * 12


async def test_another_organisations_contract_does_not_exist_and_the_operator_alone_drafts(tenants: Tenants) -> None:
    made = await draft(tenants)
    async with tenants.database.transaction() as session:
        with pytest.raises(NotFound):
            await contract_versions(session, tenants.operator, made.contract_id)
        with pytest.raises(Forbidden):
            await draft_contract(session, tenants.stranger, "Mine", TERMS, tenants.ids, tenants.clock)


async def test_a_contract_that_renews_itself_does_so_once(tenants: Tenants) -> None:
    made = await draft(tenants, replace(TERMS, renewal=Renewal(months=6, uplift_ppm=2_000_000)))
    await sign(tenants, made)
    tenants.clock.current = NOW + 366 * DAY
    for expected in (1, 0):
        async with tenants.database.transaction() as session:
            assert await renew_due(session, tenants.clock) == expected
    assert await fees(tenants, made.contract_id) == [5] * 12 + [10] * 6
    async with tenants.database.reading() as session:
        newest = (await contract_versions(session, tenants.stranger, made.contract_id))[-1]
    assert newest.signed_by == "renewal"


async def test_contracts_that_charge_the_same_use_are_not_signed_one_beside_the_other(tenants: Tenants) -> None:
    await sign(tenants, await draft(tenants))
    for terms in (replace(TERMS, start=NOW + 40 * DAY), replace(TERMS, start=NOW - 40 * DAY)):
        with pytest.raises(Conflict) as refused:
            await sign(tenants, await draft(tenants, terms))
        assert refused.value.code == "contract_overlaps"
    await sign(tenants, await draft(tenants, replace(TERMS, currency="USD")))
    following = replace(TERMS, start=TERMS.end, renewal=Renewal(months=12))
    await sign(tenants, await draft(tenants, following))
    with pytest.raises(Conflict, match="renews itself"):
        await sign(tenants, await draft(tenants, replace(TERMS, start=following.end)))


@pytest.mark.parametrize("table", ["contract_versions", "contract_signatures"])
async def test_the_database_keeps_what_was_drafted_and_signed(tenants: Tenants, table: str) -> None:
    await sign(tenants, await draft(tenants))
    for change in (f"DELETE FROM {table}", f"UPDATE {table} SET version = 9"):
        with pytest.raises(DBAPIError, match="append-only"):
            async with tenants.database.transaction() as session:
                await session.execute(text(change))


async def test_usage_of_a_month_is_worth_what_its_tokens_cost(tenants: Tenants) -> None:
    new = NewRates(
        currency="EUR",
        input_nano_per_million=2_000_000,
        cached_nano_per_million=1_000_000,
        output_nano_per_million=5_000_000,
        effective_from=NOW,
    )
    organisation_id = tenants.stranger.organisation_id
    used = event(1, organisation_id=organisation_id, model="large", started_at=NOW + timedelta(hours=3))
    other = event(2, organisation_id=organisation_id, model="unpriced", started_at=NOW + timedelta(hours=3))
    async with tenants.database.transaction() as session:
        await add_external(session, SYSTEM, ExternalModel(name="large", url="http://127.0.0.1:9/v1"), tenants.clock)
        await set_rates(session, SYSTEM, "large", new, tenants.ids, tenants.clock)
        await record(session, [used, other])
    async with tenants.database.transaction() as session:
        await rate_batch(session, tenants.clock, after="")
    made = await draft(tenants)
    async with tenants.database.reading() as session:
        usage = await contract_usage(session, tenants.stranger, made.contract_id, NOW + 40 * DAY)
    expected = used.input_tokens * 2 + used.cached_tokens + used.output_tokens * 5
    assert usage == {made.terms.periods()[0]: expected}


@pytest.fixture
async def server(tenants: Tenants) -> AsyncGenerator[Server]:
    server = Server(contracts_router, tenants.database, tenants.clock, tenants.stranger)
    install_refusals(server.app)
    async with server.client:
        yield server


WIRE = {
    "currency": "EUR",
    "start": "2026-12-01T00:00:00Z",
    "months": 12,
    "time_zone": "Europe/Paris",
    "commitments": [{"id": "base", "kind": "prepaid", "amount": "1200.50"}],
    "sla": {"availability": "99.9"},
}


async def test_an_organisation_reads_previews_and_signs_over_http(server: Server, tenants: Tenants) -> None:
    made = await draft(tenants, TermsIn.model_validate(WIRE).version().terms)
    path = f"/v1/admin/contracts/{made.contract_id}"
    shown = (await server.get(path))["data"][0]
    assert (shown["terms"]["commitments"][0]["amount"], shown["signed_at"]) == ("1200.50", None)
    body = {"version": 1, "sha256": shown["sha256"], "signed_by": "Ada"}
    assert (await server.client.post(f"{path}/sign", json=body)).status_code == 200
    amended = WIRE | {"fee": "10", "effective_from": "2027-05-31T23:00:00Z"}
    effect = await server.client.post(f"{path}/preview", json={"terms": amended, "forecast": "50"})
    assert (effect.status_code, effect.json()["difference"]) == (200, "60.00")
    assert len((await server.get(path))["data"]) == 1
    due = (await server.get(f"{path}/charges", until="2026-12-02"))["data"]
    assert [(each["kind"], each["amount"]) for each in due] == [("commitment", "1200.50")]
    worse = {"terms": amended | {"currency": "USD"}}
    assert (await server.client.post(f"{path}/preview", json=worse)).status_code == 400
    assert (await server.get("/v1/admin/contracts"))["data"][0]["id"] == made.contract_id


def test_the_operator_drafts_previews_signs_and_lists(run: Run, tmp_path: Path) -> None:
    bank = printed(run, "organisations", "create", "Banque X")["id"]
    file = tmp_path / "terms.json"
    file.write_text(json.dumps(WIRE))
    made = printed(run, "contracts", "draft", bank, "Frame", str(file))
    signing = ("contracts", "sign", bank, made["id"], "1", "--sha256", made["sha256"], "--signed-by", "Ada")
    assert printed(run, *signing)["signed_by"] == "Ada"
    file.write_text(json.dumps(WIRE | {"fee": "10", "effective_from": "2027-05-31T23:00:00Z"}))
    assert printed(run, "contracts", "preview", bank, made["id"], str(file))["difference"] == "60.00"
    code, out, _ = run("contracts", "preview", bank, made["id"], str(file))
    assert (code, "60.00 EUR" in out) == (0, True)
    assert printed(run, "contracts", "amend", bank, made["id"], str(file))["version"] == 2
    assert len(printed(run, "contracts", "show", bank, made["id"])) == 2
    assert [each["amount"] for each in printed(run, "contracts", "charges", bank, made["id"], "--until", "2026-12-02")]
    assert printed(run, "contracts", "renew")["contracts"] == 0
    assert "Frame" in run("contracts", "list")[1]
    file.write_text(json.dumps(WIRE | {"months": 0}))
    code, _, err = run("contracts", "draft", bank, "Frame", str(file))
    assert (code, err.count("\n"), "months" in err) == (1, 1, True)
