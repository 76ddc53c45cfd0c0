"""What answers which path: the gateway inference, this module models and health, the control plane all the rest.

A process that serves inference loads nothing of the control plane: that takes half of its memory and of its start.
"""

import asyncio
from importlib import import_module
from typing import Any

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from galerne.apps.health import health_routes
from galerne.apps.installation import OPEN_PATHS, Installation
from galerne.apps.problems import refusal, told
from galerne.gateway import KeyCache, key_reader, model_routes, presented_key
from galerne.kernel import NotFound, get_logger, log_context, unnoticed

__all__ = ["create_app", "create_gateway_app"]

_OPEN_PREFIX = "/static-offline-docs/"


def create_app(installation: Installation) -> ASGIApp:
    """The whole HTTP surface."""
    return _beside_gateway(_ControlPlane(installation), installation)


def create_gateway_app(installation: Installation) -> ASGIApp:
    """What a gateway that runs on its own answers: inference, the list of models, health and metrics."""
    return _beside_gateway(_nothing_else, installation)


def _beside_gateway(others: ASGIApp, installation: Installation) -> ASGIApp:
    routes = [*model_routes(installation.database), *health_routes(installation)]
    authenticated = _Authenticated(Router(routes, redirect_slashes=False, default=others), installation)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and installation.gateway.handles(scope["path"]):
            await installation.gateway(scope, receive, send)
        else:
            await authenticated(scope, receive, send)

    return app


async def _nothing_else(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFound(f"There is nothing at {scope['path']}. See /docs for what there is.")


class _ControlPlane:
    """The control plane, loaded when something of it is first asked for: in a thread, for streams may be under way."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._loading: asyncio.Future[ASGIApp] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = await self._loaded()
        scope.pop("router", None)  # the one that found nothing here
        await app(scope, receive, send)

    async def _loaded(self) -> ASGIApp:
        if self._loading is None:
            self._loading = asyncio.ensure_future(asyncio.to_thread(self._load))
        try:
            return await asyncio.shield(self._loading)
        except Exception:
            self._loading = None  # whoever comes next tries again
            raise

    def _load(self) -> ASGIApp:
        clock = self._installation.clock
        began_s = clock.monotonic()
        with unnoticed():
            app = import_module("galerne.apps.control_plane").control_plane(self._installation)
        get_logger("api").info("control plane loaded", ms=round((clock.monotonic() - began_s) * 1000))
        return app


class _Authenticated:
    """Resolves the key of every request that needs one, gives each answer its request id, and refuses in dialect."""

    def __init__(self, app: ASGIApp, installation: Installation) -> None:
        self._app = app
        read = key_reader(installation.gateway.reader, installation.clock)
        self._keys = KeyCache(read, installation.clock, staleness_s=installation.settings.key_staleness_s)
        self._ids = installation.ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # nothing here speaks WebSocket
        request_id = self._ids.new()
        stamped = [(b"x-request-id", request_id.encode()), (b"mistral-correlation-id", request_id.encode())]
        begun = False

        async def send_stamped(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun, message = True, {**message, "headers": [*message["headers"], *stamped]}
            await send(message)

        with log_context(request_id=request_id):
            try:
                await self._answer(scope, receive, send_stamped)
            except Exception as error:
                if begun:
                    raise
                await refusal(told(error, scope), scope)(scope, receive, send_stamped)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self  # Starlette then raises what its router refuses, instead of answering by itself
        if not _is_open(scope["path"]):
            grant = await self._keys.resolve(presented_key(dict(scope["headers"])))
            scope.setdefault("state", {})["actor"] = grant.actor
        await self._app(scope, receive, send)


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(_OPEN_PREFIX)
