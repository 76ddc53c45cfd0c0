from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import pytest

from galerne.billing.documents.document import Address
from galerne.billing.documents.vat import BuyerVat, SellerVat, decide_vat, is_vat_id
from galerne.billing.documents.vat_rates import BEGINS_ON, GOOD_FOR, MEMBERS, RATES, REVIEWED_ON, standard_rate
from galerne.kernel import Unprocessable

DAY = date(2026, 11, 15)


def at(country: str, postcode: str = "", subdivision: str = "") -> Address:
    return Address(line1="1", city="x", postcode=postcode, country=country, subdivision=subdivision)


FRENCH = SellerVat(address=at("FR", "44000"), vat_id="FR40303265045", one_stop_shop=True)
GERMAN = SellerVat(address=at("DE", "10115"), vat_id="DE136695976", one_stop_shop=True)
SMALL = SellerVat(address=at("FR", "44000"), vat_id="FR40303265045", small_business=True, below_threshold=True)
LOCAL = SellerVat(address=at("FR", "44000"), vat_id="FR40303265045", below_threshold=True)


def person(country: str, postcode: str = "", subdivision: str = "") -> BuyerVat:
    return BuyerVat(address=at(country, postcode, subdivision), is_business=False)


def business(country: str, vat_id: str = "", postcode: str = "") -> BuyerVat:
    return BuyerVat(address=at(country, postcode), is_business=True, vat_id=vat_id)


@dataclass(frozen=True)
class Row:
    seller: SellerVat
    buyer: BuyerVat
    expected: str


TABLE = {
    "at home, a business": Row(FRENCH, business("FR", "FR83404833048"), "S 20 domestic"),
    "at home, a consumer": Row(FRENCH, person("FR", "75001"), "S 20 domestic"),
    "a German at home": Row(GERMAN, business("DE", "DE136695976"), "S 19 domestic"),
    "Monaco is France": Row(FRENCH, business("MC"), "S 20 domestic"),
    "Monaco is a member state to others": Row(GERMAN, person("MC"), "S 20 oss"),
    "a business of another member state": Row(FRENCH, business("DE", "DE136695976"), "AE 0 reverse_charge VATEX-EU-AE"),
    "a VAT id with spaces": Row(FRENCH, business("DE", "de 136 695 976"), "AE 0 reverse_charge VATEX-EU-AE"),
    "Greece's ids begin with EL": Row(FRENCH, business("GR", "EL094259216"), "AE 0 reverse_charge VATEX-EU-AE"),
    "a VAT id with a wrong digit is a consumer's": Row(FRENCH, business("DE", "DE136695977"), "S 19 oss"),
    "another state's VAT id is a consumer's": Row(FRENCH, business("AT", "DE136695976"), "S 20 oss"),
    "a business without a VAT id is a consumer": Row(FRENCH, business("DE"), "S 19 oss"),
    "a consumer in Finland": Row(FRENCH, person("FI", "00100"), "S 25.5 oss"),
    "a consumer in Hungary": Row(FRENCH, person("HU"), "S 27 oss"),
    "below the threshold the seller's rate stays": Row(LOCAL, person("HU"), "S 20 below_threshold"),
    "a small business at home": Row(SMALL, person("FR"), "E 0 small_business VATEX-FR-FRANCHISE"),
    "a small business's consumer abroad": Row(SMALL, person("DE"), "E 0 small_business VATEX-FR-FRANCHISE"),
    "a small business to a business abroad": Row(
        SMALL, business("DE", "DE136695976"), "AE 0 reverse_charge VATEX-EU-AE"
    ),
    "an American business": Row(FRENCH, business("US"), "O 0 outside_eu VATEX-EU-O"),
    "a Swiss consumer": Row(FRENCH, person("CH"), "O 0 outside_eu VATEX-EU-O"),
    "a British business": Row(FRENCH, business("GB", "GB980780684"), "O 0 outside_eu VATEX-EU-O"),
    "Northern Ireland is outside for services": Row(FRENCH, business("GB", "XI110305878"), "O 0 outside_eu VATEX-EU-O"),
    "and written as a country too": Row(FRENCH, business("XI", "XI110305878"), "O 0 outside_eu VATEX-EU-O"),
    "the Canary Islands, by postcode": Row(FRENCH, person("ES", "35001"), "O 0 outside_eu VATEX-EU-O"),
    "the Canary Islands, by subdivision": Row(FRENCH, person("ES", "", "ES-CN"), "O 0 outside_eu VATEX-EU-O"),
    "Ceuta": Row(FRENCH, person("ES", "51001"), "O 0 outside_eu VATEX-EU-O"),
    "the Spanish mainland": Row(FRENCH, person("ES", "28001"), "S 21 oss"),
    "Büsingen": Row(FRENCH, person("DE", "78266"), "O 0 outside_eu VATEX-EU-O"),
    "Livigno": Row(FRENCH, person("IT", "23041"), "O 0 outside_eu VATEX-EU-O"),
    "Åland": Row(FRENCH, person("FI", "22100"), "O 0 outside_eu VATEX-EU-O"),
    "Madeira": Row(FRENCH, person("PT", "9000-001"), "S 22 oss"),
    "the Azores": Row(FRENCH, person("PT", "9500-001"), "S 16 oss"),
    "Jungholz": Row(FRENCH, person("AT", "6691"), "S 19 oss"),
    "La Réunion from France, by its own code": Row(FRENCH, business("RE", "", "97400"), "S 8.5 domestic"),
    "La Réunion from France, by postcode": Row(FRENCH, person("FR", "97400"), "S 8.5 domestic"),
    "La Réunion is outside the EU's VAT area to a German": Row(GERMAN, person("RE"), "O 0 outside_eu VATEX-EU-O"),
    "French Guiana knows no VAT": Row(FRENCH, person("GF", "97300"), "O 0 outside_eu VATEX-EU-O"),
    "an exempt international body": Row(
        FRENCH,
        BuyerVat(address=at("BE"), is_business=True, exemption_code="VATEX-EU-151-1B", exemption_reason="Art. 151"),
        "E 0 exempt_buyer VATEX-EU-151-1B",
    ),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
def test_the_table_of_vat_decisions(row: Row) -> None:
    decided = decide_vat(row.seller, row.buyer, DAY)
    told = f"{decided.vat.category} {decided.vat.rate} {decided.ground} {decided.vat.reason_code}".strip()
    assert told == row.expected
    assert (decided.vat.category == "S") != bool(decided.vat.reason)


@pytest.mark.parametrize(
    ("code", "seller", "buyer"),
    [
        ("no_vat_regime", SellerVat(address=at("FR"), vat_id="FR40303265045"), person("DE")),
        ("invalid_vat_id", SellerVat(address=at("FR"), vat_id="FR123"), business("DE", "DE136695976")),
        ("seller_outside_eu", SellerVat(address=at("CH"), vat_id=""), person("FR")),
        ("seller_outside_eu", SellerVat(address=at("ES", "35001"), vat_id=""), person("FR")),
    ],
)
def test_a_sale_that_no_regime_covers_is_refused(code: str, seller: SellerVat, buyer: BuyerVat) -> None:
    with pytest.raises(Unprocessable) as refused:
        decide_vat(seller, buyer, DAY)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("place", "day", "rate"),
    [
        ("DE", "2021-07-01", "19"),
        ("EE", "2023-12-31", "20"),
        ("EE", "2024-01-01", "22"),
        ("EE", "2025-06-30", "22"),
        ("EE", "2025-07-01", "24"),
        ("FI", "2024-08-31", "24"),
        ("FI", "2024-09-01", "25.5"),
        ("LU", "2022-12-31", "17"),
        ("LU", "2023-01-01", "16"),
        ("LU", "2024-01-01", "17"),
        ("RO", "2025-07-31", "19"),
        ("RO", "2025-08-01", "21"),
        ("SK", "2024-12-31", "20"),
        ("SK", "2025-01-01", "23"),
    ],
)
def test_a_rate_is_that_of_the_day(place: str, day: str, rate: str) -> None:
    assert standard_rate(place, date.fromisoformat(day)) == Decimal(rate)


def test_the_27_members_have_the_rates_of_2026() -> None:
    told = {
        "AT": "20",
        "BE": "21",
        "BG": "20",
        "CY": "19",
        "CZ": "21",
        "DE": "19",
        "DK": "25",
        "EE": "24",
        "ES": "21",
        "FI": "25.5",
        "FR": "20",
        "GR": "24",
        "HR": "25",
        "HU": "27",
        "IE": "23",
        "IT": "22",
        "LT": "21",
        "LU": "17",
        "LV": "21",
        "MT": "18",
        "NL": "21",
        "PL": "23",
        "PT": "23",
        "RO": "21",
        "SE": "25",
        "SI": "22",
        "SK": "23",
    }
    assert len(told) == 27
    assert {place: str(standard_rate(place, DAY)) for place in MEMBERS} == told


def test_every_entry_of_the_table_begins_with_it_and_goes_on_in_order() -> None:
    for changes in RATES.values():
        days = [day for day, _ in changes]
        assert days[0] == BEGINS_ON
        assert days == sorted(set(days))


@pytest.mark.parametrize("day", [date(2021, 6, 30), REVIEWED_ON + 2 * GOOD_FOR])
def test_a_day_that_the_table_does_not_cover_is_refused_and_says_where_to_look(day: date) -> None:
    with pytest.raises(Unprocessable, match="TEDB"):
        standard_rate("FR", day)


def test_the_words_come_in_the_languages_of_the_invoice() -> None:
    words = {
        decide_vat(FRENCH, business("DE", "DE136695976"), DAY, language).vat.reason for language in ("en", "fr", "de")
    }
    assert len(words) == 3


@pytest.mark.parametrize(
    ("value", "country", "valid"),
    [
        ("FR40303265045", "FR", True),
        ("FR 40 303 265 045", "FR", True),
        ("FR41303265045", "FR", False),
        ("EL094259216", "GR", True),
        ("GR094259216", "GR", False),
        ("XI110305878", "XI", False),
        ("GB980780684", "GB", False),
        ("", "FR", False),
    ],
)
def test_a_vat_id_is_checked_for_form_and_check_digits(value: str, country: str, valid: bool) -> None:
    assert is_vat_id(value, country) == valid
