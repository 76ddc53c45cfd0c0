"""The journal's proofs over HTTP: enough for a client to check everything with a public key alone."""

import base64
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from galerne.apps.routes.proofs import router
from galerne.governance import SYSTEM, Actor, ActorKind, Permission
from galerne.journal import (
    Follower,
    append,
    parse_key,
    parse_proof,
    root_of,
    verify_checkpoint,
    verify_consistency,
    verify_proof,
)
from galerne.kernel import Database, ManualClock, Settings
from tests.journal.entries import NOON, Someone, entry
from tests.journal.serving import Server

READER = Actor(ActorKind.USER, "ada", "org-1", None, frozenset({Permission.JOURNAL_READ}))
PATHS = ("checkpoint", "keys", "tile/0/000.p/5", "entries/1/proof", "consistency?first=1&second=2")


@pytest.fixture
async def server(database: Database, tmp_path: Path) -> AsyncGenerator[Server]:
    theirs = Someone(organisation_id="org-2", workspace_id="space")
    async with database.transaction() as session:
        await append(session, [entry(number) for number in range(300)])
        await append(session, [entry(300, actor=theirs)])
    await Follower(database, Settings(data=tmp_path / "data"), ManualClock(NOON), SYSTEM).checkpoint()
    server = Server(router, database, ManualClock(NOON), READER)
    async with server.client:
        yield server


async def test_a_client_checks_an_entry_with_the_public_key_alone(server: Server) -> None:
    (key,) = (await server.get("/v1/journal/keys"))["data"]
    keys = [parse_key(key["key"])]
    answer = await server.client.get("/v1/journal/checkpoint")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    checkpoint = verify_checkpoint(answer.text, keys)
    assert checkpoint.size == 302
    shown = await server.get("/v1/journal/entries/77/proof")
    proof = parse_proof(shown["proof"])
    assert verify_proof(proof, keys) == checkpoint
    assert (shown["seq"], shown["index"], shown["leaf"]) == (77, 76, proof.leaf.decode())


async def test_growth_is_proved_between_any_two_sizes(server: Server) -> None:
    shown = await server.get("/v1/journal/consistency", first=100, second=302)
    first, second = base64.b64decode(shown["first_root"]), base64.b64decode(shown["second_root"])
    verify_consistency(100, 302, first, second, [base64.b64decode(each) for each in shown["hashes"]])
    for sizes in ({"first": 5, "second": 4}, {"first": 1, "second": 303}, {"first": -1, "second": 2}):
        assert await server.status("/v1/journal/consistency", **sizes) == 422


async def test_tiles_lie_where_the_specification_puts_them_and_give_the_root(server: Server) -> None:
    full = await server.client.get("/v1/journal/tile/0/000")
    assert (len(full.content), full.headers["content-type"]) == (8192, "application/octet-stream")
    assert "immutable" in full.headers["cache-control"]
    above = (await server.client.get("/v1/journal/tile/1/000.p/1")).content
    assert root_of([full.content[at : at + 32] for at in range(0, 8192, 32)]) == above
    assert len((await server.client.get("/v1/journal/tile/0/001.p/46")).content) == 46 * 32
    for missing in ("0/001", "0/001.p/47", "0/002", "1/000", "2/000.p/1", "0/0", "0/000/../001"):
        assert await server.status(f"/v1/journal/tile/{missing}") == 404
    assert await server.status("/v1/journal/tile/64/000") == 422


async def test_another_organisation_s_entry_is_not_there(server: Server) -> None:
    assert await server.status("/v1/journal/entries/301/proof") == 404
    server.actor = replace(READER, organisation_id="org-2")
    assert await server.status("/v1/journal/entries/301/proof") == 200
    assert await server.status("/v1/journal/entries/77/proof") == 404
    server.actor = replace(READER, organisation_id="org-2", workspace_id="another")
    assert await server.status("/v1/journal/entries/301/proof") == 404


@pytest.mark.parametrize("path", PATHS)
async def test_every_route_needs_its_permission(server: Server, path: str) -> None:
    assert (await server.client.get(f"/v1/journal/{path}")).status_code == 200
    server.actor = replace(READER, permissions=frozenset())
    assert (await server.client.get(f"/v1/journal/{path}")).status_code == 403


async def test_before_the_first_checkpoint_there_is_none(database: Database) -> None:
    server = Server(router, database, ManualClock(NOON), READER)
    async with server.client:
        assert await server.status("/v1/journal/checkpoint") == 404
        assert (await server.get("/v1/journal/keys"))["data"] == []
