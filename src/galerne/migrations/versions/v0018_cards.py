"""Cards: wishes to charge one, webhooks that were heard, sealed secrets.

Revision ID: 0018
"""

import sqlalchemy as sa
from alembic import op

from galerne.billing.payments.stripe.tables import after_create as guard_cards
from galerne.kernel import UtcTime

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, and have the database keep wishes and webhooks."""
    op.create_table(
        "card_intents",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("invoice_id", sa.String(length=32), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.String(length=100), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_card_intents_amount_positive")),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name=op.f("fk_card_intents_invoice_id")),
        sa.UniqueConstraint("organisation_id", "request_id", name=op.f("uq_card_intents_organisation_id_request_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_card_intents")),
    )
    op.create_table(
        "card_events",
        sa.Column("id", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=100), nullable=False),
        sa.Column("received_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_card_events")),
    )
    op.create_table(
        "payment_secrets",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_payment_secrets")),
    )
    for statement in guard_cards(op.get_bind().dialect.name):
        op.execute(statement)
