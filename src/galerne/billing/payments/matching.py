"""Which open invoice a payment pays: decided by its reference, and only then by its amount. Pure.

A structured creditor reference (ISO 11649) counts before an invoice's number in the text, that before a lone invoice
of the very same amount from the same payer's account. Nothing is guessed: what could mean two things is `ambiguous`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from galerne.billing.documents.creditor_reference import is_creditor_reference
from galerne.billing.payments.camt053 import StatementEntry

Outcome = Literal["exact", "partial", "over", "ambiguous", "unmatched"]
Ground = Literal["creditor_reference", "number", "amount_and_payer", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenInvoice:
    """An invoice that waits for money: `creditor_reference` is on it, `payer_ibans` are known to be its buyer's."""

    id: str
    number: str
    currency: str
    due_minor: int
    creditor_reference: str = ""
    payer_ibans: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What an entry pays. `invoice_ids` names one invoice, several when one transfer pays exactly their sum, the
    candidates when it is ambiguous, none when unmatched; `rest_minor` is what is left over (positive) or still
    missing (negative).
    """

    entry: StatementEntry
    outcome: Outcome
    ground: Ground = ""
    invoice_ids: tuple[str, ...] = ()
    rest_minor: int = 0


def match_payments(entries: Iterable[StatementEntry], invoices: Sequence[OpenInvoice]) -> tuple[Match, ...]:
    """One match for each entry, in their order; an invoice is reduced by what earlier entries paid of it.

    What went out, or was taken back, is unmatched: a person decides. So is a payment in another currency.
    """
    due = {invoice.id: invoice.due_minor for invoice in invoices}
    matches: list[Match] = []
    for entry in entries:
        match = _match(entry, [invoice for invoice in invoices if due[invoice.id] > 0], due)
        if match.outcome in ("exact", "partial", "over"):
            paid = entry.amount_minor
            for invoice_id in match.invoice_ids:
                part = min(paid, due[invoice_id])
                due[invoice_id] -= part
                paid -= part
        matches.append(match)
    return tuple(matches)


def _match(entry: StatementEntry, invoices: Sequence[OpenInvoice], due: dict[str, int]) -> Match:
    if entry.amount_minor <= 0 or entry.reversal:
        return Match(entry=entry, outcome="unmatched")
    same = [invoice for invoice in invoices if invoice.currency == entry.currency]
    ground, found = _named(entry, same)
    if not found:
        return _by_amount(entry, same, due)
    ids = tuple(invoice.id for invoice in found)
    rest = entry.amount_minor - sum(due[invoice_id] for invoice_id in ids)
    if len(ids) > 1 and rest != 0:
        return Match(entry=entry, outcome="ambiguous", ground=ground, invoice_ids=ids, rest_minor=rest)
    outcome: Outcome = "exact" if rest == 0 else "over" if rest > 0 else "partial"
    return Match(entry=entry, outcome=outcome, ground=ground, invoice_ids=ids, rest_minor=rest)


def _named(entry: StatementEntry, invoices: Sequence[OpenInvoice]) -> tuple[Ground, list[OpenInvoice]]:
    texts = [entry.remittance.upper(), entry.end_to_end_id.upper(), entry.creditor_reference.upper()]
    told = [_compact(text) for text in texts]
    by_reference = [
        each
        for each in invoices
        if is_creditor_reference(each.creditor_reference)
        and any(_compact(each.creditor_reference) in text for text in told)
    ]
    if by_reference:
        return "creditor_reference", by_reference
    return "number", [each for each in invoices if any(_says(text, each.number) for text in texts)]


def _says(text: str, number: str) -> bool:
    """Whether the text has this number as a whole: INV-1 isn't in INV-12. Spaces, dots and strokes don't count."""
    parts = [re.escape(part) for part in re.findall("[A-Z]+|[0-9]+", number.upper())]
    pattern = r"[\s\-_/.]*".join(parts)
    return bool(parts) and re.search(rf"(?<![A-Z0-9]){pattern}(?![A-Z0-9])(?!-[A-Z0-9])", text) is not None


def _by_amount(entry: StatementEntry, invoices: Sequence[OpenInvoice], due: dict[str, int]) -> Match:
    found = tuple(
        invoice.id
        for invoice in invoices
        if due[invoice.id] == entry.amount_minor and entry.debtor_iban in invoice.payer_ibans
    )
    if not found:
        return Match(entry=entry, outcome="unmatched")
    outcome: Outcome = "exact" if len(found) == 1 else "ambiguous"
    return Match(entry=entry, outcome=outcome, ground="amount_and_payer", invoice_ids=found)


def _compact(text: str) -> str:
    return re.sub(r"\s", "", text).upper()
