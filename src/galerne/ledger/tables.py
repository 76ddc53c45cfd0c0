"""What the ledger stores: accounts with their balances, transfers that never change, holds with what is left of them.

What a transfer does to balances and holds is done by the database itself (`triggers`), whoever inserts it.
"""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from galerne.kernel import Table, UtcTime
from galerne.ledger.chart import LARGEST_NANO, AccountKind, TransferKind
from galerne.ledger.lot_triggers import lot_guards
from galerne.ledger.triggers import guards

_OPEN = text("NOT closed")
_RELEASES = text("kind = 'release'")
_POSTS = text("kind = 'post'")


def _one_of(column: str, kinds: type[AccountKind] | type[TransferKind]) -> str:
    return f"{column} IN ({', '.join(repr(str(kind)) for kind in kinds)})"


def _in_range(*columns: str) -> str:
    return " AND ".join(f"{column} BETWEEN 0 AND {LARGEST_NANO}" for column in columns)


class AccountRow(Table):
    """One `Account` and its balances; the bound is the database's: no transfer can take more than there is."""

    __tablename__ = "ledger_accounts"
    __table_args__ = (
        CheckConstraint(_one_of("kind", AccountKind), name="kind_known"),
        CheckConstraint("length(currency) = 3", name="currency_is_a_code"),
        CheckConstraint(f"credit_limit_nano BETWEEN 0 AND {LARGEST_NANO}", name="limit_in_range"),
        CheckConstraint(
            _in_range("debits_posted_nano", "debits_pending_nano", "credits_posted_nano", "credits_pending_nano"),
            name="balances_in_range",
        ),
        CheckConstraint(
            "credit_limit_nano IS NULL OR"
            " debits_posted_nano + debits_pending_nano <= credits_posted_nano + credit_limit_nano",
            name="not_overdrawn",
        ),
        Index(None, "organisation_id"),
    )

    id: Mapped[str] = mapped_column(String, primary_key=True)
    organisation_id: Mapped[str | None] = mapped_column(String)
    kind: Mapped[str] = mapped_column(String)
    currency: Mapped[str] = mapped_column(String)
    credit_limit_nano: Mapped[int | None] = mapped_column(BigInteger)
    debits_posted_nano: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    debits_pending_nano: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    credits_posted_nano: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    credits_pending_nano: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class HoldRow(Table):
    """Money set aside on an account, settled in parts; `closed` when nothing is left of it."""

    __tablename__ = "ledger_holds"
    __table_args__ = (
        CheckConstraint(f"amount_nano BETWEEN 1 AND {LARGEST_NANO}", name="amount_in_range"),
        CheckConstraint(
            "settled_nano >= 0 AND released_nano >= 0 AND settled_nano + released_nano <= amount_nano",
            name="not_exceeded",
        ),
        CheckConstraint("closed = (settled_nano + released_nano = amount_nano)", name="closed_when_nothing_is_left"),
        CheckConstraint("released_nano = 0 OR closed", name="released_whole"),
        CheckConstraint("debit_account_id <> credit_account_id", name="two_accounts"),
        UniqueConstraint("id", "debit_account_id", "credit_account_id"),
        ForeignKeyConstraint(["debit_account_id"], ["ledger_accounts.id"], name="fk_ledger_holds_debit_account_id"),
        ForeignKeyConstraint(["credit_account_id"], ["ledger_accounts.id"], name="fk_ledger_holds_credit_account_id"),
        Index(None, "expires_at_ms", sqlite_where=_OPEN, postgresql_where=_OPEN),
    )

    id: Mapped[str] = mapped_column(String, primary_key=True)
    debit_account_id: Mapped[str] = mapped_column(String)
    credit_account_id: Mapped[str] = mapped_column(String)
    amount_nano: Mapped[int] = mapped_column(BigInteger)
    settled_nano: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    released_nano: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    holder: Mapped[str] = mapped_column(String)
    at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at_ms: Mapped[int] = mapped_column(BigInteger)
    closed: Mapped[bool] = mapped_column(Boolean, server_default=text("FALSE"))


class TransferRow(Table):
    """One transfer: a debit and a credit of the same amount, by construction.

    `seq` is given by the database and never by a caller. Whoever inserts a transfer has its accounts locked, so of one
    account a later commit has a larger one. On SQLite it is the rowid, on PostgreSQL an identity without a primary key
    of its own, for a settlement must not pay for another index.
    """

    __tablename__ = "ledger_transfers"
    __table_args__ = (
        CheckConstraint(_one_of("kind", TransferKind), name="kind_known"),
        CheckConstraint(f"amount_nano BETWEEN 1 AND {LARGEST_NANO}", name="amount_in_range"),
        CheckConstraint("debit_account_id <> credit_account_id", name="two_accounts"),
        CheckConstraint("(kind = 'post') = (hold_id IS NULL)", name="hold_unless_posted"),
        CheckConstraint("kind <> 'hold' OR id = hold_id", name="hold_named_as_its_transfer"),
        ForeignKeyConstraint(["debit_account_id"], ["ledger_accounts.id"], name="fk_ledger_transfers_debit_account_id"),
        ForeignKeyConstraint(
            ["credit_account_id"], ["ledger_accounts.id"], name="fk_ledger_transfers_credit_account_id"
        ),
        # A transfer of a hold has the hold's accounts.
        ForeignKeyConstraint(
            ["hold_id", "debit_account_id", "credit_account_id"],
            ["ledger_holds.id", "ledger_holds.debit_account_id", "ledger_holds.credit_account_id"],
            name="fk_ledger_transfers_hold_id",
        ),
        Index(
            "uq_ledger_transfers_released_once",
            "hold_id",
            unique=True,
            sqlite_where=_RELEASES,
            postgresql_where=_RELEASES,
        ),
        UniqueConstraint("id"),
        Index(None, "debit_account_id", "seq"),
        Index(None, "credit_account_id", "seq", sqlite_where=_POSTS, postgresql_where=_POSTS),
    )

    seq: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer(), "sqlite"), Identity(always=True), primary_key=True
    )
    id: Mapped[str] = mapped_column(String)
    kind: Mapped[str] = mapped_column(String)
    debit_account_id: Mapped[str] = mapped_column(String)
    credit_account_id: Mapped[str] = mapped_column(String)
    amount_nano: Mapped[int] = mapped_column(BigInteger)
    hold_id: Mapped[str | None] = mapped_column(String)
    reason: Mapped[str | None] = mapped_column(String)
    at: Mapped[datetime] = mapped_column(UtcTime)


def after_create(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once the tables exist."""
    return guards(dialect_name)


def after_lots_create(dialect_name: str) -> list[str]:
    """The same for the tables of lots."""
    return lot_guards(dialect_name)
