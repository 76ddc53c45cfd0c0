"""A new secret for an endpoint: the old one signs beside it for as long as was said; on both databases."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from standardwebhooks import Webhook, WebhookVerificationError
from typer.testing import CliRunner

from galerne.apps.commands.webhooks import app as command
from galerne.apps.worker import Worker
from galerne.governance import SYSTEM, Actor, ActorKind, Permission
from galerne.journal import LeafFilter, read_all
from galerne.kernel import BadRequest, Conflict, NotFound
from galerne.kernel.outbox import News
from galerne.kernel.sealing import open_sealer
from galerne.notices import hear, remove_endpoint, rotate_secret
from galerne.notices.routes import router
from galerne.notices.service import MOST_OLD_SECRETS, MOST_OVERLAP
from tests.journal.serving import Server
from tests.notices.receiver import Received
from tests.notices.telling import Told

DAY = timedelta(days=1)


async def rotate(told: Told, overlap: timedelta = DAY, actor: Actor | None = None) -> str:
    house = told.house
    async with house.database.transaction() as session:
        seal = (open_sealer(told.settings), house.ids)
        endpoint, secret, until = await rotate_secret(
            session, actor or told.actor, told.endpoint_id, overlap, seal, house.clock
        )
    assert (endpoint.id, until) == (told.endpoint_id, house.clock.current + overlap)
    return secret


async def happened(told: Told, times: int) -> None:
    house = told.house
    async with house.database.transaction() as session:
        for _ in range(times):
            at, body = house.clock.current, {"percent": 50}
            await hear(session, News(id=house.ids.new(), topic="budget.reached", whose=told.customer, body=body, at=at))


async def deliver(told: Told) -> None:
    (state,) = await Worker(told.house.database, told.house.clock, told.settings).run_now(["webhooks"])
    assert state.problem is None


async def sent(told: Told) -> Received:
    count = len(told.receiver.received)
    await happened(told, 1)
    await deliver(told)
    assert len(told.receiver.received) == count + 1
    return told.receiver.received[-1]


async def old_secrets(told: Told) -> int:
    async with told.house.database.reading() as session:
        return int((await session.execute(text("SELECT count(*) FROM webhook_old_secrets"))).scalar_one())


async def test_both_secrets_sign_until_the_old_one_s_time_is_over(told: Told) -> None:
    told.house.clock.current = datetime.now(UTC)  # the standard's verification looks at the time
    new = await rotate(told)
    assert new != told.secret
    got = await sent(told)
    assert got.is_signed_with(new, told.secret)
    for secret in (new, told.secret):
        assert Webhook(secret).verify(got.body, got.headers)["type"] == "budget.reached"
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").verify(got.body, got.headers)
    told.house.clock.current += DAY - timedelta(microseconds=1)
    assert (await sent(told)).is_signed_with(new, told.secret)
    told.house.clock.current += timedelta(microseconds=1)
    assert (await sent(told)).is_signed_with(new)


async def test_without_overlap_only_the_new_one_signs_at_once(told: Told) -> None:
    first = await rotate(told)
    second = await rotate(told, timedelta(0))
    got = await sent(told)
    assert got.is_signed_with(second)
    assert not got.is_signed_with(second, first)
    assert await old_secrets(told) == 0


async def test_in_the_middle_of_a_round_the_new_secret_counts_too(told: Told) -> None:
    await happened(told, 3)
    news: list[str] = []

    async def rotated() -> None:
        news.append(await rotate(told, timedelta(0)))

    told.receiver.then = rotated
    await deliver(told)
    signers = zip(told.receiver.received, [told.secret, *news], strict=False)
    assert [got.is_signed_with(secret) for got, secret in signers] == [True] * 3


async def test_in_the_middle_of_a_round_an_endpoint_that_is_removed_is_told_no_more(told: Told) -> None:
    await happened(told, 3)

    async def removed() -> None:
        async with told.house.database.transaction() as session:
            await remove_endpoint(session, told.actor, told.endpoint_id, told.house.clock)

    told.receiver.then = removed
    await deliver(told)
    assert len(told.receiver.received) == 1


async def test_rotated_again_whatever_signed_signs_on_but_none_for_longer_than_was_said_last(told: Told) -> None:
    first = await rotate(told, 3 * DAY)
    second = await rotate(told, DAY)
    got = await sent(told)
    # Both end at the same moment by now, and may come in either order.
    assert got.is_signed_with(second, first, told.secret) or got.is_signed_with(second, told.secret, first)
    third = await rotate(told, 7 * DAY)
    told.house.clock.current += DAY
    assert (await sent(told)).is_signed_with(third, second)
    assert await old_secrets(told) == 3
    await rotate(told)
    assert await old_secrets(told) == 2


async def test_too_many_too_long_and_another_s_are_refused_and_change_nothing(told: Told) -> None:
    house = told.house
    stranger = replace(SYSTEM, organisation_id=await house.customer("Loire"))
    with pytest.raises(NotFound):
        await rotate(told, actor=stranger)
    for overlap in (MOST_OVERLAP + timedelta(hours=1), -timedelta(hours=1)):
        with pytest.raises(BadRequest, match="0 to 168 hours"):
            await rotate(told, overlap)
    assert (await sent(told)).is_signed_with(told.secret)
    made = [await rotate(told) for _ in range(MOST_OLD_SECRETS)]
    with pytest.raises(Conflict, match="older secrets still sign"):
        await rotate(told)
    signatures = (await sent(told)).headers["webhook-signature"].split(" ")
    assert len(signatures) == MOST_OLD_SECRETS + 1
    assert await rotate(told, timedelta(0)) not in made
    async with house.database.transaction() as session:
        await remove_endpoint(session, told.actor, told.endpoint_id, house.clock)
    assert await old_secrets(told) == 0


async def test_it_is_journalled_without_secrets_and_those_are_sealed(told: Told) -> None:
    new = await rotate(told)
    async with told.house.database.reading() as session:
        (leaf,) = await read_all(session, LeafFilter(actions=("webhook.secret_rotated",)), 10)
        rows = [tuple(row) for row in await session.execute(text("SELECT sealed FROM webhook_old_secrets"))]
        rows += [tuple(row) for row in await session.execute(text("SELECT sealed FROM webhook_endpoints"))]
    assert b'"overlap_hours":24' in leaf.leaf
    for secret in (told.secret, new):
        assert secret.encode() not in leaf.leaf
        assert all(secret.encode() not in bytes(sealed) for (sealed,) in rows)


async def test_over_http_an_administrator_rotates_it_and_a_reader_does_not(told: Told) -> None:
    actor = Actor(ActorKind.API_KEY, "key", told.customer, None, permissions=frozenset(Permission))
    server = Server(router, told.house.database, told.house.clock, actor)
    server.app.state.settings = told.settings
    path = f"/v1/admin/webhook-endpoints/{told.endpoint_id}/rotate-secret"
    done = await server.client.post(path, json={})
    assert done.status_code == 200
    until = datetime.fromisoformat(done.json()["old_secrets_until"])
    assert until == told.house.clock.current + DAY
    assert (await sent(told)).is_signed_with(done.json()["secret"], told.secret)
    leaked = await server.client.post(path, json={"overlap_hours": 0})
    assert (await sent(told)).is_signed_with(leaked.json()["secret"])
    assert (await server.client.post(path, json={"overlap_hours": 169})).status_code == 422
    server.actor = replace(actor, permissions=frozenset({Permission.BILLING_READ}))
    assert (await server.client.post(path, json={})).status_code == 403


async def test_from_the_command_line_it_is_rotated(
    told: Told, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GALERNE_DATABASE_URL", database_url)
    words = ["rotate", told.endpoint_id, "--organisation", told.customer, "--overlap-hours", "1"]

    def run(*more: str) -> Any:
        done = CliRunner().invoke(command, [*words, *more], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    before = datetime.now(UTC)
    row = json.loads(await asyncio.to_thread(run, "--json"))
    assert timedelta(0) <= datetime.fromisoformat(row["old_secrets_until"]) - before - timedelta(hours=1) < DAY
    told.house.clock.current = datetime.now(UTC)
    assert (await sent(told)).is_signed_with(row["secret"], told.secret)
    shown = await asyncio.to_thread(run)
    assert "older secrets sign until" in shown
    assert "secret: whsec_" in shown
