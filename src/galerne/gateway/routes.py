"""HTTP for the list of models, in both dialects and at both mounts: clients ask for it before their first request.

Without the control plane's framework, so that a process that serves inference alone never loads that.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from galerne.gateway.cards import model_card
from galerne.governance import Permission, require
from galerne.kernel import BadRequest, Database
from galerne.models import find_model, list_models

__all__ = ["model_routes"]

_PATHS = ("/openai/v1/models", "/mistral/v1/models", "/v1/models")


def model_routes(database: Database) -> list[Route]:
    """The routes; whoever puts them in an application puts the caller's `Actor` into `request.state.actor`."""

    async def all_cards(request: Request) -> Response:
        require(request.state.actor, Permission.MODELS_READ)
        async with database.reading() as session:
            models = await list_models(session)
        return _json({"object": "list", "data": [model_card(model) for model in models]})

    async def one_card(request: Request) -> Response:
        require(request.state.actor, Permission.MODELS_READ)
        name: str = request.path_params["name"]
        if "\x00" in name:
            raise BadRequest("name: must not contain U+0000", code="invalid_value", param="name")
        async with database.reading() as session:
            return _json(model_card(await find_model(session, name), name))

    # A name may hold slashes, as in "organisation/model": hence the path converter.
    return [*_routes("", all_cards), *_routes("/{name:path}", one_card)]


def _routes(rest: str, answer: Callable[[Request], Awaitable[Response]]) -> list[Route]:
    return [Route(path + rest, answer, methods=["GET"]) for path in _PATHS]


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
