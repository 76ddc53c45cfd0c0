"""The wire form of webhooks' endpoints and deliveries."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from galerne.kernel.web import Text
from galerne.notices.delivery import Delivery, DeliveryState, Endpoint


class EndpointIn(BaseModel):
    """Where webhooks are to go; without topics, all of them."""

    model_config = ConfigDict(extra="forbid")

    url: Text = Field(max_length=2000)
    topics: list[Text] = Field(default=[], max_length=20)


class EndpointOut(BaseModel):
    """Where webhooks go."""

    object: Literal["webhook_endpoint"]
    id: str
    url: str
    topics: list[str]
    created_at: datetime


class NewEndpointOut(EndpointOut):
    """An endpoint that was added; its signing secret is shown this once."""

    secret: str


class RotateIn(BaseModel):
    """For how many hours the secrets of before still sign beside the new one; with 0 only the new one signs at once."""

    model_config = ConfigDict(extra="forbid")

    overlap_hours: int = Field(default=24, ge=0, le=168)


class RotatedOut(NewEndpointOut):
    """An endpoint with its new secret, shown this once; until `old_secrets_until` older ones sign too."""

    old_secrets_until: datetime


class EndpointList(BaseModel):
    """Endpoints, oldest first."""

    object: Literal["list"]
    data: list[EndpointOut]


class DeliveryOut(BaseModel):
    """News on its way to an endpoint; `id` is the `webhook-id` that it is sent under."""

    object: Literal["webhook_delivery"]
    id: str
    endpoint_id: str
    topic: str
    state: DeliveryState
    attempts: int
    next_at: datetime | None
    last_at: datetime | None
    status: int | None
    problem: str | None
    created_at: datetime


class DeliveryList(BaseModel):
    """Deliveries, newest first."""

    object: Literal["list"]
    data: list[DeliveryOut]


def endpoint_fields(endpoint: Endpoint) -> dict[str, object]:
    """The fields of `EndpointOut`."""
    same = {name: getattr(endpoint, name) for name in ("id", "url", "created_at")}
    return {"object": "webhook_endpoint", **same, "topics": list(endpoint.topics)}


def delivery_fields(delivery: Delivery) -> dict[str, object]:
    """The fields of `DeliveryOut`."""
    names = ("endpoint_id", "topic", "state", "attempts", "last_at", "status", "problem", "created_at")
    same = {name: getattr(delivery, name) for name in names}
    next_at = delivery.next_at if delivery.state == "waiting" else None
    return {"object": "webhook_delivery", "id": delivery.news_id, **same, "next_at": next_at}
