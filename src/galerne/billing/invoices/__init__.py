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
    TopUp,
    draft_credit_note,
    draft_top_up,
    mark_sent,
    reissue_invoice,
    void_invoice,
)
from galerne.billing.invoices.drafting import MonthDraft, collect_month
from galerne.billing.invoices.finalising import Checked, Checker, check_document, document_of_draft, finalise_invoice
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
    invoice_id_of,
    invoice_lines,
    list_invoices,
    provable_document,
)
from galerne.billing.invoices.routes import router as invoices_router
from galerne.billing.invoices.schemas import (
    CreditNoteIn,
    IssuerIn,
    ProfileIn,
    detail_fields,
    draft_fields,
    invoice_fields,
    issuer_fields,
    profile_fields,
    report_fields,
)
from galerne.billing.invoices.top_ups import grant_paid_top_up
from galerne.billing.invoices.usage import UsageLeaf, rated_leaves

__all__ = [
    "BillingProfile",
    "Checked",
    "Checker",
    "CloseOrder",
    "CloseParts",
    "CloseReport",
    "Course",
    "CreditNoteIn",
    "Crediting",
    "FrozenDocument",
    "Happening",
    "HappeningKind",
    "Invoice",
    "InvoiceLine",
    "InvoiceState",
    "Issuer",
    "IssuerIn",
    "LineKind",
    "MonthDraft",
    "ProfileIn",
    "Purpose",
    "TopUp",
    "UsageLeaf",
    "after",
    "check_document",
    "close_billing",
    "collect_month",
    "course_of",
    "detail_fields",
    "document_of_draft",
    "draft_credit_note",
    "draft_fields",
    "draft_top_up",
    "finalise_checked",
    "finalise_invoice",
    "find_invoice",
    "find_issuer",
    "find_profile",
    "frozen_document",
    "grant_paid_top_up",
    "happenings_of",
    "invoice_fields",
    "invoice_id_of",
    "invoice_lines",
    "invoices_router",
    "issuer_fields",
    "list_invoices",
    "list_issuers",
    "mark_sent",
    "need_profile",
    "preview_close",
    "profile_fields",
    "provable_document",
    "rated_leaves",
    "reissue_invoice",
    "report_fields",
    "set_issuer",
    "set_profile",
    "sha256_of",
    "span_of",
    "thaw",
    "void_invoice",
]
