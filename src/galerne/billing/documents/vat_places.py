"""Where a buyer is for VAT: member state, territory with a rate of its own, or outside the VAT area. Pure.

Source: Directive 2006/112/EC, articles 5 to 7 (territories outside the VAT area, Monaco, the Isle of Man), and the
withdrawal agreement's protocol on Northern Ireland, which covers goods and not services.
"""

from dataclasses import dataclass

from galerne.billing.documents.document import Address
from galerne.billing.documents.vat_rates import MEMBERS

# A postcode's beginning says which part of a member state lies outside its VAT area (article 6), or has its own rate.
_OUTSIDE_BY_POSTCODE = {
    "DE": ("27498", "78266"),  # Helgoland; Büsingen
    "ES": ("35", "38", "51", "52"),  # Canary Islands; Ceuta; Melilla
    "FI": ("22",),  # Åland
    "FR": ("973", "975", "976", "977", "978", "984", "986", "987", "988"),  # Guyane, Mayotte, overseas collectivities
    "GR": ("63086", "63087"),  # Mount Athos
    "IT": ("23041", "23030"),  # Livigno
}
_OUTSIDE_COUNTRIES = frozenset({"GF", "YT", "PM", "BL", "MF", "TF", "WF", "PF", "NC", "AX", "GL", "FO", "IC", "EA"})
_RATE_BY_POSTCODE = {
    "AT": {"6691": "AT-6691", "6991": "AT-6991", "6992": "AT-6992", "6993": "AT-6993"},
    "FR": {"971": "FR-971", "972": "FR-972", "974": "FR-974"},
    "PT": {"95": "PT-20", "96": "PT-20", "97": "PT-20", "98": "PT-20", "99": "PT-20"}
    | {"90": "PT-30", "91": "PT-30", "92": "PT-30", "93": "PT-30", "94": "PT-30"},
}
_OVERSEAS = frozenset({"FR-971", "FR-972", "FR-974"})
_SAME_AS = {"MC": ("FR", ""), "GP": ("FR", "971"), "MQ": ("FR", "972"), "RE": ("FR", "974")}
_BY_SUBDIVISION = {"ES-CN": "35", "ES-CE": "51", "ES-ML": "52", "FI-01": "22", "PT-20": "95", "PT-30": "90"}


@dataclass(frozen=True, slots=True)
class Place:
    """A member state or a third country, and the entry of the rate table that counts there (empty: no VAT of the EU).

    `outside_area` tells a part of a member state outside the EU's VAT area. It may have a rate of its own for sellers
    of that state, as the French overseas departments have.
    """

    country: str
    rate_of: str
    outside_area: bool = False

    @property
    def in_area(self) -> bool:
        """Whether the EU's VAT applies there."""
        return bool(self.rate_of) and not self.outside_area


def place_of(address: Address) -> Place:
    """Where this address is for the VAT on services. Northern Ireland is the United Kingdom there, Monaco France."""
    country, postcode = address.country, address.postcode.replace(" ", "").upper().removeprefix("AX-")
    if country in _SAME_AS:
        country, territory = _SAME_AS[country]
        postcode = territory or postcode
    postcode = _BY_SUBDIVISION.get(address.subdivision, postcode)
    if country in _OUTSIDE_COUNTRIES:
        return Place(country, "", outside_area=True)
    if country not in MEMBERS:
        return Place(country, "")
    if postcode.startswith(_OUTSIDE_BY_POSTCODE.get(country, ("\0",))):
        return Place(country, "", outside_area=True)
    own = _RATE_BY_POSTCODE.get(country, {})
    rate_of = next((entry for prefix, entry in own.items() if postcode.startswith(prefix)), country)
    return Place(country, rate_of, outside_area=rate_of in _OVERSEAS)
