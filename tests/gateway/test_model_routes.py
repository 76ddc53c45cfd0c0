"""The list of models over HTTP, as both official clients read it."""

from collections.abc import AsyncGenerator

import pytest
from httpx2 import ASGITransport, AsyncClient
from mistralai.client.models import BaseModelCard
from openai.types import Model as OpenAIModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from galerne.gateway import error_body, model_routes
from galerne.governance import Actor, Permission
from galerne.governance.actors import ActorKind
from galerne.kernel import Database, GalerneError
from tests.gateway.installation import model, prepared

READER = Actor(ActorKind.API_KEY, "key", "org", None, frozenset({Permission.MODELS_READ}))


@pytest.fixture
async def client(sqlite: Database) -> AsyncGenerator[AsyncClient]:
    await prepared(sqlite, [model("brise-1", aliases=("brise",)), model("lab/model", kind="embedding")])

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, GalerneError)
        return Response(error_body(error, "openai"), error.status)

    routes = Starlette(routes=model_routes(sqlite), exception_handlers={GalerneError: refused})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await routes({**scope, "state": {"actor": READER}}, receive, send)

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client


@pytest.mark.parametrize("mount", ["", "/openai", "/mistral"])
async def test_models_are_listed_with_cards_that_both_clients_parse(client: AsyncClient, mount: str) -> None:
    answer = (await client.get(f"{mount}/v1/models")).json()
    assert (answer["object"], [card["id"] for card in answer["data"]]) == ("list", ["brise-1", "lab/model"])
    for card in answer["data"]:
        assert OpenAIModel.model_validate(card).owned_by == "galerne"
        assert BaseModelCard.model_validate(card).max_context_length == 4096


async def test_a_model_is_found_by_id_and_by_alias_and_a_name_may_hold_a_slash(client: AsyncClient) -> None:
    assert (await client.get("/v1/models/brise-1")).json()["id"] == "brise-1"
    assert (await client.get("/v1/models/brise")).json()["id"] == "brise"
    assert (await client.get("/mistral/v1/models/lab/model")).json()["capabilities"]["embeddings"] is True


async def test_an_unknown_model_is_404(client: AsyncClient) -> None:
    answer = await client.get("/v1/models/nothing-like-it")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
