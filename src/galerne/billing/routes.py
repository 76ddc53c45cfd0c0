"""HTTP for the price book: whoever may read it sees what tokens cost, the operator sets it."""

from typing import Annotated

from fastapi import APIRouter, Query

from galerne.billing import service
from galerne.billing.prices.changes import change_prices
from galerne.billing.prices.quoting import quote_script
from galerne.billing.prices.schemas import PriceChangeIn, PriceVersionOut, QuoteIn, QuoteOut, quote_fields
from galerne.billing.schemas import PriceIn, PriceList, PriceOut, price_fields
from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel import NotFound
from galerne.kernel.web import Reading, RequestClock, RequestIds, RequestReader, Text, Transaction, UtcMoment
from galerne.models import find_model

router = APIRouter(prefix="/v1/admin/prices", tags=["Prices"])

PriceReader = Annotated[Actor, requires(Permission.PRICES_READ)]
PriceAdmin = Annotated[Actor, requires(Permission.PRICES_MANAGE)]
At = Annotated[UtcMoment | None, Query(description="What counts at that time; now, if left out.")]


@router.get("")
async def list_prices(actor: PriceReader, session: Reading, clock: RequestClock, at: At = None) -> PriceList:
    """List what 1,000,000 tokens of each model cost."""
    found = await service.list_rates(session, at or clock.now())
    return PriceList(object="list", data=[PriceOut.model_validate(price_fields(rates)) for rates in found])


@router.get("/{model:path}")
async def read_price(
    model: Text, actor: PriceReader, session: Reading, clock: RequestClock, at: At = None, currency: Text | None = None
) -> PriceOut:
    """Show what 1,000,000 tokens of a model cost."""
    found = await find_model(session, model)
    rates = await service.rates_of(session, found.id, at or clock.now(), currency)
    if rates is None:
        raise NotFound(f"The model '{found.id}' has no price then.", code="price_not_found", param="model")
    return PriceOut.model_validate(price_fields(rates))


@router.post("/quote")
async def quote_price(body: QuoteIn, actor: PriceReader, reader: RequestReader, clock: RequestClock) -> QuoteOut:
    """Show what a request will cost the caller's organisation, line by line: what is expected, and at most."""
    found = await reader.run(quote_script(actor.organisation_id, body.ask(), clock.now(), body.currency))
    return QuoteOut.model_validate(quote_fields(body.model, found))


@router.post("/changes")
async def change_price_book(
    body: PriceChangeIn, actor: PriceAdmin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> PriceVersionOut:
    """Write rates and modifiers of one price list together; they begin in ten seconds, or at times to come."""
    written = await change_prices(session, actor, body.change(), ids, clock)
    counts = {"rates": len(written.rates), "modifiers": len(written.modifiers)}
    return PriceVersionOut(object="price.version", version=written.number, **counts)


@router.put("/{model:path}")
async def set_price(
    model: Text, body: PriceIn, actor: PriceAdmin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> PriceOut:
    """Set what 1,000,000 tokens of a model cost, in ten seconds or at a time to come; what counted before stays."""
    return PriceOut.model_validate(
        price_fields(await service.set_rates(session, actor, model, body.new_rates(), ids, clock))
    )
