"""Requests as the gateway knows them while they are under way, and as it settles them."""

from datetime import datetime
from typing import Any

from galerne.gateway.settled import Ending, Flight, Settled, settle_flight
from galerne.gateway.wire.answer import TokenCount
from galerne.governance import Actor, ActorKind


def flight_of(request_id: str, organisation_id: str, at: datetime, **other: Any) -> Flight:
    """A whole chat completion that pays nothing, unless it is said otherwise."""
    usual: dict[str, Any] = {
        "workspace_id": None,
        "key_id": "key",
        "model": "large",
        "model_version": "1",
        "endpoint": "chat.completions",
        "dialect": "openai",
        "tier": "standard",
        "zone": "",
        "streamed": False,
        "modifier_ppm": 1_000_000,
    }
    return Flight(id=request_id, organisation_id=organisation_id, started_at=at, **(usual | other))


def ended(flight: Flight, tokens: tuple[int, int, int], at: datetime) -> Settled:
    """What is written when it has been answered."""
    ending = Ending(
        outcome="completed", status=200, finish_reason="stop", queue_ms=0.0, ttft_ms=None, total_ms=1.0, at=at
    )
    actor = Actor(ActorKind.API_KEY, flight.key_id, flight.organisation_id, None)
    return settle_flight(flight, TokenCount(*tokens), ending, "inference.completed", actor)
