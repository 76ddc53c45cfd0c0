"""Which VAT a digital service carries: category, rate, and the words that the law wants when none is charged. Pure.

Sources: Directive 2006/112/EC, articles 44 and 196 (to businesses), 58 and 59c (to consumers, and the threshold under
which the seller's own rate stays), 281 to 292 (small businesses), 369a to 369k (One Stop Shop); Implementing
Regulation (EU) 282/2011, article 18 (who is a business). The reason codes are those of the VATEX list.

The seller is established in a member state. A seller elsewhere is refused: their law isn't here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal

from galerne.billing.documents.document import Address, Vat
from galerne.billing.documents.extra import load
from galerne.billing.documents.vat_places import Place, place_of
from galerne.billing.documents.vat_rates import MEMBERS, standard_rate
from galerne.kernel import Unprocessable

Language = Literal["en", "fr", "de"]
Ground = Literal["domestic", "oss", "below_threshold", "reverse_charge", "small_business", "exempt_buyer", "outside_eu"]
"""Why a supply is taxed as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SellerVat:
    """A seller's VAT regime. `one_stop_shop`: registered in the Union scheme; `below_threshold`: sells less than
    EUR 10,000 a year to consumers of other member states and hasn't chosen otherwise (article 59c).
    """

    address: Address
    vat_id: str
    small_business: bool = False
    one_stop_shop: bool = False
    below_threshold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BuyerVat:
    """Who buys. `exemption_code` is a VATEX code that a competent authority has granted (VATEX-EU-151-1B for an
    international body, say), `exemption_reason` its text.
    """

    address: Address
    is_business: bool
    vat_id: str = ""
    exemption_code: str = ""
    exemption_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VatDecision:
    """How to tax: `vat` for the lines, `ground` why, `place` whose rate it is (empty: no VAT of the EU)."""

    vat: Vat
    ground: Ground
    place: str


REASONS: Mapping[Ground, Mapping[Language, str]] = MappingProxyType(
    {
        "reverse_charge": {
            "en": "Reverse charge: the customer owes the VAT (Directive 2006/112/EC, Art. 196)",
            "fr": "Autoliquidation : la TVA est due par le client (directive 2006/112/CE, art. 196)",
            "de": "Steuerschuldnerschaft des Leistungsempfängers (Richtlinie 2006/112/EG, Art. 196)",
        },
        "outside_eu": {
            "en": "Not subject to VAT: supplied outside the EU's VAT area (Directive 2006/112/EC, Art. 44 and 58)",
            "fr": "Hors du champ de la TVA : prestation localisée hors de l'UE (directive 2006/112/CE, art. 44 et 58)",
            "de": "Nicht steuerbar: Leistungsort außerhalb der EU (Richtlinie 2006/112/EG, Art. 44 und 58)",
        },
        "small_business": {
            "en": "Exempt: small enterprise (Directive 2006/112/EC, Art. 284)",
            "fr": "TVA non applicable : franchise des petites entreprises (directive 2006/112/CE, art. 284)",
            "de": "Steuerfrei: Kleinunternehmer (Richtlinie 2006/112/EG, Art. 284)",
        },
    }
)
_NATIONAL_SMALL_BUSINESS = {
    "FR": ("VATEX-FR-FRANCHISE", "TVA non applicable, art. 293 B du CGI"),
    "DE": ("", "Steuerfreier Umsatz eines Kleinunternehmers nach § 19 UStG"),
    "AT": ("", "Steuerfrei gemäß § 6 Abs. 1 Z 27 UStG (Kleinunternehmer)"),
}
_CODES: Mapping[Ground, str] = MappingProxyType({"reverse_charge": "VATEX-EU-AE", "outside_eu": "VATEX-EU-O"})


def is_vat_id(value: str, country: str) -> bool:
    """Whether this has the form, check digits included, of a VAT id that this member state issues.

    Nobody is asked whether it is in use: that is VIES's to say. `XI` is a form for goods only, and no member state's.
    """
    prefix = "EL" if country == "GR" else country
    compact = value.replace(" ", "").upper()
    vat: Any = load("stdnum.eu.vat")
    return country in MEMBERS and compact.startswith(prefix) and bool(vat.is_valid(compact))


def decide_vat(seller: SellerVat, buyer: BuyerVat, supplied_on: date, language: Language = "en") -> VatDecision:
    """How a digital service from this seller to this buyer is taxed on this day.

    A business without a VAT id of its member state counts as a consumer (Regulation 282/2011, article 18), unless it
    sits where the seller sits or outside the EU. Raises `Unprocessable` when the seller has no regime for the sale.
    """
    home, there = place_of(seller.address), place_of(buyer.address)
    if not home.in_area:
        raise Unprocessable(
            f"The seller is in {seller.address.country} {seller.address.postcode}: outside the EU's VAT area no rule"
            " of ours decides its VAT",
            code="seller_outside_eu",
        )
    if there.in_area and buyer.exemption_code:
        vat = Vat(category="E", reason_code=buyer.exemption_code, reason=buyer.exemption_reason)
        return VatDecision(vat=vat, ground="exempt_buyer", place=there.rate_of)
    ground = _ground(seller, buyer, home, there)
    if ground in ("domestic", "oss", "below_threshold"):
        # Within one state a territory's own rate counts for whoever is there, under that state's law.
        place = home.rate_of if ground == "below_threshold" else there.rate_of
        return VatDecision(vat=Vat(category="S", rate=standard_rate(place, supplied_on)), ground=ground, place=place)
    return VatDecision(
        vat=_untaxed(ground, home, language), ground=ground, place="" if ground == "outside_eu" else there.rate_of
    )


def _ground(seller: SellerVat, buyer: BuyerVat, home: Place, there: Place) -> Ground:
    if there.country == home.country and there.rate_of:
        return "small_business" if seller.small_business else "domestic"
    if not there.in_area:
        return "outside_eu"
    if buyer.is_business and is_vat_id(buyer.vat_id, there.country):
        return _reverse_charge(seller, home)
    if seller.one_stop_shop:
        return "oss"
    if seller.below_threshold:
        return "small_business" if seller.small_business else "below_threshold"
    raise Unprocessable(
        f"A sale to a consumer in {there.country} is taxed there: register for the One Stop Shop, or say that the"
        " seller stays below the threshold of article 59c",
        code="no_vat_regime",
    )


def _reverse_charge(seller: SellerVat, home: Place) -> Ground:
    if not is_vat_id(seller.vat_id, home.country):
        raise Unprocessable(
            f"A reverse charge needs the seller's VAT id of {home.country}, and {seller.vat_id or 'none'!r} is none",
            code="invalid_vat_id",
            param="seller.vat_id",
        )
    return "reverse_charge"


def _untaxed(ground: Ground, home: Place, language: Language) -> Vat:
    reason_code, reason = _CODES.get(ground, ""), REASONS[ground][language]
    if ground == "small_business":
        reason_code, reason = _NATIONAL_SMALL_BUSINESS.get(home.country, (reason_code, reason))
    categories: Mapping[Ground, Literal["AE", "O", "E"]] = {"reverse_charge": "AE", "outside_eu": "O"}
    return Vat(category=categories.get(ground, "E"), rate=Decimal(0), reason_code=reason_code, reason=reason)
