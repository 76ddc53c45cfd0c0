"""Invoices: drafts from usage and charges, gapless numbers, frozen documents, postings, credit notes, closing."""

from galerne.billing.invoices.closing import (
    CloseOrder,
    CloseParts,
    CloseReport,
    close_billing,
    finalise_checked,
    preview_close,
)
from galerne.billing.invoices.correcting import (
    Crediting,
    Paid,
    TopUp,
    draft_credit_note,
    draft_top_up,
    mark_sent,
    open_invoices,
    record_payment,
    reissue_invoice,
    return_payment,
    void_invoice,
)
from galerne.billing.invoices.drafting import MonthDraft, collect_month
from galerne.billing.invoices.finalising import Checked, Checker, check_invoice, finalise_invoice
from galerne.billing.invoices.frozen import FrozenDocument, sha256_of, thaw
from galerne.billing.invoices.invoice import BillingProfile, Invoice, InvoiceLine, Issuer, LineKind, Purpose
from galerne.billing.invoices.lifecycle import Course, Happening, HappeningKind, InvoiceState, after, course_of
from galerne.billing.invoices.lines import span_of
from galerne.billing.invoices.parties import (
    find_issuer,
    find_profile,
    list_issuers,
    need_profile,
    set_issuer,
    set_profile,
)
from galerne.billing.invoices.records import (
    find_invoice,
    frozen_document,
    happenings_of,
    invoice_leaves,
    invoice_lines,
    list_invoices,
)
from galerne.billing.invoices.usage import UsageLeaf, rated_leaves

__all__ = [
    "BillingProfile",
    "Checked",
    "Checker",
    "CloseOrder",
    "CloseParts",
    "CloseReport",
    "Course",
    "Crediting",
    "FrozenDocument",
    "Happening",
    "HappeningKind",
    "Invoice",
    "InvoiceLine",
    "InvoiceState",
    "Issuer",
    "LineKind",
    "MonthDraft",
    "Paid",
    "Purpose",
    "TopUp",
    "UsageLeaf",
    "after",
    "check_invoice",
    "close_billing",
    "collect_month",
    "course_of",
    "draft_credit_note",
    "draft_top_up",
    "finalise_checked",
    "finalise_invoice",
    "find_invoice",
    "find_issuer",
    "find_profile",
    "frozen_document",
    "happenings_of",
    "invoice_leaves",
    "invoice_lines",
    "list_invoices",
    "list_issuers",
    "mark_sent",
    "need_profile",
    "open_invoices",
    "preview_close",
    "rated_leaves",
    "record_payment",
    "reissue_invoice",
    "return_payment",
    "set_issuer",
    "set_profile",
    "sha256_of",
    "span_of",
    "thaw",
    "void_invoice",
]
