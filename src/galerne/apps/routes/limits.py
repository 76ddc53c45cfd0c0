"""HTTP for limits: administrators see what bears on them, and limit what is theirs. Here for the catalogue's sake: a
limit on one model names it by any of its names.
"""

from typing import Annotated

from fastapi import APIRouter

from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel.web import Reading, RequestClock, Text, Transaction
from galerne.metering import list_limits, remove_limit, set_limit
from galerne.metering.limit_schemas import LimitIn, LimitList, LimitOut, LimitUseOut, limit_fields, limit_use_fields
from galerne.models import find_model

router = APIRouter(prefix="/v1/admin/limits", tags=["Limits"])

LimitAdmin = Annotated[Actor, requires(Permission.LIMITS_MANAGE)]


@router.get("")
async def list_all_limits(actor: LimitAdmin, session: Reading, clock: RequestClock) -> LimitList:
    """List the limits on this organisation, its workspaces and keys, with what is used of them."""
    found = await list_limits(session, actor, clock.now())
    return LimitList(object="list", data=[LimitUseOut.model_validate(limit_use_fields(use)) for use in found])


@router.post("", status_code=201)
async def set_one_limit(body: LimitIn, actor: LimitAdmin, session: Transaction, clock: RequestClock) -> LimitOut:
    """Set a limit; one on the same subject, model, quantity and window gets the new amount, which counts at once."""
    model_id = None if body.model is None else (await find_model(session, body.model)).id
    rule = await set_limit(session, actor, body.new_limit(model_id), clock)
    return LimitOut.model_validate(limit_fields(rule))


@router.delete("/{limit_id}")
async def remove_one_limit(limit_id: Text, actor: LimitAdmin, session: Transaction, clock: RequestClock) -> LimitOut:
    """Remove a limit that this organisation, or this workspace if the key is bound to one, has set."""
    return LimitOut.model_validate(limit_fields(await remove_limit(session, actor, limit_id, clock)))
