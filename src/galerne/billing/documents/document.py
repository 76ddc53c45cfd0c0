"""An invoice or a credit note as EN 16931-1 understands it, and the one function that computes its amounts. Pure.

Names follow the standard's business terms (BT) and groups (BG); amounts are integers in minor units of `currency`.
A `Draft` holds what somebody decided, a `Document` what follows from it: nothing in a document can be set by hand.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from galerne.billing.documents.amounts import from_minor, to_minor
from galerne.kernel.errors import Unprocessable

Kind = Literal["invoice", "credit_note"]
VatCategory = Literal["S", "Z", "E", "AE", "K", "G", "O"]
"""UNCL 5305: standard, zero, exempt, reverse charge, intra-community goods, export, outside the scope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A postal address (BG-5, BG-8); `country` is an ISO 3166-1 code."""

    line1: str
    city: str
    postcode: str
    country: str
    line2: str = ""
    subdivision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """Whom to ask (BG-6, BG-9)."""

    name: str
    phone: str
    email: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """An identifier and the list that it is from: ISO 6523 (0002 SIREN, 0204 Leitweg-ID) or EAS (EM for e-mail)."""

    value: str
    scheme: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A seller (BG-4) or a buyer (BG-7); `tax_number` is the local one (BT-32), `legal_form` free text (BT-33)."""

    name: str
    address: Address
    vat_id: str = ""
    tax_number: str = ""
    legal_id: Identifier | None = None
    electronic_address: Identifier | None = None
    contact: Contact | None = None
    legal_form: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """From the first day to the last, both included (BG-14, BG-26)."""

    start: date
    end: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Vat:
    """How a line, an allowance or a charge is taxed: category, rate in per cent, and why no tax is charged.

    `reason_code` is from the VATEX list, `reason` the text that the law wants on the invoice.
    """

    category: VatCategory
    rate: Decimal = Decimal(0)
    reason_code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line (BG-25): `quantity` at `price` for every `base_quantity`. A negative quantity takes back."""

    id: str
    name: str
    quantity: Decimal
    price: Decimal
    vat: Vat
    unit: str = "C62"
    base_quantity: int = 1
    description: str = ""
    item_id: str = ""
    period: Period | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """An allowance (BG-20) or a charge (BG-21) on the whole document, positive in both cases."""

    amount_minor: int
    reason: str
    vat: Vat
    is_charge: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountingCurrency:
    """The seller's own currency (BT-6), in which VAT is stated too: one unit of the document's is `rate` of it."""

    currency: str
    rate: Decimal
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preceding:
    """The document that this one corrects (BG-3)."""

    number: str
    issued_on: date


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """How to pay (BG-16): by transfer to an account, or already by card (`card_last4`); `reference` is BT-83."""

    terms: str = ""
    iban: str = ""
    bic: str = ""
    account_name: str = ""
    reference: str = ""
    card_last4: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Everything about a document that somebody decides. Amounts follow, see `compute`.

    `paid_minor` was paid before (BT-113), `rounding_minor` is added to what is due (BT-114).
    """

    kind: Kind
    number: str
    issued_on: date
    seller: Party
    buyer: Party
    currency: str
    lines: tuple[Line, ...]
    due_on: date | None = None
    supplied_on: date | None = None
    period: Period | None = None
    adjustments: tuple[Adjustment, ...] = ()
    notes: tuple[str, ...] = ()
    preceding: Preceding | None = None
    payment: Payment = Payment()
    buyer_reference: str = ""
    order_reference: str = ""
    contract_reference: str = ""
    accounting: AccountingCurrency | None = None
    paid_minor: int = 0
    rounding_minor: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VatSubtotal:
    """One row of the VAT breakdown (BG-23)."""

    vat: Vat
    basis_minor: int
    tax_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The document totals (BG-22), in minor units; `accounting_tax_minor` is in the accounting currency's."""

    lines_minor: int
    allowances_minor: int
    charges_minor: int
    net_minor: int
    tax_minor: int
    gross_minor: int
    paid_minor: int
    rounding_minor: int
    due_minor: int
    accounting_tax_minor: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A draft with its amounts: `line_minor` has one net amount (BT-131) for each line, in their order."""

    draft: Draft
    line_minor: tuple[int, ...]
    vat: tuple[VatSubtotal, ...]
    totals: Totals


def compute(draft: Draft) -> Document:
    """The document that follows from this draft, by EN 16931's BR-CO-10 to BR-CO-17 and BR-S-08 and its like.

    Each line's net amount is rounded once, the tax once per category and rate. Raises `Unprocessable` for a draft that
    no document can follow from, naming the rule.
    """
    _refuse(draft)
    line_minor = tuple(_net_minor(line, draft.currency) for line in draft.lines)
    vat = _breakdown(draft, line_minor)
    allowances = sum(each.amount_minor for each in draft.adjustments if not each.is_charge)
    charges = sum(each.amount_minor for each in draft.adjustments if each.is_charge)
    net = sum(line_minor) - allowances + charges
    tax = sum(row.tax_minor for row in vat)
    totals = Totals(
        lines_minor=sum(line_minor),
        allowances_minor=allowances,
        charges_minor=charges,
        net_minor=net,
        tax_minor=tax,
        gross_minor=net + tax,
        paid_minor=draft.paid_minor,
        rounding_minor=draft.rounding_minor,
        due_minor=net + tax - draft.paid_minor + draft.rounding_minor,
        accounting_tax_minor=_converted(tax, draft),
    )
    return Document(draft=draft, line_minor=line_minor, vat=vat, totals=totals)


def _net_minor(line: Line, currency: str) -> int:
    return to_minor(Fraction(line.quantity) * Fraction(line.price) / line.base_quantity, currency)


def _breakdown(draft: Draft, line_minor: tuple[int, ...]) -> tuple[VatSubtotal, ...]:
    basis: Counter[Vat] = Counter()
    for line, amount in zip(draft.lines, line_minor, strict=True):
        basis[line.vat] += amount
    for adjustment in draft.adjustments:
        basis[adjustment.vat] += adjustment.amount_minor * (1 if adjustment.is_charge else -1)
    ordered = sorted(basis.items(), key=lambda item: (item[0].category, -item[0].rate))
    return tuple(
        VatSubtotal(vat=vat, basis_minor=amount, tax_minor=_tax_minor(amount, vat.rate, draft.currency))
        for vat, amount in ordered
    )


def _tax_minor(basis_minor: int, rate: Decimal, currency: str) -> int:
    return to_minor(Fraction(from_minor(basis_minor, currency)) * Fraction(rate) / 100, currency)


def _converted(tax_minor: int, draft: Draft) -> int | None:
    if draft.accounting is None:
        return None
    amount = Fraction(from_minor(tax_minor, draft.currency)) * Fraction(draft.accounting.rate)
    return to_minor(amount, draft.accounting.currency)


def _refuse(draft: Draft) -> None:
    for rule, param, broken in _faults(draft):
        if broken:
            raise Unprocessable(f"No document can be made of this: {rule}", code="invalid_document", param=param)


def _faults(draft: Draft) -> Iterable[tuple[str, str, bool]]:
    treatments = [item.vat for item in (*draft.lines, *draft.adjustments)]
    yield "it has no number (BR-02)", "number", not draft.number.strip()
    yield "it has no lines (BR-16)", "lines", not draft.lines
    ids = [line.id for line in draft.lines]
    yield "two lines have one id (BR-21)", "lines", len(set(ids)) < len(ids)
    yield "a line has no name (BR-25)", "lines", any(not line.name.strip() for line in draft.lines)
    yield "a net price is negative (BR-27)", "lines", any(line.price < 0 for line in draft.lines)
    yield "a base quantity is not positive", "lines", any(line.base_quantity < 1 for line in draft.lines)
    negative = any(each.amount_minor < 0 for each in draft.adjustments)
    yield "an allowance or charge is negative; say by is_charge which it is", "adjustments", negative
    yield "an allowance or charge has no reason (BR-33)", "adjustments", any(not a.reason for a in draft.adjustments)
    yield "a credit note names no document that it corrects", "preceding", _is_orphan(draft)
    yield "a period ends before it starts (BR-29, BR-30)", "period", any(p.end < p.start for p in _periods(draft))
    yield "a VAT rate is negative", "lines", any(vat.rate < 0 for vat in treatments)
    taxed = any((vat.rate > 0) != (vat.category == "S") for vat in treatments)
    yield "a rate above 0 goes with category S, and with no other (BR-S-05 and its like)", "lines", taxed
    unexplained = any(vat.category not in "SZ" and not (vat.reason or vat.reason_code) for vat in treatments)
    yield "no reason says why no VAT is charged (BR-E-10 and its like)", "lines", unexplained
    outside = {vat.category == "O" for vat in treatments}
    yield "what is outside the scope of VAT stands beside what is not (BR-O-11)", "lines", len(outside) > 1
    yield "one category and rate has two reasons", "lines", len(set(treatments)) > len(_keys(treatments))
    yield "the accounting currency is the document's own", "accounting", _same_currency(draft)


def _keys(treatments: Iterable[Vat]) -> set[tuple[str, Decimal]]:
    return {(vat.category, vat.rate) for vat in treatments}


def _is_orphan(draft: Draft) -> bool:
    return draft.kind == "credit_note" and draft.preceding is None


def _periods(draft: Draft) -> list[Period]:
    return [period for period in (draft.period, *(line.period for line in draft.lines)) if period]


def _same_currency(draft: Draft) -> bool:
    return draft.accounting is not None and draft.accounting.currency == draft.currency
