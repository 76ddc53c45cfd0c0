"""Payments, what they pay, refunds, and bank statements.

Revision ID: 0016
"""

import sqlalchemy as sa
from alembic import op

from galerne.billing.payments.tables import after_create as guard_payments
from galerne.kernel import UtcTime

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, and have the database refuse changes, and refunds above what was captured."""
    _payments()
    _bank()
    for statement in guard_payments(op.get_bind().dialect.name):
        op.execute(statement)


def _payments() -> None:
    op.create_table(
        "payments",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("method", sa.String(length=20), nullable=False),
        sa.Column("reference", sa.String(length=200), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("received_on", sa.Date(), nullable=False),
        sa.Column("payer_iban", sa.String(length=40), nullable=False),
        sa.Column("request_id", sa.String(length=100), nullable=True),
        sa.Column("asked", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_payments_amount_positive")),
        sa.CheckConstraint("method IN ('bank_transfer', 'card', 'other')", name=op.f("ck_payments_method_known")),
        sa.UniqueConstraint("method", "reference", name=op.f("uq_payments_method_reference")),
        sa.UniqueConstraint("organisation_id", "request_id", name=op.f("uq_payments_organisation_id_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments")),
    )
    op.create_index(op.f("ix_payments_organisation_id_id"), "payments", ["organisation_id", "id"])
    op.create_table(
        "payment_allocations",
        sa.Column("payment_id", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("invoice_id", sa.String(length=32), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.CheckConstraint("seq > 0 AND amount_minor <> 0", name=op.f("ck_payment_allocations_seq_and_amount")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_payment_allocations_payment_id")),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name=op.f("fk_payment_allocations_invoice_id")),
        sa.PrimaryKeyConstraint("payment_id", "seq", name=op.f("pk_payment_allocations")),
    )
    op.create_index(op.f("ix_payment_allocations_invoice_id"), "payment_allocations", ["invoice_id"])
    op.create_table(
        "payment_refunds",
        sa.Column("payment_id", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(length=100), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("reference", sa.String(length=200), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.CheckConstraint("seq > 0 AND amount_minor > 0", name=op.f("ck_payment_refunds_seq_and_amount")),
        sa.UniqueConstraint("payment_id", "request_id", name=op.f("uq_payment_refunds_payment_id_request_id")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_payment_refunds_payment_id")),
        sa.PrimaryKeyConstraint("payment_id", "seq", name=op.f("pk_payment_refunds")),
    )


def _bank() -> None:
    op.create_table(
        "bank_entries",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("account_iban", sa.String(length=40), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("booked_on", sa.Date(), nullable=False),
        sa.Column("valued_on", sa.Date(), nullable=False),
        sa.Column("debtor_name", sa.Text(), nullable=False),
        sa.Column("debtor_iban", sa.String(length=40), nullable=False),
        sa.Column("creditor_reference", sa.Text(), nullable=False),
        sa.Column("end_to_end_id", sa.Text(), nullable=False),
        sa.Column("remittance", sa.Text(), nullable=False),
        sa.Column("reversal", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("candidates", sa.JSON(), nullable=False),
        sa.Column("imported_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bank_entries")),
    )
    op.create_index(op.f("ix_bank_entries_booked_on_id"), "bank_entries", ["booked_on", "id"])
    op.create_table(
        "bank_decisions",
        sa.Column("entry_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("payment_id", sa.String(length=32), nullable=True),
        sa.Column("note", sa.String(length=200), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.CheckConstraint("kind IN ('payment', 'set_aside')", name=op.f("ck_bank_decisions_kind_known")),
        sa.ForeignKeyConstraint(["entry_id"], ["bank_entries.id"], name=op.f("fk_bank_decisions_entry_id")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_bank_decisions_payment_id")),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_bank_decisions")),
    )
