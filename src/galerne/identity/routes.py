"""HTTP for API keys, at the paths of Mistral's published admin API."""

from typing import Annotated

from fastapi import APIRouter, Query

from galerne.governance import Actor, Permission, requires
from galerne.identity import service
from galerne.identity.schemas import CreatedKeyOut, KeyIn, KeyList, KeyOut, key_fields
from galerne.kernel.web import Position, Reading, RequestClock, RequestIds, Text, Transaction

router = APIRouter(prefix="/v1/admin/api-keys", tags=["API keys"])

KeyAdmin = Annotated[Actor, requires(Permission.KEYS_MANAGE)]


@router.post("", status_code=201)
async def create_api_key(
    body: KeyIn, actor: KeyAdmin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> CreatedKeyOut:
    """Make an API key. The answer holds the secret; it is shown this once and stored only as a hash."""
    created = await service.create_key(session, actor, body.new_key(), ids, clock)
    return CreatedKeyOut.model_validate({**key_fields(created.row), "key": created.secret})


@router.get("")
async def list_api_keys(
    actor: KeyAdmin,
    session: Reading,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Position = 0,
) -> KeyList:
    """List API keys, newest first, the revoked ones too."""
    rows = await service.list_keys(session, actor, limit=limit, offset=offset)
    return KeyList(object="list", data=[KeyOut.model_validate(key_fields(row)) for row in rows])


@router.delete("/{key_id}")
async def revoke_api_key(key_id: Text, actor: KeyAdmin, session: Transaction, clock: RequestClock) -> KeyOut:
    """Revoke an API key; requests with it are refused within two seconds."""
    return KeyOut.model_validate(key_fields(await service.revoke_key(session, actor, key_id, clock)))
