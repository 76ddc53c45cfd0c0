"""The standard VAT rate of every member state of the EU, with the dates of its changes. Data, and a look-up. Pure.

Digital services are taxed at the standard rate everywhere in the Union, so no reduced rate is here.

Sources: the European Commission's "Taxes in Europe" database (TEDB, ec.europa.eu/taxation_customs/tedb) for the rates,
national law for the changes, as named beside each. `REVIEWED_ON` says when somebody last compared the two: read TEDB
again, change what changed, and then the date.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal
from types import MappingProxyType

from galerne.kernel import Unprocessable

REVIEWED_ON = date(2026, 11, 23)
GOOD_FOR = timedelta(days=548)
"""A tax point later than this after the review is refused: a rate may have changed meanwhile."""

BEGINS_ON = date(2021, 7, 1)
"""The table's first day, on which the One Stop Shop began (Directive (EU) 2017/2455)."""

_Changes = tuple[tuple[date, str], ...]


def _since_ever(rate: str) -> _Changes:
    return ((BEGINS_ON, rate),)


RATES: Mapping[str, _Changes] = MappingProxyType(
    {
        "AT": _since_ever("20"),
        "BE": _since_ever("21"),
        "BG": _since_ever("20"),
        "CY": _since_ever("19"),
        "CZ": _since_ever("21"),
        "DE": _since_ever("19"),
        "DK": _since_ever("25"),
        # Käibemaksuseadus § 15, changed twice
        "EE": (*_since_ever("20"), (date(2024, 1, 1), "22"), (date(2025, 7, 1), "24")),
        "ES": _since_ever("21"),
        # Arvonlisäverolaki 1501/1993, § 84, changed by 362/2024
        "FI": (*_since_ever("24"), (date(2024, 9, 1), "25.5")),
        "FR": _since_ever("20"),
        "GR": _since_ever("24"),
        "HR": _since_ever("25"),
        "HU": _since_ever("27"),
        "IE": _since_ever("23"),
        "IT": _since_ever("22"),
        "LT": _since_ever("21"),
        # Loi du 26 octobre 2022: one point less during 2023
        "LU": (*_since_ever("17"), (date(2023, 1, 1), "16"), (date(2024, 1, 1), "17")),
        "LV": _since_ever("21"),
        "MT": _since_ever("18"),
        "NL": _since_ever("21"),
        "PL": _since_ever("23"),
        "PT": _since_ever("23"),
        # Legea 141/2025
        "RO": (*_since_ever("19"), (date(2025, 8, 1), "21")),
        "SE": _since_ever("25"),
        "SI": _since_ever("22"),
        # Zákon 278/2024 Z. z.
        "SK": (*_since_ever("20"), (date(2025, 1, 1), "23")),
        # Territories with a rate of their own, inside the VAT area or under their state's law
        "PT-20": _since_ever("16"),  # Azores
        "PT-30": _since_ever("22"),  # Madeira
        "AT-6691": _since_ever("19"),  # Jungholz
        "AT-6991": _since_ever("19"),  # Mittelberg: Riezlern
        "AT-6992": _since_ever("19"),  # Mittelberg: Hirschegg
        "AT-6993": _since_ever("19"),  # Mittelberg
        "FR-971": _since_ever("8.5"),  # Guadeloupe: Code général des impôts, article 296
        "FR-972": _since_ever("8.5"),  # Martinique
        "FR-974": _since_ever("8.5"),  # La Réunion
    }
)
"""Per country, or country and territory: since when, and what per cent; in the order of time."""

MEMBERS = frozenset(place for place in RATES if "-" not in place)
"""The 27 member states, as ISO 3166-1 codes."""


def standard_rate(place: str, on: date) -> Decimal:
    """The standard rate in per cent of this place (a country, or one of the territories above) on this day.

    Raises `Unprocessable` for a place without a rate, and for a day that the table doesn't cover.
    """
    if place not in RATES:
        raise Unprocessable(f"There is no VAT rate for {place} in the table", code="unknown_vat_place")
    if not BEGINS_ON <= on <= REVIEWED_ON + GOOD_FOR:
        raise Unprocessable(
            f"The VAT table was reviewed on {REVIEWED_ON} and covers {BEGINS_ON} to {REVIEWED_ON + GOOD_FOR},"
            f" not {on}: review galerne/billing/documents/vat_rates.py against TEDB",
            code="vat_table_out_of_date",
        )
    return Decimal([rate for since, rate in RATES[place] if since <= on][-1])
