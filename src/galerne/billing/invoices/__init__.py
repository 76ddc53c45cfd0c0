"""Invoices: drafts from usage and charges, gapless numbers, frozen documents, postings, credit notes, closing."""

from galerne.billing.invoices.invoice import (
    BillingProfile,
    Invoice,
    InvoiceLine,
    Issuer,
    LineKind,
    Purpose,
)
from galerne.billing.invoices.lifecycle import (
    Course,
    Happening,
    HappeningKind,
    InvoiceState,
    after,
    course_of,
)
from galerne.billing.invoices.tables import (
    BillingCloseRow,
    BillingProfileRow,
    InvoiceChargeRow,
    InvoiceEventRow,
    InvoiceLineRow,
    InvoiceRow,
    InvoiceSeriesRow,
    IssuerRow,
)

__all__ = [
    "BillingCloseRow",
    "BillingProfile",
    "BillingProfileRow",
    "Course",
    "Happening",
    "HappeningKind",
    "Invoice",
    "InvoiceChargeRow",
    "InvoiceEventRow",
    "InvoiceLine",
    "InvoiceLineRow",
    "InvoiceRow",
    "InvoiceSeriesRow",
    "InvoiceState",
    "Issuer",
    "IssuerRow",
    "LineKind",
    "Purpose",
    "after",
    "course_of",
]
