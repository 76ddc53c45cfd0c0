"""Money that comes in: what a bank or a processor says, which invoices it pays, what is given back."""

from galerne.billing.documents.creditor_reference import creditor_reference
from galerne.billing.payments.bank import (
    Imported,
    WaitingEntry,
    assign_entry,
    count_waiting,
    import_statement,
    set_entry_aside,
    waiting_entries,
)
from galerne.billing.payments.camt053 import StatementEntry, read_camt053
from galerne.billing.payments.payment import Allocation, NewPayment, NewRefund, Payment, Refund
from galerne.billing.payments.routes import router as payments_router
from galerne.billing.payments.schemas import import_fields, minor_of, payment_fields, waiting_fields
from galerne.billing.payments.service import (
    allocate_payment,
    find_payment,
    list_payments,
    receivable,
    record_payment,
    refund_payment,
)
from galerne.billing.payments.stripe.routes import WEBHOOK_PATH
from galerne.billing.payments.stripe.routes import router as cards_router
from galerne.billing.payments.stripe.service import StripeSecrets, set_stripe_secrets

__all__ = [
    "WEBHOOK_PATH",
    "Allocation",
    "Imported",
    "NewPayment",
    "NewRefund",
    "Payment",
    "Refund",
    "StatementEntry",
    "StripeSecrets",
    "WaitingEntry",
    "allocate_payment",
    "assign_entry",
    "cards_router",
    "count_waiting",
    "creditor_reference",
    "find_payment",
    "import_fields",
    "import_statement",
    "list_payments",
    "minor_of",
    "payment_fields",
    "payments_router",
    "read_camt053",
    "receivable",
    "record_payment",
    "refund_payment",
    "set_entry_aside",
    "set_stripe_secrets",
    "waiting_entries",
    "waiting_fields",
]
