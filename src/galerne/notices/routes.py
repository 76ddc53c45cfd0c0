"""HTTP for webhooks: an organisation says where they go, sees how they stand, and has one sent again."""

from datetime import timedelta
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query, Request

from galerne.governance import Actor, Permission
from galerne.governance.access import requires
from galerne.kernel import Ids, Settings
from galerne.kernel.sealing import Sealer, open_sealer
from galerne.kernel.web import Reading, RequestClock, RequestIds, Text, Transaction
from galerne.notices import service
from galerne.notices.delivery import DeliveryState, NewEndpoint
from galerne.notices.schemas import (
    DeliveryList,
    DeliveryOut,
    EndpointIn,
    EndpointList,
    EndpointOut,
    NewEndpointOut,
    RotatedOut,
    RotateIn,
    delivery_fields,
    endpoint_fields,
)

router = APIRouter(prefix="/v1/admin", tags=["Webhooks"])

Reader = Annotated[Actor, requires(Permission.BILLING_READ, whole_organisation=True)]
Admin = Annotated[Actor, requires(Permission.BILLING_MANAGE, whole_organisation=True)]
Limit = Annotated[int, Query(ge=1, le=1000)]


async def _seal(request: Request, ids: RequestIds) -> tuple[Sealer, Ids]:
    return open_sealer(cast(Settings, request.app.state.settings)), ids


Seal = Annotated[tuple[Sealer, Ids], Depends(_seal)]


@router.get("/webhook-endpoints")
async def list_endpoints(actor: Reader, session: Reading) -> EndpointList:
    """List where the organisation's webhooks go."""
    found = await service.list_endpoints(session, actor.organisation_id)
    return EndpointList(object="list", data=[EndpointOut.model_validate(endpoint_fields(each)) for each in found])


@router.post("/webhook-endpoints", status_code=201)
async def add_endpoint(
    body: EndpointIn, request: Request, actor: Admin, session: Transaction, ids: RequestIds, clock: RequestClock
) -> NewEndpointOut:
    """Have webhooks sent there; the answer holds the secret that signs them, shown this once."""
    settings = cast(Settings, request.app.state.settings)
    new = NewEndpoint(body.url, tuple(body.topics), settings.webhooks_inside)
    endpoint, secret = await service.add_endpoint(session, actor, new, open_sealer(settings), ids, clock)
    return NewEndpointOut.model_validate({**endpoint_fields(endpoint), "secret": secret})


@router.post("/webhook-endpoints/{endpoint_id}/rotate-secret")
async def rotate_secret(
    endpoint_id: Text, body: RotateIn, actor: Admin, session: Transaction, seal: Seal, clock: RequestClock
) -> RotatedOut:
    """Give the endpoint a new secret, shown this once; the old one signs beside it for `overlap_hours`."""
    overlap = timedelta(hours=body.overlap_hours)
    endpoint, secret, until = await service.rotate_secret(session, actor, endpoint_id, overlap, seal, clock)
    return RotatedOut.model_validate({**endpoint_fields(endpoint), "secret": secret, "old_secrets_until": until})


@router.delete("/webhook-endpoints/{endpoint_id}")
async def remove_endpoint(endpoint_id: Text, actor: Admin, session: Transaction, clock: RequestClock) -> EndpointOut:
    """Send no more webhooks there; what was to be sent is forgotten."""
    return EndpointOut.model_validate(
        endpoint_fields(await service.remove_endpoint(session, actor, endpoint_id, clock))
    )


@router.get("/webhook-deliveries")
async def list_deliveries(
    actor: Reader, session: Reading, state: DeliveryState | None = None, limit: Limit = 100
) -> DeliveryList:
    """List deliveries, newest first; `state=dead` those that nobody took."""
    found = await service.list_deliveries(session, actor.organisation_id, state, limit)
    return DeliveryList(object="list", data=[DeliveryOut.model_validate(delivery_fields(each)) for each in found])


@router.post("/webhook-deliveries/{delivery_id}/{endpoint_id}/resend")
async def resend(
    delivery_id: Text, endpoint_id: Text, actor: Admin, session: Transaction, clock: RequestClock
) -> DeliveryOut:
    """Send it again, under the same id."""
    sent = await service.resend(session, actor, delivery_id, endpoint_id, clock)
    return DeliveryOut.model_validate(delivery_fields(sent))
