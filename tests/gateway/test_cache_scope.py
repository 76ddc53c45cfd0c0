"""Which part of an engine's prefix cache a caller's request may use."""

from datetime import UTC, datetime
from typing import Any

from galerne.gateway.wire.outgoing import cache_scope
from galerne.identity import resolve_key
from tests.gateway.installation import Installation, model
from tests.gateway.upstream import MockEngine

CHAT = {"messages": [{"role": "user", "content": "Who are you?"}], "cache_salt": "of the caller's own choice"}


def _salt(organisation_id: str, **changes: Any) -> str | None:
    return cache_scope(model("brise", **changes), organisation_id).get("cache_salt")


def test_two_organisations_have_different_salts_that_do_not_tell_who_they_are() -> None:
    salts = {name: _salt(name, engine="llamacpp") for name in ("org-a", "org-b")}
    assert len({*salts.values()}) == 2
    for name, salt in salts.items():
        assert salt is not None
        assert len(salt) == 32
        assert name not in salt


def test_embeddings_and_other_servers_get_no_salt() -> None:
    assert _salt("org-a", engine="openai") is None
    assert _salt("org-a", engine="llamacpp", kind="embedding") is None


async def test_the_embedded_engine_is_told_the_salt_of_the_organisation_and_not_one_that_the_caller_chose(
    gateway: Installation, engine: MockEngine
) -> None:
    status, _, _ = await gateway.post("/v1/chat/completions", {**CHAT, "model": "embedded"})
    assert status == 200
    async with gateway.database.reading() as session:
        grant = await resolve_key(session, gateway.key, datetime.now(UTC))
    assert engine.requests[-1]["cache_salt"] == _salt(grant.actor.organisation_id, engine="llamacpp")
    assert grant.actor.organisation_id not in str(engine.requests[-1])
