from datetime import UTC, datetime

from galerne.gateway import model_card
from galerne.models import Address
from tests.gateway.installation import model

PLACES = tuple(
    Address(id=zone, url=f"http://{zone}/v1", zone=zone, created_at=datetime(2026, 11, 23, tzinfo=UTC))
    for zone in ("on-prem", "fr")
)


def test_a_card_names_every_zone_where_the_model_runs_and_no_address() -> None:
    card = model_card(model("big", addresses=PLACES))
    assert card["zones"] == ["fr", "on-prem"]
    assert "http" not in str(card)


def test_a_card_of_an_embedded_model_names_where_its_engine_stands() -> None:
    assert model_card(model("brise", engine="llamacpp", zone="eu"))["zones"] == ["eu"]


def test_a_card_of_an_adapter_names_its_base() -> None:
    assert model_card(model("legal", adapter_of="big", addresses=PLACES))["root"] == "big"
    assert "root" not in model_card(model("big", addresses=PLACES))
