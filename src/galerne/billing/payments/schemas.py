"""Wire types of payments: amounts are decimals in strings, in the currency's own digits."""

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from galerne.billing.documents.amounts import decimals_of, from_minor
from galerne.billing.payments.bank import Imported, WaitingEntry
from galerne.billing.payments.payment import Method, NewPayment, NewRefund, Payment
from galerne.kernel import BadRequest
from galerne.kernel.web import Text

_LARGEST_MINOR = 10**15
_PLAIN = re.compile(r"[0-9]{1,15}(\.[0-9]{1,3})?", re.ASCII)


class PaymentIn(BaseModel):
    """Money that came in. `invoice_ids` are paid in their order; what is left stays the customer's credit."""

    model_config = ConfigDict(extra="forbid")

    organisation_id: Text
    method: Method = "other"
    reference: Text
    currency: Text
    amount: Text
    received_on: date
    invoice_ids: list[Text] = Field([], max_length=100)
    request_id: Text | None = None

    def payment(self) -> NewPayment:
        """The same, as billing takes it; `BadRequest` for what is no amount."""
        fields = self.model_dump(exclude={"amount", "invoice_ids"})
        minor = minor_of(self.amount, self.currency)
        return NewPayment(amount_minor=minor, invoice_ids=tuple(self.invoice_ids), **fields)


class RefundIn(BaseModel):
    """What is to be given back; the same `request_id` gives back once."""

    model_config = ConfigDict(extra="forbid")

    request_id: Text
    amount: Text
    reason: Text
    reference: Text = ""

    def refund(self, currency: str) -> NewRefund:
        """The same, as billing takes it."""
        return NewRefund(amount_minor=minor_of(self.amount, currency), **self.model_dump(exclude={"amount"}))


class AllocateIn(BaseModel):
    """Which invoices the free part of a payment shall pay, in this order."""

    model_config = ConfigDict(extra="forbid")

    invoice_ids: list[Text] = Field(min_length=1, max_length=100)


class AssignIn(BaseModel):
    """Whose a booking is, and what it pays; or, with `set_aside`, that it is no customer's payment, and what it is."""

    model_config = ConfigDict(extra="forbid")

    organisation_id: Text | None = None
    invoice_ids: list[Text] = Field([], max_length=100)
    set_aside: Text | None = None


class AllocationOut(BaseModel):
    """So much pays an invoice since then; negative: so much no longer does."""

    invoice_id: str
    amount: str
    at: datetime


class RefundOut(BaseModel):
    """What was given back."""

    request_id: str
    amount: str
    reason: str
    reference: str
    at: datetime


class PaymentOut(BaseModel):
    """A payment; `free` neither pays an invoice nor was given back."""

    object: Literal["payment"]
    id: str
    organisation_id: str
    method: Method
    reference: str
    currency: str
    amount: str
    allocated: str
    refunded: str
    free: str
    received_on: date
    allocations: list[AllocationOut]
    refunds: list[RefundOut]
    created_at: datetime


class PaymentList(BaseModel):
    """Payments, newest first; the next page is `after` = the last one's id."""

    object: Literal["list"]
    data: list[PaymentOut]
    has_more: bool


class ImportOut(BaseModel):
    """What a bank statement came to."""

    object: Literal["payments.import"]
    entries: int
    known: int
    paid: int
    waiting: int


class WaitingOut(BaseModel):
    """A booking that waits for a person; `candidates` are invoices that it could pay."""

    object: Literal["bank_entry"]
    id: str
    booked_on: date
    currency: str
    amount: str
    debtor_name: str
    debtor_iban: str
    remittance: str
    creditor_reference: str
    outcome: str
    candidates: list[str]


class WaitingList(BaseModel):
    """The queue, oldest first; the next page is `after` = the last one's id."""

    object: Literal["list"]
    data: list[WaitingOut]
    has_more: bool


def minor_of(text: str, currency: str) -> int:
    """The decimal that `text` writes in minor units; `BadRequest` for what the currency has no coins for."""
    minor = Decimal(text).scaleb(decimals_of(currency)) if _PLAIN.fullmatch(text) else Decimal(0)
    if minor != int(minor) or not 0 < minor <= _LARGEST_MINOR:
        raise BadRequest(f"'{text[:40]}' is no amount of {currency[:3]}; write it like 12.50.", param="amount")
    return int(minor)


def payment_fields(payment: Payment) -> dict[str, object]:
    """The fields of `PaymentOut`."""
    same = ("id", "organisation_id", "method", "reference", "currency", "received_on", "created_at")

    def amount(minor: int) -> str:
        return str(from_minor(minor, payment.currency))

    return {
        "object": "payment",
        **{name: getattr(payment, name) for name in same},
        "amount": amount(payment.amount_minor),
        "allocated": amount(payment.allocated_minor),
        "refunded": amount(payment.refunded_minor),
        "free": amount(payment.free_minor),
        "allocations": [
            {"invoice_id": each.invoice_id, "amount": amount(each.amount_minor), "at": each.at}
            for each in payment.allocations
        ],
        "refunds": [
            {
                "request_id": each.request_id,
                "amount": amount(each.amount_minor),
                "reason": each.reason,
                "reference": each.reference,
                "at": each.at,
            }
            for each in payment.refunds
        ],
    }


def import_fields(found: Imported) -> dict[str, object]:
    """The fields of `ImportOut`."""
    counts = {name: getattr(found, name) for name in ("entries", "known", "paid", "waiting")}
    return {"object": "payments.import", **counts}


def waiting_fields(waiting: WaitingEntry) -> dict[str, object]:
    """The fields of `WaitingOut`."""
    entry = waiting.entry
    same = ("booked_on", "currency", "debtor_name", "debtor_iban", "remittance", "creditor_reference")
    return {
        "object": "bank_entry",
        "id": waiting.id,
        **{name: getattr(entry, name) for name in same},
        "amount": str(from_minor(entry.amount_minor, entry.currency)),
        "outcome": waiting.outcome,
        "candidates": list(waiting.candidates),
    }
