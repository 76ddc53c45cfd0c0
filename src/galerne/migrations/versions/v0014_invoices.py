"""Invoices: who issues them, to whom, numbers, lines, documents, what happened to them.

Revision ID: 0014
"""

import sqlalchemy as sa
from alembic import op

from galerne.billing.invoices.tables import after_create as guard_invoices
from galerne.kernel import UtcTime

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, and have the database keep what is final."""
    _settings()
    _invoices()
    _history()
    for statement in guard_invoices(op.get_bind().dialect.name):
        op.execute(statement)


def _settings() -> None:
    op.create_table(
        "invoice_issuers",
        sa.Column("id", sa.String(length=20), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("updated_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invoice_issuers")),
    )
    op.create_table(
        "billing_profiles",
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("issuer_id", sa.String(length=20), nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("updated_at", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(["issuer_id"], ["invoice_issuers.id"], name=op.f("fk_billing_profiles_issuer_id")),
        sa.PrimaryKeyConstraint("organisation_id", name=op.f("pk_billing_profiles")),
    )
    op.create_table(
        "invoice_series",
        sa.Column("issuer_id", sa.String(length=20), nullable=False),
        sa.Column("series", sa.String(length=40), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("last >= 0", name=op.f("ck_invoice_series_last_not_negative")),
        sa.ForeignKeyConstraint(["issuer_id"], ["invoice_issuers.id"], name=op.f("fk_invoice_series_issuer_id")),
        sa.PrimaryKeyConstraint("issuer_id", "series", name=op.f("pk_invoice_series")),
    )


def _invoices() -> None:
    op.create_table(
        "invoices",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("issuer_id", sa.String(length=20), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("purpose", sa.String(length=20), nullable=False),
        sa.Column("period", sa.String(length=7), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("corrects_id", sa.String(length=32), nullable=True),
        sa.Column("request_id", sa.String(length=100), nullable=True),
        sa.Column("series", sa.String(length=40), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("number", sa.String(length=60), nullable=True),
        sa.Column("issued_on", sa.Date(), nullable=True),
        sa.Column("due_on", sa.Date(), nullable=True),
        sa.Column("net_minor", sa.BigInteger(), nullable=True),
        sa.Column("tax_minor", sa.BigInteger(), nullable=True),
        sa.Column("due_minor", sa.BigInteger(), nullable=True),
        sa.Column("usage_root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("usage_size", sa.BigInteger(), nullable=False),
        sa.Column("document", sa.Text(), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint(
            "(number IS NULL) = (state IN ('draft', 'empty')) AND (number IS NULL) = (sha256 IS NULL)",
            name=op.f("ck_invoices_number_when_final"),
        ),
        sa.CheckConstraint("kind IN ('invoice', 'credit_note')", name=op.f("ck_invoices_kind_known")),
        sa.CheckConstraint(
            "purpose IN ('period', 'top_up', 'credit_note', 'reissue')", name=op.f("ck_invoices_purpose_known")
        ),
        sa.CheckConstraint(
            "state IN ('draft', 'final', 'sent', 'paid', 'void', 'empty')", name=op.f("ck_invoices_state_known")
        ),
        sa.ForeignKeyConstraint(["corrects_id"], ["invoices.id"], name=op.f("fk_invoices_corrects_id")),
        sa.ForeignKeyConstraint(["issuer_id"], ["invoice_issuers.id"], name=op.f("fk_invoices_issuer_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invoices")),
        sa.UniqueConstraint("issuer_id", "number", name=op.f("uq_invoices_issuer_id_number")),
        sa.UniqueConstraint("issuer_id", "series", "sequence", name=op.f("uq_invoices_issuer_id_series_sequence")),
        sa.UniqueConstraint("organisation_id", "request_id", name=op.f("uq_invoices_organisation_id_request_id")),
    )
    op.create_index(op.f("ix_invoices_organisation_id_id"), "invoices", ["organisation_id", "id"], unique=False)
    op.create_index(op.f("ix_invoices_period_organisation_id"), "invoices", ["period", "organisation_id"], unique=False)
    op.create_index(
        "uq_invoices_one_a_period",
        "invoices",
        ["organisation_id", "period", "currency"],
        unique=True,
        sqlite_where=sa.text("purpose = 'period'"),
        postgresql_where=sa.text("purpose = 'period'"),
    )


def _history() -> None:
    op.create_table(
        "invoice_lines",
        sa.Column("invoice_id", sa.String(length=32), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("price", sa.String(length=40), nullable=False),
        sa.Column("base_quantity", sa.BigInteger(), nullable=False),
        sa.Column("tax_inclusive", sa.Boolean(), nullable=False),
        sa.Column("exact_nano", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", UtcTime(), nullable=False),
        sa.Column("ends_at", UtcTime(), nullable=False),
        sa.Column("line_key", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name=op.f("fk_invoice_lines_invoice_id")),
        sa.PrimaryKeyConstraint("invoice_id", "position", name=op.f("pk_invoice_lines")),
    )
    op.create_index(op.f("ix_invoice_lines_ends_at"), "invoice_lines", ["ends_at"], unique=False)
    op.create_table(
        "invoice_charges",
        sa.Column("invoice_id", sa.String(length=32), nullable=False),
        sa.Column("charge_id", sa.String(length=200), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("nano", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name=op.f("fk_invoice_charges_invoice_id")),
        sa.PrimaryKeyConstraint("invoice_id", "charge_id", name=op.f("pk_invoice_charges")),
    )
    op.create_index(
        op.f("ix_invoice_charges_organisation_id_charge_id"),
        "invoice_charges",
        ["organisation_id", "charge_id"],
        unique=False,
    )
    op.create_table(
        "invoice_events",
        sa.Column("invoice_id", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("reference", sa.String(length=200), nullable=False),
        sa.Column("actor", sa.String(length=100), nullable=False),
        sa.CheckConstraint("seq > 0 AND amount_minor >= 0", name=op.f("ck_invoice_events_seq_and_amount")),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name=op.f("fk_invoice_events_invoice_id")),
        sa.PrimaryKeyConstraint("invoice_id", "seq", name=op.f("pk_invoice_events")),
        sa.UniqueConstraint(
            "invoice_id", "kind", "reference", name=op.f("uq_invoice_events_invoice_id_kind_reference")
        ),
    )
    op.create_table(
        "billing_closes",
        sa.Column("period", sa.String(length=7), nullable=False),
        sa.Column("until", UtcTime(), nullable=False),
        sa.Column("issued_on", sa.Date(), nullable=False),
        sa.Column("started_at", UtcTime(), nullable=False),
        sa.Column("finished_at", UtcTime(), nullable=True),
        sa.PrimaryKeyConstraint("period", name=op.f("pk_billing_closes")),
    )
    # ### end Alembic commands ###
