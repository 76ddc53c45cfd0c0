"""Wire types of invoices: amounts are decimals in strings, times ISO 8601 in UTC."""

from datetime import date, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from galerne.billing.documents.amounts import from_minor
from galerne.billing.documents.document import Address, Contact, Identifier
from galerne.billing.documents.vat import Language
from galerne.billing.invoices.closing import CloseReport
from galerne.billing.invoices.correcting import Crediting
from galerne.billing.invoices.drafting import MonthDraft
from galerne.billing.invoices.invoice import BillingProfile, Invoice, InvoiceLine, Issuer
from galerne.billing.invoices.lifecycle import Happening
from galerne.billing.invoices.lines import line_minor, nano_of_minor
from galerne.billing.prices.decimals import nano_of
from galerne.kernel import BadRequest
from galerne.kernel.web import Text
from galerne.ledger import amount_text


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AddressBody(_Body):
    """A postal address; `country` is an ISO 3166-1 code."""

    line1: Text
    city: Text
    postcode: Text
    country: Text
    line2: Text = ""
    subdivision: Text = ""


class IdentifierBody(_Body):
    """An identifier and the list that it is from (ISO 6523 or EAS: 0002 SIREN, 0204 Leitweg-ID, EM e-mail)."""

    value: Text
    scheme: Text = ""


class ContactBody(_Body):
    """Whom to ask."""

    name: Text
    phone: Text
    email: Text


class IssuerIn(_Body):
    """A legal entity that invoices. `prefix` begins its numbers and never changes."""

    name: Text
    address: AddressBody
    prefix: Text
    vat_id: Text = ""
    tax_number: Text = ""
    legal_id: IdentifierBody | None = None
    electronic_address: IdentifierBody | None = None
    contact: ContactBody | None = None
    legal_form: Text = ""
    iban: Text = ""
    bic: Text = ""
    account_name: Text = ""
    payment_days: int = Field(30, ge=0, le=365)
    small_business: bool = False
    one_stop_shop: bool = False
    below_threshold: bool = False

    def issuer(self, issuer_id: str) -> Issuer:
        """The same, as billing takes it."""
        return Issuer(id=issuer_id, **_settings(self))


class AddresseeIn(_Body):
    """To whom an organisation's invoices go, as it may say itself."""

    name: Text
    address: AddressBody
    is_business: bool
    vat_id: Text = ""
    legal_id: IdentifierBody | None = None
    electronic_address: IdentifierBody | None = None
    language: Language = "en"
    buyer_reference: Text = ""
    order_reference: Text = ""

    def changed(self, profile: BillingProfile) -> BillingProfile:
        """The profile with this in it; what the operator decides stays."""
        kept = ("organisation_id", "issuer_id", "exemption_code", "exemption_reason", "payment_days")
        return BillingProfile(**{name: getattr(profile, name) for name in kept}, **_settings(self))


class ProfileIn(AddresseeIn):
    """To whom an organisation's invoices go, with what the operator decides: issuer, exemptions, payment terms."""

    issuer_id: Text
    exemption_code: Text = ""
    exemption_reason: Text = ""
    payment_days: int | None = Field(None, ge=0, le=365)

    def profile(self, organisation_id: str) -> BillingProfile:
        """The same, as billing takes it."""
        return BillingProfile(organisation_id=organisation_id, **_settings(self))


class VoidIn(_Body):
    """Why an invoice is void."""

    reason: Text


class CreditNoteIn(_Body):
    """What to credit: all, or `net` (a decimal, without VAT). `request_id` makes it happen once."""

    reason: Text
    request_id: Text
    net: Text | None = None

    def crediting(self, invoice: Invoice) -> Crediting:
        """The same, as billing takes it; `BadRequest` for what is no amount of the invoice's currency."""
        net_minor = None
        if self.net is not None:
            net_minor, rest = divmod(nano_of(self.net, param="net"), nano_of_minor(1, invoice.currency))
            if rest:
                raise BadRequest(f"{self.net[:40]} has more decimals than {invoice.currency}.", param="net")
        return Crediting(invoice_id=invoice.id, reason=self.reason, request_id=self.request_id, net_minor=net_minor)


class TopUpIn(_Body):
    """Credit to sell, without VAT."""

    organization_id: Text
    amount: Text
    currency: Text
    request_id: Text


class LineOut(BaseModel):
    """A line; `amount` is quantity times price for every `base_quantity`, rounded once."""

    kind: str
    description: str
    quantity: int
    price: str
    base_quantity: int
    amount: str
    tax_inclusive: bool
    period_start: datetime
    period_end: datetime


class HappeningOut(BaseModel):
    """What happened to an invoice."""

    kind: str
    at: datetime
    amount: str
    reference: str


class InvoiceOut(BaseModel):
    """An invoice or credit note; amounts are null before it is final."""

    object: Literal["invoice"]
    id: str
    organization_id: str
    kind: str
    purpose: str
    number: str | None
    state: str
    period: str | None
    currency: str
    issued_on: date | None
    due_on: date | None
    net: str | None
    tax: str | None
    total: str | None
    open: str | None
    corrects: str | None
    usage_root: str
    usage_size: int
    sha256: str | None


class InvoiceDetailOut(InvoiceOut):
    """An invoice with its lines and its history."""

    lines: list[LineOut]
    history: list[HappeningOut]


class InvoiceList(BaseModel):
    """Invoices, oldest first."""

    object: Literal["list"]
    data: list[InvoiceOut]


class ProfileOut(BaseModel):
    """To whom an organisation's invoices go."""

    object: Literal["billing_profile"]
    organization_id: str
    issuer_id: str
    name: str
    address: Address
    is_business: bool
    vat_id: str
    legal_id: Identifier | None
    electronic_address: Identifier | None
    language: str
    buyer_reference: str
    order_reference: str
    exemption_code: str
    exemption_reason: str
    payment_days: int | None


class IssuerOut(BaseModel):
    """A legal entity that invoices."""

    object: Literal["invoice_issuer"]
    id: str
    name: str
    address: Address
    prefix: str
    vat_id: str
    tax_number: str
    legal_id: Identifier | None
    electronic_address: Identifier | None
    contact: Contact | None
    legal_form: str
    iban: str
    bic: str
    account_name: str
    payment_days: int
    small_business: bool
    one_stop_shop: bool
    below_threshold: bool


class IssuerList(BaseModel):
    """Legal entities that invoice."""

    object: Literal["list"]
    data: list[IssuerOut]


def invoice_fields(invoice: Invoice) -> dict[str, object]:
    """The fields of `InvoiceOut`."""
    same = ("id", "kind", "purpose", "number", "state", "period", "currency", "issued_on", "due_on", "usage_size")
    amounts = {"net": invoice.net_minor, "tax": invoice.tax_minor, "total": invoice.due_minor}
    return {
        "object": "invoice",
        **{name: getattr(invoice, name) for name in same},
        "organization_id": invoice.organisation_id,
        **{name: _amount(minor, invoice.currency) for name, minor in amounts.items()},
        "open": _amount(invoice.open_minor, invoice.currency),
        "corrects": invoice.corrects_id,
        "usage_root": invoice.usage_root.hex(),
        "sha256": invoice.sha256,
    }


def detail_fields(invoice: Invoice, lines: list[InvoiceLine], happenings: list[Happening]) -> dict[str, object]:
    """The fields of `InvoiceDetailOut`."""
    history = [
        {"kind": each.kind, "at": each.at, "amount": _amount(each.amount_minor, invoice.currency)}
        | {"reference": each.reference}
        for each in happenings
    ]
    shown = [line_fields(line, invoice.currency) for line in lines]
    return {**invoice_fields(invoice), "lines": shown, "history": history}


def line_fields(line: InvoiceLine, currency: str) -> dict[str, object]:
    """The fields of `LineOut`."""
    same = ("kind", "description", "quantity", "price", "base_quantity", "tax_inclusive")
    return {
        **{name: getattr(line, name) for name in same},
        "amount": _amount(line_minor(line, currency), currency),
        "period_start": line.starts_at,
        "period_end": line.ends_at,
    }


def draft_fields(draft: MonthDraft) -> dict[str, object]:
    """What a draft would be, before anything is written."""
    return {
        "object": "invoice.preview",
        "organization_id": draft.organisation_id,
        "period": draft.period,
        "currency": draft.currency,
        "exact": amount_text(sum(line.exact_nano for line in draft.lines)),
        "usage_size": draft.usage_size,
        "missing": list(draft.missing),
        "lines": [line_fields(line, draft.currency) for line in draft.lines],
    }


def report_fields(report: CloseReport) -> dict[str, object]:
    """What closing a month came to."""
    same = ("period", "invoices", "empty", "unmatched", "refused", "unbilled")
    return {"object": "billing.close", **{name: getattr(report, name) for name in same}, "done": report.is_done}


def profile_fields(profile: BillingProfile) -> dict[str, object]:
    """The fields of `ProfileOut`."""
    fields = {name: getattr(profile, name) for name in BillingProfile.__slots__}
    fields["organization_id"] = fields.pop("organisation_id")
    return {"object": "billing_profile", **fields}


def issuer_fields(issuer: Issuer) -> dict[str, object]:
    """The fields of `IssuerOut`."""
    return {"object": "invoice_issuer", **{name: getattr(issuer, name) for name in Issuer.__slots__}}


def _amount(minor: int | None, currency: str) -> str | None:
    return None if minor is None else str(from_minor(minor, currency))


def _settings(body: BaseModel) -> dict[str, Any]:
    fields = body.model_dump()
    fields["address"] = Address(**fields["address"])
    for name, kind in (("legal_id", Identifier), ("electronic_address", Identifier), ("contact", Contact)):
        if fields.get(name) is not None:
            fields[name] = kind(**fields[name])
    return fields
