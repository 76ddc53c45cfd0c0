"""How an invoice is booked: what the customer owes against revenue, what is still to be earned, tax and rounding. Pure.

What a line bills is booked before rounding; what rounding to the document's amounts adds or takes away goes to
`rounding`, so that debits and credits are equal to the nano-unit. Usage that credit paid is revenue since it was
settled: its line takes it off again.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from galerne.billing.documents.document import Document
from galerne.billing.invoices.invoice import InvoiceLine
from galerne.billing.invoices.lines import nano_of_minor
from galerne.billing.prices.pricing import half_even
from galerne.ledger import Account, AccountKind, BookEntry, Leg, house_account, organisation_account

_ADVANCE = ("recurring", "proration", "seat")
_UNEARNED = ("commitment", "credit", "covered")


@dataclass(frozen=True, slots=True)
class Booking:
    """Balances by account, debits positive: together nothing."""

    organisation_id: str
    currency: str
    nano: Mapping[AccountKind, int]

    def accounts(self) -> dict[AccountKind, Account]:
        """The accounts that it moves."""
        return {
            kind: organisation_account(kind, self.organisation_id, self.currency)
            if kind is AccountKind.RECEIVABLE
            else house_account(kind, self.currency)
            for kind, nano in self.nano.items()
            if nano
        }

    def reversed(self) -> "Booking":
        """The booking that takes it back."""
        return Booking(self.organisation_id, self.currency, {kind: -nano for kind, nano in self.nano.items()})

    def entry(self, name: str, at: datetime, reason: str) -> BookEntry | None:
        """The ledger's entry of that id, or None where nothing is moved."""
        accounts = self.accounts()
        if not accounts:
            return None
        legs = [(Leg(accounts[kind].id, abs(nano)), nano > 0) for kind, nano in self.nano.items() if nano]
        debits = [leg for leg, is_debit in legs if is_debit]
        credited = [leg for leg, is_debit in legs if not is_debit]
        return BookEntry(id=name, debits=debits, credits=credited, at=at, reason=reason)


def booking_of(
    organisation_id: str, document: Document, lines: Sequence[InvoiceLine], earned_until: datetime
) -> Booking:
    """The booking of an invoice: what is paid for in advance, after `earned_until`, is deferred revenue."""
    currency = document.draft.currency
    receivable = nano_of_minor(document.totals.due_minor, currency)
    tax = nano_of_minor(document.totals.tax_minor, currency)
    sums: Counter[AccountKind] = Counter()
    for line, net_nano in zip(lines, net_nanos(document, lines), strict=True):
        unearned = net_nano if line.kind in _UNEARNED else net_nano - earned(line, net_nano, earned_until)
        sums[AccountKind.DEFERRED_REVENUE] -= unearned
        sums[AccountKind.REVENUE] -= net_nano - unearned
    sums[AccountKind.RECEIVABLE] += receivable
    sums[AccountKind.TAX_PAYABLE] -= tax
    sums[AccountKind.ROUNDING] -= sum(sums.values())
    return Booking(organisation_id, currency, {kind: nano for kind, nano in sums.items() if nano})


def credit_booking(organisation_id: str, document: Document) -> Booking:
    """The booking of a part that is credited: revenue and tax taken back from what the customer owes."""
    currency = document.draft.currency
    due, tax = document.totals.due_minor, document.totals.tax_minor
    nano = {
        AccountKind.RECEIVABLE: -nano_of_minor(due, currency),
        AccountKind.TAX_PAYABLE: nano_of_minor(tax, currency),
        AccountKind.REVENUE: nano_of_minor(due - tax, currency),
    }
    return Booking(organisation_id, currency, {kind: amount for kind, amount in nano.items() if amount})


def recognition(
    organisation_id: str, currency: str, lines: Sequence[tuple[InvoiceLine, int]], span: tuple[datetime, datetime]
) -> Booking:
    """What of these lines, each with its net amount, is earned within `span`: from deferred revenue to revenue."""
    start, end = span
    nano = sum(earned(line, net_nano, end) - earned(line, net_nano, start) for line, net_nano in lines)
    moved = {AccountKind.DEFERRED_REVENUE: nano, AccountKind.REVENUE: -nano}
    return Booking(organisation_id, currency, moved if nano else {})


def earned(line: InvoiceLine, net_nano: int, until: datetime) -> int:
    """How much of a line's amount is earned by then: by the second for fees, all of it for anything else."""
    if line.kind not in _ADVANCE or until >= line.ends_at:
        return net_nano
    if until <= line.starts_at:
        return 0
    part = Fraction(net_nano) * Fraction(_micros(line.starts_at, until), _micros(line.starts_at, line.ends_at))
    return half_even(part.numerator, part.denominator)


def net_nanos(document: Document, lines: Sequence[InvoiceLine]) -> list[int]:
    """What each line bills without VAT, in nano-units: exact, or of a price that contains VAT as the document says."""
    currency = document.draft.currency
    return [
        nano_of_minor(minor, currency) if line.tax_inclusive else line.exact_nano
        for line, minor in zip(lines, document.line_minor, strict=True)
    ]


def _micros(start: datetime, end: datetime) -> int:
    span = end - start
    return (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds
