"""Whether a process lives, whether it can answer, and its figures: routes that need no key, nor the control plane."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from galerne.apps.duty_figures import duty_figures
from galerne.apps.installation import Installation
from galerne.kernel import Database

__all__ = ["HEALTH", "health_routes", "health_schema"]

_PATIENCE_S = 2.0
HEALTH = {
    "/healthz": "Whether this process runs.",
    "/readyz": "Whether requests can be answered: the database, and each engine of this installation.",
    "/metrics": "Figures for Prometheus; no tenant, key or text is named in them.",
}
"""The paths, and what each of them tells."""


def health_routes(installation: Installation) -> list[Route]:
    """The routes of `HEALTH` for `installation`."""

    async def alive(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        return await _readiness(installation)

    async def metrics(_: Request) -> Response:
        shared = installation.scrapes
        text = generate_latest(installation.registry) if shared is None else await shared.all()
        return Response(text + await duty_figures(installation.database), media_type=CONTENT_TYPE_LATEST)

    answers: tuple[Callable[[Request], Awaitable[Response]], ...] = (alive, ready, metrics)
    return [Route(path, answer, methods=["GET"]) for path, answer in zip(HEALTH, answers, strict=True)]


def health_schema() -> dict[str, Any]:
    """The `paths` of these routes, to be merged into the control plane's document."""
    return {
        path: {
            "get": {
                "tags": ["Health"],
                "operationId": path.removeprefix("/"),
                "summary": path.removeprefix("/").capitalize(),
                "description": said,
                "security": [],
                "responses": {"200": {"description": "It does, or they can; and the figures, as text."}},
            }
        }
        for path, said in HEALTH.items()
    }


async def _readiness(installation: Installation) -> Response:
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
