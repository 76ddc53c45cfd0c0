"""HTTP for the list of models, in both dialects and at both mounts; control plane, for it is not called per token."""

from typing import Annotated, Any

from fastapi import APIRouter

from galerne.gateway.cards import model_card
from galerne.governance import Actor, Permission, requires
from galerne.kernel.web import Reading, Text
from galerne.models import find_model, list_models

router = APIRouter(tags=["Models"])

ModelReader = Annotated[Actor, requires(Permission.MODELS_READ)]


@router.get("/openai/v1/models", include_in_schema=False)
@router.get("/mistral/v1/models", include_in_schema=False)
@router.get("/v1/models")
async def list_model_cards(actor: ModelReader, session: Reading) -> dict[str, Any]:
    """List the models that can be asked for. The cards hold what both OpenAI's and Mistral's clients read."""
    return {"object": "list", "data": [model_card(model) for model in await list_models(session)]}


# A name may hold slashes, as in "organisation/model": hence the path converter.
@router.get("/openai/v1/models/{name:path}", include_in_schema=False)
@router.get("/mistral/v1/models/{name:path}", include_in_schema=False)
@router.get("/v1/models/{name:path}")
async def read_model_card(name: Text, actor: ModelReader, session: Reading) -> dict[str, Any]:
    """Read one model's card, by id or alias."""
    return model_card(await find_model(session, name), name)
