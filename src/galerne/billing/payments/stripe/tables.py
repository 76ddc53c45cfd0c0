"""What is stored of cards: our wishes to charge one, which webhooks were heard, and the sealed secrets."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from galerne.journal import refuse_changes
from galerne.kernel import Table, UtcTime


class CardIntentRow(Table):
    """That a customer wants to pay so much of an invoice by card; written before the processor is asked."""

    __tablename__ = "card_intents"
    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        UniqueConstraint("organisation_id", "request_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(String(32))
    invoice_id: Mapped[str] = mapped_column(ForeignKey("invoices.id"))
    currency: Mapped[str] = mapped_column(String(3))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    request_id: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class CardEventRow(Table):
    """A webhook that was heard: once is enough."""

    __tablename__ = "card_events"

    id: Mapped[str] = mapped_column(String(255), primary_key=True)
    type: Mapped[str] = mapped_column(String(100))
    received_at: Mapped[datetime] = mapped_column(UtcTime)


class PaymentSecretRow(Table):
    """A secret of a payment processor, sealed; the database alone opens nothing."""

    __tablename__ = "payment_secrets"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    updated_at: Mapped[datetime] = mapped_column(UtcTime)


def after_create(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once the tables exist."""
    return [each for table in ("card_intents", "card_events") for each in refuse_changes(table, dialect_name)]
