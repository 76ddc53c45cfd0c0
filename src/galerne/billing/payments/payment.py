"""Payments as values, and how one is spread over invoices and taken back again. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from galerne.billing.prices.decimals import check_currency
from galerne.kernel import BadRequest, Conflict

Method = Literal["bank_transfer", "card", "other"]
"""How money came: over a bank, by card through a processor, or in another way that somebody says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPayment:
    """Money that came in, in minor units of `currency`; `reference` is the bank's or the processor's own.

    The same method and reference is the same payment. `invoice_ids` are paid in this order; what is left stays the
    customer's credit.
    """

    organisation_id: str
    method: Method
    reference: str
    currency: str
    amount_minor: int
    received_on: date
    invoice_ids: tuple[str, ...] = ()
    payer_iban: str = ""
    request_id: str | None = None

    def __post_init__(self) -> None:
        if self.amount_minor <= 0:
            raise BadRequest("A payment is more than nothing.", param="amount")
        check_currency(self.currency)
        for name in ("reference", "request_id"):
            text = getattr(self, name)
            most = 200 if name == "reference" else 100
            if text is not None and not (0 < len(text) <= most and text.isprintable()):
                raise BadRequest(f"{name}: 1 to {most} printable characters.", param=name)


@dataclass(frozen=True, slots=True)
class Allocation:
    """So much of a payment pays an invoice since `at`; negative: so much no longer does."""

    invoice_id: str
    amount_minor: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRefund:
    """What is to be given back, and why; `request_id` names the wish, `reference` is the bank's or the processor's."""

    request_id: str
    amount_minor: int
    reason: str
    reference: str = ""

    def __post_init__(self) -> None:
        if self.amount_minor <= 0:
            raise BadRequest("A refund is more than nothing.", param="amount")
        for name, least, most in (("request_id", 1, 100), ("reason", 1, 200), ("reference", 0, 200)):
            text = getattr(self, name)
            if not (least <= len(text) <= most and (text.isprintable() or not text)):
                raise BadRequest(f"{name}: {least} to {most} printable characters.", param=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """What was given back of a payment at a time."""

    request_id: str
    amount_minor: int
    reason: str
    reference: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment with what it pays and what was given back of it, oldest first."""

    id: str
    organisation_id: str
    method: Method
    reference: str
    currency: str
    amount_minor: int
    received_on: date
    allocations: tuple[Allocation, ...]
    refunds: tuple[Refund, ...]
    created_at: datetime

    @property
    def allocated_minor(self) -> int:
        """What pays invoices now."""
        return sum(each.amount_minor for each in self.allocations)

    @property
    def refunded_minor(self) -> int:
        """What was given back."""
        return sum(each.amount_minor for each in self.refunds)

    @property
    def free_minor(self) -> int:
        """What neither pays an invoice nor was given back: the customer's credit."""
        return self.amount_minor - self.allocated_minor - self.refunded_minor


def spread(amount_minor: int, dues: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """What each invoice gets of the amount: all it is due, in their order, until nothing is left."""
    parts: list[tuple[str, int]] = []
    for invoice_id, due_minor in dues:
        part = min(amount_minor, due_minor)
        if part > 0:
            parts.append((invoice_id, part))
            amount_minor -= part
    return parts


def taken_back(payment: Payment, amount_minor: int) -> list[tuple[str, int]]:
    """From which invoices a refund of that much is taken: credit first, then what was paid last.

    `Conflict` (code `refund_above_capture`) for more than is left of the payment.
    """
    left = payment.amount_minor - payment.refunded_minor
    if amount_minor > left:
        raise Conflict(
            f"A refund of {amount_minor} is above the {left} that are left of the {payment.amount_minor} captured, "
            "in minor units.",
            code="refund_above_capture",
            param="amount",
        )
    wanted, parts = amount_minor - min(amount_minor, payment.free_minor), list[tuple[str, int]]()
    for invoice_id, paid_minor in reversed(list(paid_by_invoice(payment.allocations).items())):
        part = min(wanted, paid_minor)
        if part > 0:
            parts.append((invoice_id, part))
            wanted -= part
    return parts


def paid_by_invoice(allocations: Iterable[Allocation]) -> dict[str, int]:
    """What each invoice has of a payment, in the order in which it was last paid; those with nothing are left out."""
    sums: dict[str, int] = {}
    for each in allocations:
        total = sums.get(each.invoice_id, 0) + each.amount_minor
        if each.amount_minor > 0:
            sums.pop(each.invoice_id, None)  # to the end: it was paid last
        sums[each.invoice_id] = total
    return {invoice_id: total for invoice_id, total in sums.items() if total}
