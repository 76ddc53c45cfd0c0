"""An invoice as a value: who, for when, which lines, where it stands. Pure."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from galerne.billing.documents.document import Address, Contact, Identifier
from galerne.billing.documents.vat import Language
from galerne.billing.invoices.lifecycle import InvoiceState
from galerne.billing.rating.rater import LineKey

Purpose = Literal["period", "top_up", "credit_note", "reissue"]
"""Why it was made: to bill a month, to sell credit, to correct another, to replace one that is void."""
LineKind = Literal[
    "usage",
    "paid_by_credit",
    "recurring",
    "proration",
    "seat",
    "commitment",
    "overage",
    "true_up",
    "minimum",
    "covered",
    "contract_usage",
    "carried",
    "credit",
]
"""`usage` has a price; `paid_by_credit` and `covered` take off what credit or a commitment has paid; `contract_usage`
is what a contract adds to it; `carried` is what an earlier month left to give back; `credit` is a top-up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """A legal entity that invoices: its party, its VAT regime, its bank, and how it numbers.

    `prefix` begins its numbers: `FR-2026-000001`, credit notes `FR-C-2026-000001`. An XRechnung asks for a contact
    and an electronic address.
    """

    id: str
    name: str
    address: Address
    prefix: str
    vat_id: str = ""
    tax_number: str = ""
    legal_id: Identifier | None = None
    electronic_address: Identifier | None = None
    contact: Contact | None = None
    legal_form: str = ""
    iban: str = ""
    bic: str = ""
    account_name: str = ""
    payment_days: int = 30
    small_business: bool = False
    one_stop_shop: bool = False
    below_threshold: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BillingProfile:
    """To whom an organisation's invoices go, and in whose name they are issued.

    `buyer_reference` is what a public body asks for (Leitweg-ID); `exemption_code` a VATEX code that was granted.
    """

    organisation_id: str
    issuer_id: str
    name: str
    address: Address
    is_business: bool
    vat_id: str = ""
    legal_id: Identifier | None = None
    electronic_address: Identifier | None = None
    language: Language = "en"
    buyer_reference: str = ""
    order_reference: str = ""
    exemption_code: str = ""
    exemption_reason: str = ""
    payment_days: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLine:
    """A line as it was drafted: `quantity` at `price` (decimal text) for every `base_quantity` units.

    `exact_nano` is the sum of what it bills, before it was rounded: of requests, or of a charge. Of a `tax_inclusive`
    line price and amount contain VAT. `line_key` says which rated usage is summed in it: several lines have the same
    one where volume changes the price. It is for `starts_at` (inclusive) to `ends_at` (exclusive).
    """

    kind: LineKind
    description: str
    quantity: int
    price: str
    exact_nano: int
    starts_at: datetime
    ends_at: datetime
    base_quantity: int = 1
    tax_inclusive: bool = False
    line_key: LineKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """An invoice or credit note as it stands; amounts in minor units of `currency`, None before it is final.

    `usage_root` is the RFC 9162 root over its `usage_size` leaves (`rated_leaves` of its currency), `sha256` that of
    the frozen document's text.
    """

    id: str
    organisation_id: str
    issuer_id: str
    kind: Literal["invoice", "credit_note"]
    purpose: Purpose
    period: str | None
    currency: str
    state: InvoiceState
    number: str | None
    issued_on: date | None
    due_on: date | None
    net_minor: int | None
    tax_minor: int | None
    due_minor: int | None
    open_minor: int | None
    corrects_id: str | None
    usage_root: bytes
    usage_size: int
    sha256: str | None
    created_at: datetime
