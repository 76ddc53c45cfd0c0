"""The running parts of an installation, as whoever answers requests is given them."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from galerne.apps.scrapes import SharedScrapes
from galerne.apps.wiring import EngineStates
from galerne.gateway import Gateway
from galerne.kernel import Clock, Database, Ids, Settings

__all__ = ["Installation"]


@dataclass(frozen=True, slots=True)
class Installation:
    """The running parts that the application is made of; `scrapes` where several processes share a port."""

    settings: Settings
    database: Database
    clock: Clock
    ids: Ids
    engines: EngineStates
    gateway: Gateway
    registry: CollectorRegistry
    scrapes: SharedScrapes | None = None


OPEN_PATHS = frozenset(
    {
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/docs",
        "/docs/oauth2-redirect",
        "/openapi.json",
        "/v1/webhooks/stripe",
    }
)
"""Paths that need no key: they say nothing of any tenant, and whoever calls the webhook signs what it says."""
