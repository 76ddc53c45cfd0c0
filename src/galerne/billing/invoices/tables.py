"""What is stored of invoices. What is final never changes, history is only added to, numbers have no gaps."""

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
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from galerne.journal import refuse_changes
from galerne.kernel import Table, UtcTime

_ONE_A_PERIOD = text("purpose = 'period'")


class IssuerRow(Table):
    """One `Issuer`: a legal entity that invoices."""

    __tablename__ = "invoice_issuers"

    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    updated_at: Mapped[datetime] = mapped_column(UtcTime)


class BillingProfileRow(Table):
    """One `BillingProfile`: to whom, in whose name, in which language an organisation is invoiced."""

    __tablename__ = "billing_profiles"

    organisation_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    issuer_id: Mapped[str] = mapped_column(ForeignKey("invoice_issuers.id"))
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    updated_at: Mapped[datetime] = mapped_column(UtcTime)


class InvoiceSeriesRow(Table):
    """The last number of a series (`FR-2026`); whoever takes the next one holds the row until the transaction ends."""

    __tablename__ = "invoice_series"
    __table_args__ = (CheckConstraint("last >= 0", name="last_not_negative"),)

    issuer_id: Mapped[str] = mapped_column(ForeignKey("invoice_issuers.id"), primary_key=True)
    series: Mapped[str] = mapped_column(String(40), primary_key=True)
    last: Mapped[int] = mapped_column(BigInteger)


class InvoiceRow(Table):
    """One `Invoice`. With a number it is final: only `state` changes then. `document` is the frozen text."""

    __tablename__ = "invoices"
    __table_args__ = (
        CheckConstraint("kind IN ('invoice', 'credit_note')", name="kind_known"),
        CheckConstraint("purpose IN ('period', 'top_up', 'credit_note', 'reissue')", name="purpose_known"),
        CheckConstraint("state IN ('draft', 'final', 'sent', 'paid', 'void', 'empty')", name="state_known"),
        CheckConstraint(
            "(number IS NULL) = (state IN ('draft', 'empty')) AND (number IS NULL) = (sha256 IS NULL)",
            name="number_when_final",
        ),
        UniqueConstraint("issuer_id", "series", "sequence"),
        UniqueConstraint("issuer_id", "number"),
        UniqueConstraint("organisation_id", "request_id"),
        Index(
            "uq_invoices_one_a_period",
            *("organisation_id", "period", "currency"),
            unique=True,
            sqlite_where=_ONE_A_PERIOD,
            postgresql_where=_ONE_A_PERIOD,
        ),
        Index(None, "organisation_id", "id"),
        Index(None, "period", "organisation_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(String(32))
    issuer_id: Mapped[str] = mapped_column(ForeignKey("invoice_issuers.id"))
    kind: Mapped[str] = mapped_column(String(20))
    purpose: Mapped[str] = mapped_column(String(20))
    period: Mapped[str | None] = mapped_column(String(7))
    currency: Mapped[str] = mapped_column(String(3))
    state: Mapped[str] = mapped_column(String(10))
    corrects_id: Mapped[str | None] = mapped_column(ForeignKey("invoices.id"))
    request_id: Mapped[str | None] = mapped_column(String(100))
    series: Mapped[str | None] = mapped_column(String(40))
    sequence: Mapped[int | None] = mapped_column(BigInteger)
    number: Mapped[str | None] = mapped_column(String(60))
    issued_on: Mapped[date | None] = mapped_column(Date)
    due_on: Mapped[date | None] = mapped_column(Date)
    net_minor: Mapped[int | None] = mapped_column(BigInteger)
    tax_minor: Mapped[int | None] = mapped_column(BigInteger)
    due_minor: Mapped[int | None] = mapped_column(BigInteger)
    usage_root: Mapped[bytes] = mapped_column(LargeBinary(32))
    usage_size: Mapped[int] = mapped_column(BigInteger)
    document: Mapped[str | None] = mapped_column(Text)
    sha256: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class EmptyInvoiceRow(Table):
    """What an invoice over nothing to pay says: it has no number, and yet its customer may want it proved."""

    __tablename__ = "empty_invoices"

    invoice_id: Mapped[str] = mapped_column(ForeignKey("invoices.id"), primary_key=True)
    document: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64))


class InvoiceLineRow(Table):
    """One `InvoiceLine`, as it was drafted."""

    __tablename__ = "invoice_lines"

    invoice_id: Mapped[str] = mapped_column(ForeignKey("invoices.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    description: Mapped[str] = mapped_column(Text)
    quantity: Mapped[int] = mapped_column(BigInteger)
    price: Mapped[str] = mapped_column(String(40))
    base_quantity: Mapped[int] = mapped_column(BigInteger)
    tax_inclusive: Mapped[bool] = mapped_column(Boolean)
    exact_nano: Mapped[int] = mapped_column(BigInteger)
    starts_at: Mapped[datetime] = mapped_column(UtcTime)
    ends_at: Mapped[datetime] = mapped_column(UtcTime, index=True)
    line_key: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))


class InvoiceChargeRow(Table):
    """How much of a charge an invoice bills, negative where it gives back; the rest is left for a later one."""

    __tablename__ = "invoice_charges"
    __table_args__ = (Index(None, "organisation_id", "charge_id"),)

    invoice_id: Mapped[str] = mapped_column(ForeignKey("invoices.id"), primary_key=True)
    charge_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(String(32))
    nano: Mapped[int] = mapped_column(BigInteger)


class InvoiceEventRow(Table):
    """One `Happening` of an invoice, in the order of `seq`."""

    __tablename__ = "invoice_events"
    __table_args__ = (
        CheckConstraint("seq > 0 AND amount_minor >= 0", name="seq_and_amount"),
        UniqueConstraint("invoice_id", "kind", "reference"),
    )

    invoice_id: Mapped[str] = mapped_column(ForeignKey("invoices.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    at: Mapped[datetime] = mapped_column(UtcTime)
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    reference: Mapped[str] = mapped_column(String(200))
    actor: Mapped[str] = mapped_column(String(100))


class BillingCloseRow(Table):
    """The closing of a month: when it was begun, which day its invoices bear, and when it was done."""

    __tablename__ = "billing_closes"

    period: Mapped[str] = mapped_column(String(7), primary_key=True)
    until: Mapped[datetime] = mapped_column(UtcTime)
    issued_on: Mapped[date] = mapped_column(Date)
    started_at: Mapped[datetime] = mapped_column(UtcTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcTime)


_FROZEN = (
    "organisation_id, issuer_id, kind, purpose, period, currency, corrects_id, request_id, series, sequence, number,"
    " issued_on, due_on, net_minor, tax_minor, due_minor, usage_root, usage_size, document, sha256, created_at"
)


def after_create(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once the tables exist."""
    appended = ("invoice_lines", "invoice_charges", "invoice_events")
    guards = [statement for table in appended for statement in refuse_changes(table, dialect_name)]
    final = "OLD.number IS NOT NULL"
    if dialect_name == "sqlite":
        keep, stay = (
            f"BEGIN SELECT RAISE(ABORT, '{words}'); END"
            for words in ("invoices keep what is final", "invoices are never deleted")
        )
        return [
            *guards,
            f"CREATE TRIGGER invoices_keep BEFORE UPDATE OF {_FROZEN} ON invoices WHEN {final} {keep}",
            f"CREATE TRIGGER invoices_stay BEFORE DELETE ON invoices {stay}",
        ]
    call = "EXECUTE FUNCTION refuse_change()"
    return [
        *guards,
        f"CREATE TRIGGER invoices_keep BEFORE UPDATE OF {_FROZEN} ON invoices FOR EACH ROW WHEN ({final}) {call}",
        f"CREATE TRIGGER invoices_stay BEFORE DELETE ON invoices FOR EACH ROW {call}",
        f"CREATE TRIGGER invoices_no_truncate BEFORE TRUNCATE ON invoices FOR EACH STATEMENT {call}",
    ]


def after_empty_invoices(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once `empty_invoices` exists."""
    return refuse_changes("empty_invoices", dialect_name)
