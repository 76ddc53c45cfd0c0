"""What stands on a printed invoice, as text in its language: a plain structure that the template sets. Pure."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from galerne.billing.documents.document import Document, Line, Party, Period, Vat
from galerne.billing.documents.vat import Language
from galerne.billing.documents.wording import WORDS, written_amount, written_day, written_number

_NO_RATE = "\u2013"
Pairs = list[tuple[str, str]]


def page_of(document: Document, language: Language) -> dict[str, Any]:
    """The texts of this document for `invoice.typ`, which says what each is for."""
    words, draft = WORDS[language], document.draft
    heading = words[draft.kind]
    return {
        "language": language,
        "title": f"{heading} {draft.number}",
        "heading": heading,
        "keywords": [draft.number],
        "date": [draft.issued_on.year, draft.issued_on.month, draft.issued_on.day],
        "labels": {name: words[name] for name in ("seller", "buyer", "page", "payment")},
        "seller": {"name": draft.seller.name, "lines": _party(draft.seller, language)},
        "buyer": {"lines": _party(draft.buyer, language)},
        "footer": _footer(draft.seller, language),
        "meta": _meta(document, language),
        "columns": [words[name] for name in ("item", "description", "quantity", "price", "vat", "net")],
        "lines": [
            _line(line, amount, draft.currency, language)
            for line, amount in zip(draft.lines, document.line_minor, strict=True)
        ],
        "vat": _vat(document, language),
        "totals": _totals(document, language),
        "payment": _payment(document, language),
        "notes": list(draft.notes),
    }


def _said(pairs: Sequence[tuple[str, str]]) -> Pairs:
    return [(label, text) for label, text in pairs if text]


def _party(party: Party, language: Language) -> list[str]:
    address, words = party.address, WORDS[language]
    town = " ".join(part for part in (address.country, address.postcode, address.city) if part)
    numbers = _said([(words["vat_id"], party.vat_id), (words["tax_number"], party.tax_number)])
    lines = [party.name, address.line1, address.line2, town, *(f"{label} {text}" for label, text in numbers)]
    return [line for line in lines if line]


def _footer(seller: Party, language: Language) -> list[str]:
    words, contact = WORDS[language], seller.contact
    registered = seller.legal_id.value if seller.legal_id else ""
    first = [seller.name, seller.legal_form, f"{words['registration']} {registered}" if registered else ""]
    second = [f"{words['vat_id']} {seller.vat_id}" if seller.vat_id else ""]
    if contact:
        second += [contact.name, contact.email, contact.phone]
    return [line for line in (" · ".join(part for part in row if part) for row in (first, second)) if line]


def _period(period: Period | None, language: Language) -> str:
    if period is None:
        return ""
    return f"{written_day(period.start, language)} \u2013 {written_day(period.end, language)}"


def _meta(document: Document, language: Language) -> Pairs:
    draft, words = document.draft, WORDS[language]
    corrected = draft.preceding
    return _said(
        [
            (words["number"], draft.number),
            (words["issued"], written_day(draft.issued_on, language)),
            (words["due"], written_day(draft.due_on, language) if draft.due_on else ""),
            (words["supplied"], written_day(draft.supplied_on, language) if draft.supplied_on else ""),
            (words["period"], _period(draft.period, language)),
            (
                words["corrects"],
                f"{corrected.number}, {written_day(corrected.issued_on, language)}" if corrected else "",
            ),
            (words["reference"], draft.buyer_reference),
            (words["order"], draft.order_reference),
            (words["contract"], draft.contract_reference),
        ]
    )


def _line(line: Line, amount: int, currency: str, language: Language) -> dict[str, str]:
    per = f"{WORDS[language]['per']} {written_number(Decimal(line.base_quantity), language)}"
    return {
        "id": line.id,
        "name": line.name,
        "detail": " · ".join(part for part in (line.description, _period(line.period, language)) if part),
        "quantity": written_number(line.quantity, language),
        "price": written_number(line.price, language),
        "per": per if line.base_quantity != 1 else "",
        "vat": _rate(line.vat, language),
        "net": written_amount(amount, currency, language),
    }


def _rate(vat: Vat, language: Language) -> str:
    if vat.category == "O":
        return _NO_RATE
    percent = written_number(vat.rate, language)
    return f"{percent}%" if language == "en" else f"{percent}\u00a0%"


def _vat(document: Document, language: Language) -> dict[str, Any]:
    words, currency = WORDS[language], document.draft.currency
    rows = [
        [
            " ".join(part for part in (words[row.vat.category], _rate(row.vat, language)) if part != _NO_RATE),
            written_amount(row.basis_minor, currency, language),
            written_amount(row.tax_minor, currency, language),
        ]
        for row in document.vat
    ]
    reasons = [row.vat.reason or row.vat.reason_code for row in document.vat if row.vat.category not in "SZ"]
    return {"columns": [words["vat"], words["basis"], words["tax"]], "rows": rows, "reasons": reasons}


def _totals(document: Document, language: Language) -> list[dict[str, Any]]:
    totals, draft, words = document.totals, document.draft, WORDS[language]
    rows: list[tuple[str, int]] = []
    if draft.adjustments:
        rows.append((words["lines_total"], totals.lines_minor))
        rows += [
            (each.reason, each.amount_minor if each.is_charge else -each.amount_minor) for each in draft.adjustments
        ]
    rows += [(words["net_total"], totals.net_minor), (words["tax_total"], totals.tax_minor)]
    rows.append((words["gross_total"], totals.gross_minor))
    if totals.paid_minor:
        rows.append((words["paid"], -totals.paid_minor))
    if totals.rounding_minor:
        rows.append((words["rounding"], totals.rounding_minor))
    told = [
        (label, f"{written_amount(minor, draft.currency, language)} {draft.currency}", False) for label, minor in rows
    ]
    told.append(
        (words["due_total"], f"{written_amount(totals.due_minor, draft.currency, language)} {draft.currency}", True)
    )
    if draft.accounting and totals.accounting_tax_minor is not None:
        other = draft.accounting
        rate = f"1 {draft.currency} = {written_number(other.rate, language)} {other.currency}, {other.source}"
        amount = written_amount(totals.accounting_tax_minor, other.currency, language)
        told.append((f"{words['accounting_tax']} {other.currency} ({rate})", f"{amount} {other.currency}", False))
    return [{"label": label, "amount": amount, "strong": strong} for label, amount, strong in told]


def _payment(document: Document, language: Language) -> Pairs:
    payment, words = document.draft.payment, WORDS[language]
    account = " · ".join(part for part in (payment.account_name, payment.bic) if part)
    return _said(
        [
            (words["terms"], payment.terms),
            ("IBAN", payment.iban),
            (words["account"], account if payment.iban else ""),
            (words["card"], payment.card_last4),
            (words["payment_reference"], payment.reference or (document.draft.number if payment.iban else "")),
        ]
    )
