"""What is missing at an issuer or in a billing profile for an XRechnung, in the words of whoever can set it. Pure."""

from galerne.billing.documents.xrechnung import xrechnung_faults
from galerne.billing.invoices.frozen import FrozenDocument

_ISSUER = {
    "payment": "iban",
    "seller": "vat_id or tax_number",
    "seller.contact": "contact",
    "seller.contact.name": "contact.name",
    "seller.contact.phone": "contact.phone",
    "seller.contact.email": "contact.email",
    "seller.address.city": "address.city",
    "seller.address.postcode": "address.postcode",
}
_PROFILE = {
    "buyer_reference": "buyer_reference (the Leitweg-ID, or what the authority gave instead)",
    "buyer.address.city": "address.city",
    "buyer.address.postcode": "address.postcode",
}


def missing_for_germany(frozen: FrozenDocument) -> tuple[str, ...]:
    """The settings that a German authority's invoice lacks, each with what to do and the rule that asks for it.

    Nothing for an invoice that is no XRechnung, and for one that breaks none of its rules but by warnings.
    """
    if frozen.flavour != "xrechnung":
        return ()
    draft = frozen.document.draft
    found = list[str]()
    for fault in xrechnung_faults(frozen.document):
        if not fault.is_fatal:
            continue
        if fault.location == "buyer.electronic_address":
            # It takes both addresses.
            names = [("issuer", draft.seller.electronic_address), ("billing profile", draft.buyer.electronic_address)]
            found += [f"set electronic_address of the {whose} ({fault.rule})" for whose, has in names if has is None]
        elif fault.location in _PROFILE:
            found.append(f"set {_PROFILE[fault.location]} of the billing profile ({fault.rule})")
        else:
            found.append(f"set {_ISSUER[fault.location]} of the issuer ({fault.rule})")
    return tuple(found)
