"""The ledger: accounts, transfers and holds, and the triggers that keep the balances.

Revision ID: 0006
"""

import sqlalchemy as sa
from alembic import op

from galerne.kernel import UtcTime
from galerne.ledger.tables import after_create as keep_books

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_LARGEST_NANO = 2**62 - 1
_ACCOUNT_KINDS = (
    "'prepaid', 'promo', 'commit', 'service_credit', 'receivable', 'accrued_usage', 'cash_clearing', 'revenue', "
    "'deferred_revenue', 'breakage', 'tax_payable', 'marketplace_receivable', 'marketplace_fee', 'partner_payable', "
    "'rounding', 'refunds', 'bad_debt', 'promo_cost'"
)


def upgrade() -> None:
    """Make the tables, then have the database keep the books."""
    _accounts()
    _holds()
    _transfers()
    for statement in keep_books(op.get_bind().dialect.name):
        op.execute(statement)


def _accounts() -> None:
    balances = ("debits_posted_nano", "debits_pending_nano", "credits_posted_nano", "credits_pending_nano")
    op.create_table(
        "ledger_accounts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("organisation_id", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("credit_limit_nano", sa.BigInteger(), nullable=True),
        *(sa.Column(name, sa.BigInteger(), server_default=sa.text("0"), nullable=False) for name in balances),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint(f"kind IN ({_ACCOUNT_KINDS})", name=op.f("ck_ledger_accounts_kind_known")),
        sa.CheckConstraint("length(currency) = 3", name=op.f("ck_ledger_accounts_currency_is_a_code")),
        sa.CheckConstraint(
            f"credit_limit_nano BETWEEN 0 AND {_LARGEST_NANO}", name=op.f("ck_ledger_accounts_limit_in_range")
        ),
        sa.CheckConstraint(
            " AND ".join(f"{name} BETWEEN 0 AND {_LARGEST_NANO}" for name in balances),
            name=op.f("ck_ledger_accounts_balances_in_range"),
        ),
        sa.CheckConstraint(
            "credit_limit_nano IS NULL OR"
            " debits_posted_nano + debits_pending_nano <= credits_posted_nano + credit_limit_nano",
            name=op.f("ck_ledger_accounts_not_overdrawn"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_accounts")),
    )
    op.create_index(op.f("ix_ledger_accounts_organisation_id"), "ledger_accounts", ["organisation_id"])


def _holds() -> None:
    is_open = sa.text("NOT closed")
    op.create_table(
        "ledger_holds",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("debit_account_id", sa.String(), nullable=False),
        sa.Column("credit_account_id", sa.String(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("settled_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("released_nano", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("closed", sa.Boolean(), server_default=sa.text("FALSE"), nullable=False),
        sa.CheckConstraint(f"amount_nano BETWEEN 1 AND {_LARGEST_NANO}", name=op.f("ck_ledger_holds_amount_in_range")),
        sa.CheckConstraint(
            "settled_nano >= 0 AND released_nano >= 0 AND settled_nano + released_nano <= amount_nano",
            name=op.f("ck_ledger_holds_not_exceeded"),
        ),
        sa.CheckConstraint(
            "closed = (settled_nano + released_nano = amount_nano)",
            name=op.f("ck_ledger_holds_closed_when_nothing_is_left"),
        ),
        sa.CheckConstraint("released_nano = 0 OR closed", name=op.f("ck_ledger_holds_released_whole")),
        sa.CheckConstraint("debit_account_id <> credit_account_id", name=op.f("ck_ledger_holds_two_accounts")),
        *_sides("ledger_holds"),
        sa.UniqueConstraint(
            "id",
            "debit_account_id",
            "credit_account_id",
            name=op.f("uq_ledger_holds_id_debit_account_id_credit_account_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_holds")),
    )
    op.create_index(
        op.f("ix_ledger_holds_expires_at_ms"),
        "ledger_holds",
        ["expires_at_ms"],
        sqlite_where=is_open,
        postgresql_where=is_open,
    )


def _transfers() -> None:
    op.create_table(
        "ledger_transfers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("debit_account_id", sa.String(), nullable=False),
        sa.Column("credit_account_id", sa.String(), nullable=False),
        sa.Column("amount_nano", sa.BigInteger(), nullable=False),
        sa.Column("hold_id", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("at", UtcTime(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('post', 'hold', 'settle', 'release')", name=op.f("ck_ledger_transfers_kind_known")
        ),
        sa.CheckConstraint(
            f"amount_nano BETWEEN 1 AND {_LARGEST_NANO}", name=op.f("ck_ledger_transfers_amount_in_range")
        ),
        sa.CheckConstraint("debit_account_id <> credit_account_id", name=op.f("ck_ledger_transfers_two_accounts")),
        sa.CheckConstraint("(kind = 'post') = (hold_id IS NULL)", name=op.f("ck_ledger_transfers_hold_unless_posted")),
        sa.CheckConstraint(
            "kind <> 'hold' OR id = hold_id", name=op.f("ck_ledger_transfers_hold_named_as_its_transfer")
        ),
        *_sides("ledger_transfers"),
        sa.ForeignKeyConstraint(
            ["hold_id", "debit_account_id", "credit_account_id"],
            ["ledger_holds.id", "ledger_holds.debit_account_id", "ledger_holds.credit_account_id"],
            name=op.f("fk_ledger_transfers_hold_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_transfers")),
    )
    releases, posts = sa.text("kind = 'release'"), sa.text("kind = 'post'")
    op.create_index(
        "uq_ledger_transfers_released_once",
        "ledger_transfers",
        ["hold_id"],
        unique=True,
        sqlite_where=releases,
        postgresql_where=releases,
    )
    op.create_index(op.f("ix_ledger_transfers_debit_account_id_at"), "ledger_transfers", ["debit_account_id", "at"])
    op.create_index(
        op.f("ix_ledger_transfers_credit_account_id_at"),
        "ledger_transfers",
        ["credit_account_id", "at"],
        sqlite_where=posts,
        postgresql_where=posts,
    )


def _sides(table: str) -> tuple[sa.ForeignKeyConstraint, ...]:
    return tuple(
        sa.ForeignKeyConstraint(
            [f"{side}_account_id"], ["ledger_accounts.id"], name=op.f(f"fk_{table}_{side}_account_id")
        )
        for side in ("debit", "credit")
    )
