import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError
from openai import NotFoundError, OpenAI

from tests.serving import Server


def test_openais_client_lists_and_gets_models(openai: OpenAI) -> None:
    listed = {model.id: model for model in openai.models.list()}
    assert {"brise", "minilm"} <= set(listed)
    assert listed["brise"].object == "model"
    assert listed["brise"].owned_by
    assert openai.models.retrieve("brise").id == "brise"


def test_mistrals_client_lists_and_gets_cards(mistral: Mistral) -> None:
    cards = {card.id: card for card in mistral.models.list().data or []}
    assert cards["brise"].capabilities.completion_chat
    assert cards["brise"].capabilities.completion_fim
    assert cards["brise"].capabilities.function_calling
    assert not cards["minilm"].capabilities.completion_chat
    card = mistral.models.retrieve(model_id="brise")
    assert card.id == "brise"
    assert card.max_context_length > 0


def test_a_model_that_is_not_there_is_not_found(openai: OpenAI, mistral: Mistral) -> None:
    with pytest.raises(NotFoundError):
        openai.models.retrieve("nothing")
    with pytest.raises(SDKError) as refused:
        mistral.models.retrieve(model_id="nothing")
    assert refused.value.status_code == 404


def test_listing_needs_the_scope(server: Server) -> None:
    key = server.new_key(scopes=["inference:run"])
    assert server.call("GET", "/v1/models", key=key.secret).status == 403
