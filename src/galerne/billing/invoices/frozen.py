"""From an invoice's lines to the document that the law knows, and the text that keeps it for ever. Pure.

The text is canonical JSON: keys in order, decimals as text. PDF and XML are made from it, the same bytes every time.
"""

import hashlib
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec

from galerne.billing.documents.amounts import from_minor, to_minor
from galerne.billing.documents.cii import Flavour
from galerne.billing.documents.creditor_reference import creditor_reference
from galerne.billing.documents.document import (
    Document,
    Draft,
    Kind,
    Line,
    Party,
    Payment,
    Period,
    Preceding,
    Vat,
    compute,
)
from galerne.billing.documents.vat import BuyerVat, Language, SellerVat, decide_vat
from galerne.billing.documents.xrechnung import flavour_of
from galerne.billing.invoices.invoice import BillingProfile, InvoiceLine, Issuer
from galerne.billing.invoices.lines import line_minor, span_of
from galerne.billing.invoices.wording import words
from galerne.kernel import invariant

_PRICE_DIGITS = Decimal("1e-12")
_VERSION = 1
_USUAL: Flavour = "factur-x"
_encoder = msgspec.json.Encoder(order="sorted", decimal_format="string")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenDocument:
    """What is kept of a final invoice: the document, how its XML is written, and the root over the rated usage.

    What was kept before there was a flavour is `factur-x`, as it was issued.
    """

    invoice_id: str
    organisation_id: str
    period: str | None
    language: Language
    document: Document
    usage_root: str
    usage_size: int
    flavour: Flavour = _USUAL
    version: int = _VERSION

    def text(self) -> str:
        """Canonical JSON; a flavour stands in it only where it is not the usual one, so that old verifiers read it."""
        raw = _encoder.encode(self)
        if self.flavour == _USUAL:
            fields: dict[str, Any] = msgspec.json.decode(raw)
            del fields["flavour"]
            raw = _encoder.encode(fields)
        return raw.decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What a document is made of besides its lines. `number` is a stand-in until one is given."""

    invoice_id: str
    organisation_id: str
    kind: Kind
    period: str | None
    currency: str
    number: str
    issued_on: date
    issuer: Issuer
    profile: BillingProfile
    usage_root: bytes
    usage_size: int
    payment_days: int
    contract_reference: str = ""
    preceding: Preceding | None = None
    vat: Vat | None = None


def sha256_of(text: str) -> str:
    """The hash of a frozen text, 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def thaw(text: str) -> FrozenDocument:
    """The document that a text keeps; its amounts are those that follow from its draft."""
    body: Any = msgspec.json.decode(text)
    frozen = msgspec.convert(body, FrozenDocument)
    invariant(compute(frozen.document.draft) == frozen.document, "a frozen document does not follow from its draft")
    return frozen


def assembled(making: Making, lines: list[InvoiceLine]) -> FrozenDocument:
    """The document over these lines, by the parties' settings and the VAT of the day of supply.

    Raises `Unprocessable` where no VAT can be decided and for what no document can be made of.
    """
    supplied_on = making.issued_on if making.period is None else _last_day(making.period)
    vat = making.vat or _vat(making, supplied_on)
    draft = Draft(
        kind=making.kind,
        number=making.number,
        issued_on=making.issued_on,
        due_on=None if making.kind == "credit_note" else due_on(making),
        supplied_on=supplied_on,
        period=None if making.period is None else _days(making.period),
        seller=_seller(making.issuer),
        buyer=_buyer(making.profile),
        currency=making.currency,
        lines=tuple(_line(number, line, vat) for number, line in enumerate(lines, 1)),
        notes=_notes(making),
        preceding=making.preceding,
        payment=_payment(making),
        buyer_reference=making.profile.buyer_reference,
        order_reference=making.profile.order_reference,
        contract_reference=making.contract_reference,
    )
    document = compute(replace(draft, rounding_minor=_rounding(draft, lines, vat)))
    return FrozenDocument(
        invoice_id=making.invoice_id,
        organisation_id=making.organisation_id,
        period=making.period,
        language=making.profile.language,
        document=document,
        usage_root=making.usage_root.hex(),
        usage_size=making.usage_size,
        flavour=flavour_of(document),
    )


def due_on(making: Making) -> date:
    """When it is to be paid."""
    return making.issued_on + timedelta(days=making.payment_days)


def _vat(making: Making, supplied_on: date) -> Vat:
    issuer, profile = making.issuer, making.profile
    seller = SellerVat(
        address=issuer.address,
        vat_id=issuer.vat_id,
        small_business=issuer.small_business,
        one_stop_shop=issuer.one_stop_shop,
        below_threshold=issuer.below_threshold,
    )
    buyer = BuyerVat(
        address=profile.address,
        is_business=profile.is_business,
        vat_id=profile.vat_id,
        exemption_code=profile.exemption_code,
        exemption_reason=profile.exemption_reason,
    )
    return decide_vat(seller, buyer, supplied_on, profile.language).vat


def _line(number: int, line: InvoiceLine, vat: Vat) -> Line:
    price = Decimal(line.price)
    if line.tax_inclusive and vat.rate:
        net = Fraction(price) / (1 + Fraction(vat.rate) / 100)
        price = (Decimal(net.numerator) / Decimal(net.denominator)).quantize(_PRICE_DIGITS)
    last = line.ends_at.date() if line.ends_at.time() != line.ends_at.min.time() else line.ends_at.date() - _DAY
    return Line(
        id=str(number),
        name=line.description,
        quantity=Decimal(line.quantity),
        price=price,
        vat=vat,
        base_quantity=line.base_quantity,
        item_id=line.line_key.rate_id[:40] if line.line_key else "",
        period=Period(start=line.starts_at.date(), end=max(line.starts_at.date(), last)),
    )


def _rounding(draft: Draft, lines: list[InvoiceLine], vat: Vat) -> int:
    """What a price that contains VAT lost or won when net and tax were rounded apart (BT-114)."""
    if not any(line.tax_inclusive for line in lines):
        return 0
    net = sum(line_minor(line, draft.currency) for line in lines if not line.tax_inclusive)
    tax = to_minor(Fraction(from_minor(net, draft.currency)) * Fraction(vat.rate) / 100, draft.currency)
    inclusive = sum(line_minor(line, draft.currency) for line in lines if line.tax_inclusive)
    return net + tax + inclusive - compute(draft).totals.gross_minor


def _seller(issuer: Issuer) -> Party:
    return Party(
        name=issuer.name,
        address=issuer.address,
        vat_id=issuer.vat_id,
        tax_number=issuer.tax_number,
        legal_id=issuer.legal_id,
        electronic_address=issuer.electronic_address,
        contact=issuer.contact,
        legal_form=issuer.legal_form,
    )


def _buyer(profile: BillingProfile) -> Party:
    return Party(
        name=profile.name,
        address=profile.address,
        vat_id=profile.vat_id,
        legal_id=profile.legal_id,
        electronic_address=profile.electronic_address,
    )


def _payment(making: Making) -> Payment:
    issuer = making.issuer
    if making.kind == "credit_note":
        return Payment()
    return Payment(
        terms=words(making.profile.language, "terms", days=making.payment_days),
        iban=issuer.iban,
        bic=issuer.bic,
        account_name=issuer.account_name if issuer.iban else "",
        reference=creditor_reference(making.number) or making.number,
    )


def _notes(making: Making) -> tuple[str, ...]:
    if not making.usage_size:
        return ()
    root = making.usage_root.hex()
    return (words(making.profile.language, "proof", size=making.usage_size, root=root),)


def _days(period: str) -> Period:
    return Period(start=span_of(period).start.date(), end=_last_day(period))


def _last_day(period: str) -> date:
    return span_of(period).end.date() - _DAY


_DAY = timedelta(days=1)
