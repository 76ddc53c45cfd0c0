"""The control plane as an application: every domain's routes, who may call them, documentation.

Inference, the list of models and health are not here: `api` answers them without FastAPI, and loads this module when
something else is first asked for.
"""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import RedirectResponse, Response
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline

from galerne import __version__
from galerne.apps.health import health_schema
from galerne.apps.installation import OPEN_PATHS, Installation
from galerne.apps.refusals import install_refusals
from galerne.apps.routes import journal as journal_routes
from galerne.apps.routes import limits as limit_routes
from galerne.apps.routes import proofs as proof_routes
from galerne.apps.routes import replicas as replica_routes
from galerne.billing import routes as billing_routes
from galerne.billing.budgets import budgets_router
from galerne.billing.contracts import contracts_router
from galerne.billing.costs import costs_router
from galerne.billing.invoice_usage import invoice_usage_router
from galerne.billing.invoices import invoices_router
from galerne.billing.payments import cards_router, payments_router
from galerne.billing.rating import routes as rating_routes
from galerne.billing.subscriptions import subscriptions_router
from galerne.gateway import PERMISSION, openapi_schema
from galerne.governance import Permission
from galerne.governance.access import RequiredPermission
from galerne.identity import routes as identity_routes
from galerne.kernel import invariant
from galerne.ledger import routes as ledger_routes
from galerne.metering import routes as metering_routes
from galerne.notices import routes as notices_routes

__all__ = ["ROUTERS", "DocumentedRoute", "control_plane", "documented_routes"]

ROUTERS = (
    identity_routes.router,
    billing_routes.router,
    rating_routes.rating_router,
    subscriptions_router,
    contracts_router,
    budgets_router,
    invoice_usage_router,
    invoices_router,
    costs_router,
    payments_router,
    cards_router,
    ledger_routes.router,
    metering_routes.router,
    notices_routes.router,
    journal_routes.router,
    proof_routes.router,
    limit_routes.router,
    replica_routes.router,
)
"""Every domain's routes."""


@dataclass(frozen=True, slots=True)
class DocumentedRoute:
    """A route as the reference lists it; `permission` None where none is needed."""

    method: str
    path: str
    permission: str | None
    summary: str


def documented_routes() -> list[DocumentedRoute]:
    """Every route that needs a key, by path: the data plane's first, then the control plane's."""
    inference = [
        DocumentedRoute(method.upper(), path, operation[PERMISSION], operation["summary"])
        for path, operations in openapi_schema()["paths"].items()
        for method, operation in operations.items()
    ]
    control = [
        DocumentedRoute(method, route.path, _permission(route), (route.description or route.name).partition("\n")[0])
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods or ())
    ]
    return [*inference, *sorted(control, key=lambda each: (each.path, each.method))]


def control_plane(installation: Installation) -> FastAPI:
    """The application; raises `InvariantViolated` when a route declares no permission."""
    app = FastAPIOffline(
        title="Galerne",
        version=__version__,
        description="Models in OpenAI's and Mistral's dialects, and their administration.",
        docs_url="/docs",
        redoc_url=None,
        max_body_size=installation.settings.max_body_bytes,
    )
    app.state.database = installation.database
    app.state.reader = installation.gateway.reader
    app.state.clock = installation.clock
    app.state.ids = installation.ids
    app.state.gateway = installation.gateway
    app.state.settings = installation.settings
    for router in (*ROUTERS, _front_door()):
        app.include_router(router)
    install_refusals(app)
    app.openapi = lambda: _openapi(app)
    _check_permissions(app)
    return app


def _front_door() -> APIRouter:
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def front_door() -> Response:
        return RedirectResponse("/docs")

    return router


def _check_permissions(app: FastAPI) -> None:
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path not in OPEN_PATHS:
            invariant(_permission(route) is not None, f"{route.path} declares no permission")


def _permission(route: APIRoute) -> Permission | None:
    for each in route.dependant.dependencies:
        if isinstance(each.call, RequiredPermission):
            return each.call.permission
    return None


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        inference = openapi_schema()
        schema["paths"] = {**inference["paths"], **schema["paths"], **health_schema()}
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {}).update(inference["components"]["schemas"])
        components["securitySchemes"] = {"ApiKey": {"type": "http", "scheme": "bearer", "description": "An API key."}}
        schema["security"] = [{"ApiKey": []}]
        app.openapi_schema = schema
    return app.openapi_schema
