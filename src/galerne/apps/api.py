"""The control plane as an application: routes, who may call them, what a refusal looks like, documentation.

The inference routes are not here: `asgi` sends them to the gateway before FastAPI sees them.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Receive, Scope, Send

from galerne import __version__, billing, identity, ledger, metering
from galerne.apps.duty_figures import duty_figures
from galerne.apps.refusals import install_refusals, refusal
from galerne.apps.routes import journal as journal_routes
from galerne.apps.routes import limits as limit_routes
from galerne.apps.routes import proofs as proof_routes
from galerne.apps.scrapes import SharedScrapes
from galerne.apps.wiring import EngineStates
from galerne.billing import costs, payments
from galerne.gateway import Gateway, KeyCache, key_reader, openapi_schema, presented_key
from galerne.gateway import router as models_router
from galerne.governance import Permission, RequiredPermission
from galerne.kernel import Clock, Database, GalerneError, Ids, Settings, invariant, log_context

_PATIENCE_S = 2.0
OPEN_PATHS = frozenset(
    {
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/docs",
        "/docs/oauth2-redirect",
        "/openapi.json",
        payments.WEBHOOK_PATH,
    }
)
"""Paths that need no key: they say nothing of any tenant, and whoever calls the webhook signs what it says."""
_OPEN_PREFIX = "/static-offline-docs/"


ROUTERS = (
    models_router,
    identity.router,
    billing.router,
    billing.rating_router,
    billing.subscriptions_router,
    billing.contracts_router,
    billing.budgets_router,
    billing.invoice_usage_router,
    billing.invoices_router,
    costs.costs_router,
    payments.payments_router,
    payments.cards_router,
    ledger.router,
    metering.router,
    journal_routes.router,
    proof_routes.router,
    limit_routes.router,
)
"""Every domain's routes on the control plane."""


@dataclass(frozen=True, slots=True)
class DocumentedRoute:
    """A route as the reference lists it; `permission` None where none is needed."""

    method: str
    path: str
    permission: str | None
    summary: str


def documented_routes() -> list[DocumentedRoute]:
    """Every route that needs a key, by path: inference first, then the control plane."""
    inference = [
        DocumentedRoute(method.upper(), path, Permission.INFERENCE_RUN, operation["summary"])
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


def create_app(installation: Installation) -> ASGIApp:
    """The whole HTTP surface: inference routes to the gateway, everything else to the control plane."""
    return _beside_gateway(_control_plane(installation), installation)


def create_gateway_app(installation: Installation) -> ASGIApp:
    """What a gateway that runs on its own answers: inference, the list of models, health and metrics."""
    app = FastAPI(title="Galerne", version=__version__, docs_url=None, redoc_url=None, openapi_url=None)
    _give_parts(app, installation)
    app.include_router(models_router)
    app.include_router(_health_routes(installation))
    install_refusals(app)
    _check_permissions(app)
    return _beside_gateway(app, installation)


def _beside_gateway(plane: FastAPI, installation: Installation) -> ASGIApp:
    control = _Authenticated(plane, installation)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and installation.gateway.handles(scope["path"]):
            await installation.gateway(scope, receive, send)
        else:
            await control(scope, receive, send)

    return app


def _control_plane(installation: Installation) -> FastAPI:
    app = FastAPIOffline(
        title="Galerne",
        version=__version__,
        description="Models in OpenAI's and Mistral's dialects, and their administration.",
        docs_url="/docs",
        redoc_url=None,
        max_body_size=installation.settings.max_body_bytes,
    )
    _give_parts(app, installation)
    for router in ROUTERS:
        app.include_router(router)
    app.include_router(_health_routes(installation))
    app.include_router(_front_door())
    install_refusals(app)
    app.openapi = lambda: _openapi(app)
    _check_permissions(app)
    return app


def _give_parts(app: FastAPI, installation: Installation) -> None:
    app.state.database = installation.database
    app.state.clock = installation.clock
    app.state.ids = installation.ids
    app.state.gateway = installation.gateway
    app.state.settings = installation.settings


def _health_routes(installation: Installation) -> APIRouter:
    router = APIRouter(tags=["Health"])

    @router.get("/healthz")
    async def alive() -> dict[str, str]:
        """Whether this process runs."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def ready() -> Response:
        """Whether requests can be answered: the database, and each engine of this installation."""
        parts = {"database": await _database_problem(installation.database)}
        if installation.gateway.settlement_failing:
            parts["settlement"] = "usage cannot be written"
        parts |= {
            f"engine {each.name}": None if each.ready else str(each.state) for each in installation.engines.replicas()
        }
        broken = any(parts.values())
        body = {
            "status": "not ready" if broken else "ready",
            "parts": {name: state or "ready" for name, state in parts.items()},
        }
        return JSONResponse(body, 503 if broken else 200, {"retry-after": "1"} if broken else None)

    @router.get("/metrics")
    async def metrics() -> Response:
        """Figures for Prometheus; no tenant, key or text is named in them."""
        shared = installation.scrapes
        text = generate_latest(installation.registry) if shared is None else await shared.all()
        return Response(text + await duty_figures(installation.database), media_type=CONTENT_TYPE_LATEST)

    return router


def _front_door() -> APIRouter:
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def front_door() -> Response:
        return RedirectResponse("/docs")

    return router


async def _database_problem(database: Database) -> str | None:
    # Left to itself when nothing comes: what hangs can hang in its cancellation too.
    asked = asyncio.create_task(_ask(database))
    if not (await asyncio.wait((asked,), timeout=_PATIENCE_S))[0]:
        return "does not answer"
    return asked.result()


async def _ask(database: Database) -> str | None:
    try:
        async with database.reading() as session:
            await session.execute(text("SELECT 1"))
    except (SQLAlchemyError, OSError) as error:
        return f"unreachable ({type(error).__name__})"
    return None


class _Authenticated:
    """Resolves the key of every request that needs one, and gives each answer its request id."""

    def __init__(self, app: ASGIApp, installation: Installation) -> None:
        self._app = app
        read = key_reader(installation.database, installation.clock)
        self._keys = KeyCache(read, installation.clock, staleness_s=installation.settings.key_staleness_s)
        self._ids = installation.ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._ids.new()
        stamped = [(b"x-request-id", request_id.encode()), (b"mistral-correlation-id", request_id.encode())]

        async def send_stamped(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *stamped]}
            await send(message)

        with log_context(request_id=request_id):
            try:
                if not _is_open(scope["path"]):
                    grant = await self._keys.resolve(presented_key(dict(scope["headers"])))
                    scope.setdefault("state", {})["actor"] = grant.actor
                await self._app(scope, receive, send_stamped)
            except GalerneError as error:
                await refusal(error, scope)(scope, receive, send_stamped)


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(_OPEN_PREFIX)


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
        schema["paths"] = {**inference["paths"], **schema["paths"]}
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {}).update(inference["components"]["schemas"])
        components["securitySchemes"] = {"ApiKey": {"type": "http", "scheme": "bearer", "description": "An API key."}}
        schema["security"] = [{"ApiKey": []}]
        app.openapi_schema = schema
    return app.openapi_schema
