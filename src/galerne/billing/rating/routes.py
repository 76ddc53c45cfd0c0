"""HTTP for rating, the operator's alone: states and the queue, corrections, and re-rating in two steps."""

from typing import Annotated, Any

from fastapi import APIRouter

from galerne.billing.rating.rerating import (
    Part,
    agreed_until,
    begin_rerating,
    continue_rerating,
    list_reratings,
    preview_rerating,
)
from galerne.billing.rating.revisions import correct_usage
from galerne.billing.rating.schemas import (
    CorrectionIn,
    RatingOut,
    RerateIn,
    ReratingList,
    WaitingOut,
    rerating_fields,
    run_fields,
)
from galerne.billing.rating.service import rating_counts, unmatched_usage
from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel import BadRequest
from galerne.kernel.web import Reading, RequestClock, RequestIds, Transaction

rating_router = APIRouter(prefix="/v1/admin/rating", tags=["Prices"])

PriceAdmin = Annotated[Actor, requires(Permission.PRICES_MANAGE)]


MOST_EVENTS = 200_000
"""So many are looked at over HTTP, in some seconds; the command line sets no bound."""
_BATCHES_AT_ONCE = 2


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
    """Show what other prices would have cost; with the report's digest, apply exactly that.

    Of many events the worker rates most again, soon after the answer: `applied` says whether all are done.
    """
    change = body.prices.change(retroactive=True)
    if body.digest is None:
        part = Part(body.period, body.organization_id, MOST_EVENTS)
        return rerating_fields(await preview_rerating(session, change, clock, part), applied=False)
    if body.period or body.organization_id:
        raise BadRequest("Prices are one for all: what is applied is the whole.", param="digest")
    report = await preview_rerating(session, change, clock, Part(most=MOST_EVENTS), agreed_until(body.digest))
    run = await begin_rerating(session, actor, change, (report, body.digest), ids, clock)
    for _ in range(_BATCHES_AT_ONCE):
        run = await continue_rerating(session, run.digest, clock)
    return rerating_fields(report, applied=run.finished_at is not None)


@rating_router.get("/reratings")
async def list_all_reratings(actor: PriceAdmin, session: Reading) -> ReratingList:
    """List re-ratings that were begun, newest first, with how far they are."""
    return ReratingList(object="list", data=[run_fields(each) for each in await list_reratings(session)])
