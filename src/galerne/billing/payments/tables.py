"""What is stored of payments: captured money, what it pays, what was given back, and what the bank's statements say.

All of it is only added to: what is still free of a payment, and what waits for a person, is read off the rows.
"""

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Date,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from galerne.journal import refuse_changes
from galerne.kernel import Table, UtcTime


class PaymentRow(Table):
    """One `Payment`: money that came in. One booking of a bank, or charge of a card, counts once."""

    __tablename__ = "payments"
    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        CheckConstraint("method IN ('bank_transfer', 'card', 'other')", name="method_known"),
        UniqueConstraint("method", "reference"),
        UniqueConstraint("organisation_id", "request_id"),
        Index(None, "organisation_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(String(32))
    method: Mapped[str] = mapped_column(String(20))
    reference: Mapped[str] = mapped_column(String(200))
    currency: Mapped[str] = mapped_column(String(3))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    received_on: Mapped[date] = mapped_column(Date)
    payer_iban: Mapped[str] = mapped_column(String(40))
    request_id: Mapped[str | None] = mapped_column(String(100))
    asked: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class PaymentAllocationRow(Table):
    """One `Allocation`: so much of a payment pays an invoice; negative where that is taken back."""

    __tablename__ = "payment_allocations"
    __table_args__ = (
        CheckConstraint("seq > 0 AND amount_minor <> 0", name="seq_and_amount"),
        Index(None, "invoice_id"),
    )

    payment_id: Mapped[str] = mapped_column(ForeignKey("payments.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    invoice_id: Mapped[str] = mapped_column(ForeignKey("invoices.id"))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(UtcTime)


class PaymentRefundRow(Table):
    """One `Refund`. No more is given back than was captured: a trigger refuses it."""

    __tablename__ = "payment_refunds"
    __table_args__ = (
        CheckConstraint("seq > 0 AND amount_minor > 0", name="seq_and_amount"),
        UniqueConstraint("payment_id", "request_id"),
    )

    payment_id: Mapped[str] = mapped_column(ForeignKey("payments.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    request_id: Mapped[str] = mapped_column(String(100))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(String(200))
    reference: Mapped[str] = mapped_column(String(200))
    at: Mapped[datetime] = mapped_column(UtcTime)


class BankEntryRow(Table):
    """One `StatementEntry` of an imported statement, and what matching said of it."""

    __tablename__ = "bank_entries"
    __table_args__ = (Index(None, "booked_on", "id"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    key: Mapped[str] = mapped_column(Text)
    account_iban: Mapped[str] = mapped_column(String(40))
    currency: Mapped[str] = mapped_column(String(3))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    booked_on: Mapped[date] = mapped_column(Date)
    valued_on: Mapped[date] = mapped_column(Date)
    debtor_name: Mapped[str] = mapped_column(Text)
    debtor_iban: Mapped[str] = mapped_column(String(40))
    creditor_reference: Mapped[str] = mapped_column(Text)
    end_to_end_id: Mapped[str] = mapped_column(Text)
    remittance: Mapped[str] = mapped_column(Text)
    reversal: Mapped[bool] = mapped_column(Boolean)
    outcome: Mapped[str] = mapped_column(String(20))
    candidates: Mapped[list[str]] = mapped_column(JSON)
    imported_at: Mapped[datetime] = mapped_column(UtcTime)


class BankDecisionRow(Table):
    """That a person, or matching, is done with an entry: it became a payment, or is none of ours."""

    __tablename__ = "bank_decisions"
    __table_args__ = (CheckConstraint("kind IN ('payment', 'set_aside')", name="kind_known"),)

    entry_id: Mapped[str] = mapped_column(ForeignKey("bank_entries.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    payment_id: Mapped[str | None] = mapped_column(ForeignKey("payments.id"))
    note: Mapped[str] = mapped_column(String(200))
    at: Mapped[datetime] = mapped_column(UtcTime)


_TABLES = ("payments", "payment_allocations", "payment_refunds", "bank_entries", "bank_decisions")
_OVER = """
(SELECT coalesce(sum(amount_minor), 0) FROM payment_refunds WHERE payment_id = NEW.payment_id) + NEW.amount_minor
> (SELECT amount_minor FROM payments WHERE id = NEW.payment_id)"""
_WORDS = "a refund is above what was captured"


def after_create(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once the tables exist."""
    guards = [statement for table in _TABLES for statement in refuse_changes(table, dialect_name)]
    name = "payment_refunds_within_capture"
    if dialect_name == "sqlite":
        body = f"WHEN {_OVER} BEGIN SELECT RAISE(ABORT, '{_WORDS}'); END"
        return [*guards, f"CREATE TRIGGER {name} BEFORE INSERT ON payment_refunds {body}"]
    # The row of the payment is locked, so that two refunds at once see each other.
    function = f"""
    CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM 1 FROM payments WHERE id = NEW.payment_id FOR NO KEY UPDATE;
      IF {_OVER} THEN
        RAISE EXCEPTION '{_WORDS}' USING ERRCODE = 'integrity_constraint_violation';
      END IF;
      RETURN NEW;
    END
    $$"""  # names of ours
    call = f"FOR EACH ROW EXECUTE FUNCTION {name}()"
    return [*guards, function, f"CREATE TRIGGER {name} BEFORE INSERT ON payment_refunds {call}"]
