"""Endpoints and deliveries as values. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

TOPICS = ("budget.reached", "payment.failed")
"""What webhooks tell of."""
DeliveryState = Literal["waiting", "delivered", "dead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where an organisation's webhooks go, and of which topics."""

    id: str
    organisation_id: str
    url: str
    topics: tuple[str, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """Where webhooks are to go and of which topics, none for all; `inside` whether private networks are allowed."""

    url: str
    topics: tuple[str, ...]
    inside: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """News on its way to an endpoint: `attempts` so far, the next at `next_at` while it waits.

    `status` is what the endpoint answered last, None where it did not; `problem` says what was wrong.
    """

    news_id: str
    endpoint_id: str
    organisation_id: str
    topic: str
    state: DeliveryState
    attempts: int
    next_at: datetime
    last_at: datetime | None
    status: int | None
    problem: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A delivery to be tried: where to, what, and the sealed secrets to sign it with, the endpoint's own first."""

    delivery: Delivery
    url: str
    body: bytes
    sealed: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt: the endpoint's status, or why there is none."""

    status: int | None
    problem: str | None

    @property
    def is_success(self) -> bool:
        """Whether the endpoint has taken it: any 2xx."""
        return self.problem is None
