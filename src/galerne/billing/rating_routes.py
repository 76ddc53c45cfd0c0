"""HTTP for rating, the operator's alone: states and the queue, corrections, and re-rating in two steps."""

from typing import Annotated, Any

from fastapi import APIRouter

from galerne.billing.price_schemas import CorrectionIn, RatingOut, RerateIn, WaitingOut, rerating_fields
from galerne.billing.rating_revisions import apply_rerating, correct_usage, preview_rerating
from galerne.billing.rating_service import rating_counts, unmatched_usage
from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel.web import Reading, RequestClock, RequestIds, Transaction

rating_router = APIRouter(prefix="/v1/admin/rating", tags=["Prices"])

PriceAdmin = Annotated[Actor, requires(Permission.PRICES_MANAGE)]


@rating_router.get("")
async def show_rating(actor: PriceAdmin, session: Reading) -> RatingOut:
    """Show how many usage events are rated, unmatched, voided or waiting, and which models lack a price."""
    queue = [WaitingOut(model=model, events=events, since=at) for model, events, at in await unmatched_usage(session)]
    return RatingOut(object="rating", events=await rating_counts(session), unmatched=queue)


@rating_router.post("/corrections")
async def correct(
    body: CorrectionIn, actor: PriceAdmin, session: Transaction, clock: RequestClock
) -> dict[str, str | int]:
    """Have a usage event count as something else from now on; the event stays as it was recorded."""
    found = await correct_usage(session, actor, body.event, body.counts(), body.reason, clock)
    return {"object": "usage.correction", "event": body.event, "state": found.state, "revision": found.revision}


@rating_router.post("/rerate")
async def rerate(
    body: RerateIn, actor: PriceAdmin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> dict[str, Any]:
    """Show what other prices would have cost; with the report's digest, apply exactly that."""
    change = body.prices.change(retroactive=True)
    if body.digest is None:
        return rerating_fields(await preview_rerating(session, change, clock), applied=False)
    return rerating_fields(await apply_rerating(session, actor, change, body.digest, ids, clock), applied=True)
