"""What the German CIUS XRechnung 3.0 asks for beyond EN 16931, of what we write. Pure.

The official rules (KoSIT's schematron) aren't in any package that we depend on: these are the rules BR-DE-* that a
document of ours could break, by the specification's numbers. Whoever sends to a German authority validates with KoSIT's
validator as well.
"""

import re
from collections.abc import Iterable

from galerne.billing.documents.cii import Flavour
from galerne.billing.documents.document import Document, Payment
from galerne.billing.documents.validation import Finding

_WARNINGS = frozenset({"BR-DE-19", "BR-DE-27", "BR-DE-28"})
LEITWEG_SCHEME = "0204"
"""The electronic address scheme (EAS) of German authorities."""
_LEITWEG = re.compile(r"[0-9]{2,12}(-[0-9A-Z]{1,30})?-[0-9]{2}")
_EMAIL = re.compile(r"[^@\s]+@([^@.\s]+\.)+[^@.\s]+")


def flavour_of(document: Document) -> Flavour:
    """How this document is written: as an XRechnung for a German authority, which a Leitweg-ID names.

    It is reached under one (EAS 0204), or is in Germany and has one as its reference; nobody else asks for XRechnung.
    """
    buyer = document.draft.buyer
    reached = buyer.electronic_address is not None and buyer.electronic_address.scheme == LEITWEG_SCHEME
    refers = buyer.address.country == "DE" and is_leitweg_id(document.draft.buyer_reference)
    return "xrechnung" if reached or refers else "factur-x"


def xrechnung_faults(document: Document) -> tuple[Finding, ...]:
    """The rules that this document breaks as an XRechnung, with KoSIT's severities; nothing if it may be one."""
    return tuple(
        Finding(rule=rule, location=location, text=text, severity="warning" if rule in _WARNINGS else "fatal")
        for rule, location, text, broken in _rules(document)
        if broken
    )


def is_leitweg_id(value: str) -> bool:
    """Whether this is a Leitweg-ID, which names a German authority: its form, and its check digits (ISO 7064 97-10)."""
    if not _LEITWEG.fullmatch(value):
        return False
    digits = "".join(str(int(character, 36)) for character in value.replace("-", ""))
    return int(digits) % 97 == 1


def _rules(document: Document) -> Iterable[tuple[str, str, str, bool]]:
    draft = document.draft
    seller, buyer, contact = draft.seller, draft.buyer, draft.seller.contact
    # A credit note is written with a means that is not defined (UNCL 4461: 1), and so has BG-16.
    pays = draft.kind == "credit_note" or draft.payment.iban or draft.payment.card_last4
    yield "BR-DE-1", "payment", "it says how to pay (BG-16)", not pays
    yield "BR-DE-2", "seller.contact", "the seller has a contact (BG-6)", contact is None
    yield "BR-DE-3", "seller.address.city", "the seller has a city (BT-37)", not seller.address.city
    yield "BR-DE-4", "seller.address.postcode", "the seller has a postcode (BT-38)", not seller.address.postcode
    yield "BR-DE-5", "seller.contact.name", "the contact has a name (BT-41)", not (contact and contact.name)
    yield "BR-DE-6", "seller.contact.phone", "the contact has a telephone (BT-42)", not (contact and contact.phone)
    yield (
        "BR-DE-7",
        "seller.contact.email",
        "the contact has an e-mail address (BT-43)",
        not (contact and contact.email),
    )
    yield "BR-DE-8", "buyer.address.city", "the buyer has a city (BT-52)", not buyer.address.city
    yield "BR-DE-9", "buyer.address.postcode", "the buyer has a postcode (BT-53)", not buyer.address.postcode
    yield "BR-DE-15", "buyer_reference", "it has a buyer reference (BT-10)", not draft.buyer_reference
    has_number = bool(seller.vat_id or seller.tax_number)
    yield "BR-DE-16", "seller", "a taxed sale names the seller's VAT id or tax number (BT-31, BT-32)", not has_number
    yield "BR-DE-19", "payment.iban", "a SEPA transfer goes to an IBAN (BT-84)", not _is_iban(draft.payment)
    digits = sum(character.isdigit() for character in contact.phone) if contact else 0
    yield "BR-DE-27", "seller.contact.phone", "a telephone number has three digits (BT-42)", digits < 3
    is_email = bool(contact and _EMAIL.fullmatch(contact.email))
    yield "BR-DE-28", "seller.contact.email", "an e-mail address has one @ and a domain (BT-43)", not is_email
    electronic = seller.electronic_address and buyer.electronic_address
    yield "PEPPOL-EN16931-R010/R020", "buyer.electronic_address", "both have an electronic address", not electronic


def _is_iban(payment: Payment) -> bool:
    compact = payment.iban.replace(" ", "")
    if not compact:
        return True
    if not re.fullmatch(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}", compact):
        return False
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1
