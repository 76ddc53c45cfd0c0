"""Alerts as webhooks, on both databases: told once they are committed, sent at least once, dead in plain sight."""

import asyncio
import json
import os
import signal
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from galerne.apps.commands.webhooks import app as command
from galerne.apps.worker import Worker
from galerne.billing.budgets import NewBudget, set_budget
from galerne.governance import SYSTEM, Actor, ActorKind, Permission
from galerne.journal import LeafFilter, read_all
from galerne.kernel import BadRequest, Conflict, NotFound, Settings
from galerne.kernel.logs import captured_logs
from galerne.kernel.outbox import waiting_news
from galerne.kernel.sealing import open_sealer
from galerne.notices import (
    NewEndpoint,
    add_endpoint,
    list_endpoints,
    remove_endpoint,
    resend,
)
from galerne.notices.routes import router
from galerne.notices.service import MOST_ENDPOINTS
from tests.journal.serving import Server
from tests.notices.receiver import receiving
from tests.notices.telling import Told


async def test_an_alert_is_sent_signed_once(told: Told) -> None:
    await told.house.use(told.customer, (1300, 0, 0))  # 52 % of the budget
    told.house.clock.current += timedelta(minutes=10)
    assert await told.work() == [None, None, None]
    (got,) = told.receiver.received
    assert got.is_signed_with(told.secret)
    assert got.path == "/hooks?token=s3cret"
    body = json.loads(got.body)
    assert (body["type"], body["data"]["percent"], body["data"]["spent"]) == ("budget.reached", 50, "0.00052")
    (delivery,) = await told.deliveries()
    assert (delivery.state, delivery.attempts, delivery.status) == ("delivered", 1, 204)
    assert got.headers["webhook-id"] == delivery.news_id
    told.house.clock.current += timedelta(minutes=10)
    assert await told.work() == [None, None, None]
    assert len(told.receiver.received) == 1


async def test_what_was_undone_is_not_told_and_what_is_told_twice_goes_once(told: Told) -> None:
    house = told.house
    await house.use(told.customer, (5000, 0, 0))
    told.house.clock.current += timedelta(minutes=10)
    await Worker(house.database, house.clock, told.settings).run_now(["rating"])
    worker = Worker(house.database, house.clock, told.settings)
    await worker.run_now(["budgets"])
    async with house.database.reading() as session:
        assert len(await waiting_news(session)) == 3
    async with house.database.transaction() as session:
        await session.execute(text("DELETE FROM outbox"))
        await session.rollback()
    await worker.run_now(["webhooks"])
    await worker.run_now(["webhooks"])
    assert sorted(json.loads(each.body)["data"]["percent"] for each in told.receiver.received) == [50, 80, 100]
    async with house.database.reading() as session:
        assert await waiting_news(session) == []


async def test_who_does_not_take_it_is_asked_again_under_the_same_id_until_it_is_dead(told: Told) -> None:
    told.receiver.status = 302  # redirects are not followed
    await told.house.use(told.customer, (1300, 0, 0))
    told.house.clock.current += timedelta(minutes=10)
    with captured_logs() as lines:
        await told.work()
        (delivery,) = await told.deliveries()
        assert (delivery.state, delivery.attempts, delivery.problem) == ("waiting", 1, "answered 302")
        await told.work()
        assert len(told.receiver.received) == 1, "it is not due yet"
        while delivery.state == "waiting":
            told.house.clock.current = delivery.next_at
            await told.work()
            (delivery,) = await told.deliveries()
    assert (delivery.state, delivery.attempts) == ("dead", 8)
    assert {(each.headers["webhook-id"], each.body) for each in told.receiver.received} == {
        (delivery.news_id, told.receiver.received[0].body)
    }
    assert len({each.headers["webhook-timestamp"] for each in told.receiver.received}) == 8
    assert all(each.is_signed_with(told.secret) for each in told.receiver.received)
    said = json.dumps(lines)
    assert "webhook dead" in said
    assert told.secret not in said
    assert "s3cret" not in said
    async with told.house.database.reading() as session:
        leaves = await read_all(session, LeafFilter(actions=("webhook.dead",)), 10)
    assert len(leaves) == 1

    told.receiver.status = 200
    async with told.house.database.transaction() as session:
        await resend(session, told.actor, delivery.news_id, told.endpoint_id, told.house.clock)
    await told.work()
    (delivery,) = await told.deliveries()
    assert (delivery.state, delivery.attempts, len(told.receiver.received)) == ("delivered", 1, 9)


SENDING = """
import asyncio
from galerne.apps.worker import Worker
from galerne.kernel import Database, Settings, SystemClock

async def main():
    settings = Settings()
    await Worker(Database(settings.database_url), SystemClock(), settings).run_now(["webhooks"])

asyncio.run(main())
"""


async def test_kill_9_while_it_is_sent_has_it_sent_again_under_the_same_id(
    told: Told, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await told.house.use(told.customer, (1300, 0, 0))
    told.house.clock.current += timedelta(minutes=10)
    worker = Worker(told.house.database, told.house.clock, told.settings)
    await worker.run_now(["rating"])
    await worker.run_now(["budgets"])
    monkeypatch.setenv("GALERNE_DATABASE_URL", database_url)
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", SENDING)
    told.receiver.then = lambda: os.kill(child.pid, signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    (delivery,) = await told.deliveries()
    assert (delivery.state, delivery.attempts) == ("waiting", 0)
    told.receiver.then = lambda: None
    async with told.house.database.transaction() as session:
        await session.execute(text("UPDATE duties SET lease_until = NULL"))  # it has run out
    await worker.run_now(["webhooks"])
    assert [each.headers["webhook-id"] for each in told.receiver.received] == [delivery.news_id] * 2
    assert len({each.body for each in told.receiver.received}) == 1
    assert (await told.deliveries())[0].state == "delivered"


@pytest.mark.parametrize(
    ("url", "inside", "offline", "why"),
    [
        ("https://localhost/", False, False, "it is inside"),
        ("https://nowhere.invalid/", False, False, "its host has no address"),
        ("https://93.184.216.34/", True, True, "GALERNE_OFFLINE is set"),
        ("http://127.0.0.1:1/", True, True, "cannot be reached"),
    ],
)
async def test_an_address_is_checked_again_when_it_is_asked(
    told: Told, url: str, inside: bool, offline: bool, why: str
) -> None:
    house = told.house
    async with house.database.transaction() as session:
        await session.execute(text("UPDATE webhook_endpoints SET url = :url"), {"url": url})
    await house.use(told.customer, (1300, 0, 0))
    house.clock.current += timedelta(minutes=10)
    worker = Worker(house.database, house.clock, replace_settings(told.settings, inside, offline))
    for name in ("rating", "budgets", "webhooks"):
        await worker.run_now([name])
    (delivery,) = await told.deliveries()
    assert delivery.problem is not None
    assert why in delivery.problem
    assert told.receiver.received == []


def replace_settings(settings: Settings, inside: bool, offline: bool) -> Settings:
    return settings.model_copy(update={"webhooks_inside": inside, "offline": offline})


async def test_an_endpoint_that_is_down_keeps_no_other_waiting(told: Told) -> None:
    house = told.house
    other = await house.customer("Loire")
    async with receiving() as well:
        async with house.database.transaction() as session:
            actor = replace(SYSTEM, organisation_id=other)
            new = NewBudget(scope="organisation", scope_id=other, window="month", nano=1_000_000, currency="EUR")
            await set_budget(session, actor, new, house.ids, house.clock)
            to = NewEndpoint(well.url, ("budget.reached",), True)
            sealer = open_sealer(told.settings)
            await add_endpoint(session, actor, to, sealer, house.ids, house.clock)
        told.receiver.status = 500
        for name in (told.customer, other):
            await house.use(name, (5000, 0, 0))
        house.clock.current += timedelta(minutes=10)
        assert await told.work() == [None, None, None]
    assert (len(told.receiver.received), len(well.received)) == (1, 3)


async def test_a_secret_is_sealed_and_another_key_opens_nothing(told: Told, tmp_path: Any) -> None:
    async with told.house.database.reading() as session:
        (sealed,) = (await session.execute(text("SELECT sealed FROM webhook_endpoints"))).one()
    assert told.secret.encode() not in bytes(sealed)
    await told.house.use(told.customer, (1300, 0, 0))
    told.house.clock.current += timedelta(minutes=10)
    elsewhere = replace(told, settings=told.settings.with_data(tmp_path / "other"))
    problems = await elsewhere.work()
    assert "sealed with another key" in str(problems[-1])
    assert (await told.deliveries())[0].attempts == 0


async def test_endpoints_are_their_organisations_alone_and_few(told: Told) -> None:
    house = told.house
    stranger = replace(SYSTEM, organisation_id=await house.customer("Loire"))
    sealer = open_sealer(told.settings)
    async with house.database.transaction() as session:
        with pytest.raises(NotFound):
            await remove_endpoint(session, stranger, told.endpoint_id, house.clock)
        with pytest.raises(NotFound):
            await resend(session, stranger, "x", told.endpoint_id, house.clock)
        with pytest.raises(BadRequest, match="no topic"):
            await add_endpoint(
                session, stranger, NewEndpoint(told.receiver.url, ("x",), True), sealer, house.ids, house.clock
            )
        to = NewEndpoint(told.receiver.url, (), True)
        for _ in range(MOST_ENDPOINTS):
            await add_endpoint(session, stranger, to, sealer, house.ids, house.clock)
        with pytest.raises(Conflict, match="remove one"):
            await add_endpoint(session, stranger, to, sealer, house.ids, house.clock)
        removed = await remove_endpoint(session, told.actor, told.endpoint_id, house.clock)
        assert removed.id == told.endpoint_id
        assert len(await list_endpoints(session, None)) == MOST_ENDPOINTS


async def test_over_http_an_administrator_sets_them_and_a_reader_sees_them(told: Told) -> None:
    actor = Actor(ActorKind.API_KEY, "key", told.customer, None, permissions=frozenset(Permission))
    server = Server(router, told.house.database, told.house.clock, actor)
    server.app.state.settings = replace_settings(told.settings, False, False)
    path = "/v1/admin/webhook-endpoints"
    refused = await server.client.post(path, json={"url": told.receiver.url})
    assert refused.status_code == 400
    added = await server.client.post(path, json={"url": "https://example.com/hook"})
    assert (added.status_code, added.json()["secret"][:6]) == (201, "whsec_")
    listed = (await server.get(path))["data"]
    assert [("secret" in each, each["topics"]) for each in listed] == [
        (False, ["budget.reached", "payment.failed"])
    ] * 2
    assert (await server.client.delete(f"{path}/{added.json()['id']}")).status_code == 200
    await told.house.use(told.customer, (1300, 0, 0))
    told.house.clock.current += timedelta(minutes=10)
    await told.work()
    (row,) = (await server.get("/v1/admin/webhook-deliveries", state="delivered"))["data"]
    again = await server.client.post(f"/v1/admin/webhook-deliveries/{row['id']}/{row['endpoint_id']}/resend")
    assert (again.status_code, again.json()["state"]) == (200, "waiting")
    server.actor = replace(actor, permissions=frozenset({Permission.BILLING_READ}))
    assert await server.status(path) == 200
    assert (await server.client.post(path, json={"url": "https://example.com"})).status_code == 403
    server.actor = replace(actor, workspace_id="one")
    assert await server.status(path) == 403


async def test_from_the_command_line_they_are_set_listed_and_removed(
    told: Told, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALERNE_DATABASE_URL", database_url)
    own = ["--organisation", told.customer]

    def run(*words: str) -> Any:
        done = CliRunner().invoke(command, [*words, "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        return json.loads(done.stdout)

    added = await asyncio.to_thread(run, "add", "https://example.com/hook", *own)
    assert added["secret"].startswith("whsec_")
    listed = await asyncio.to_thread(run, "list", *own)
    assert {each["id"] for each in listed} == {told.endpoint_id, added["id"]}
    assert (await asyncio.to_thread(run, "remove", added["id"], *own))["id"] == added["id"]
    assert await asyncio.to_thread(run, "deliveries", *own) == []
