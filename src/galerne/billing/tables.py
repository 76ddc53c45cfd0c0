"""What billing stores: plans, price lists, and prices that are never changed, only followed by newer ones."""

from datetime import datetime

from sqlalchemy import JSON, BigInteger, Boolean, CheckConstraint, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from galerne.journal import refuse_changes
from galerne.kernel import Table, UtcTime


class PlanRow(Table):
    """One `Plan`."""

    __tablename__ = "plans"
    __table_args__ = (
        CheckConstraint("weight > 0", name="weight_positive"),
        CheckConstraint("tier IN ('priority', 'standard', 'batch')", name="tier_known"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    weight: Mapped[int]
    tier: Mapped[str] = mapped_column(String(20))
    description: Mapped[str] = mapped_column(Text)


class PriceListRow(Table):
    """One price list; what is in it is said by the rates and modifiers that name it."""

    __tablename__ = "price_lists"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class PriceVersionRow(Table):
    """One change of the price book: rates and modifiers that were written together. Numbers have no gaps."""

    __tablename__ = "price_versions"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    retroactive: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class RateRow(Table):
    """What `per` units of what a rate matches cost from `effective_from` on, in nano-units of `currency`.

    An empty text, and -1 for `batch`, match anything, so that the database can see when two rates match the same.
    `nano` NULL withdraws the rate. `steps` are pairs of a start and a price.
    """

    __tablename__ = "rates"
    __table_args__ = (
        CheckConstraint("nano >= 0", name="not_negative"),
        CheckConstraint("per > 0", name="per_positive"),
        CheckConstraint("batch IN (-1, 0, 1)", name="batch_known"),
        CheckConstraint("length(currency) = 3", name="currency_is_a_code"),
        Index(
            "ux_rates_match",
            *("version", "list_id", "currency", "model_id", "token_class", "service_tier", "zone", "batch"),
            "effective_from",
            unique=True,
        ),
        Index(None, "model_id", "list_id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    version: Mapped[int] = mapped_column(ForeignKey("price_versions.number"))
    list_id: Mapped[str] = mapped_column(ForeignKey("price_lists.id"))
    currency: Mapped[str] = mapped_column(String(3))
    model_id: Mapped[str] = mapped_column(String(100))
    token_class: Mapped[str] = mapped_column(String(20))
    service_tier: Mapped[str] = mapped_column(String(20))
    zone: Mapped[str] = mapped_column(String(100))
    batch: Mapped[int]
    effective_from: Mapped[datetime] = mapped_column(UtcTime)
    nano: Mapped[int | None] = mapped_column(BigInteger)
    per: Mapped[int] = mapped_column(BigInteger)
    volume: Mapped[str | None] = mapped_column(String(20))
    steps: Mapped[list[list[int]]] = mapped_column(JSON)


class ModifierRow(Table):
    """One `Modifier`."""

    __tablename__ = "price_modifiers"
    __table_args__ = (
        CheckConstraint("ppm >= 0 AND ppm <= 10000000", name="ppm_in_bounds"),
        CheckConstraint("kind IN ('tier', 'batch', 'cached', 'zone')", name="kind_known"),
        Index(None, "list_id"),
    )

    version: Mapped[int] = mapped_column(ForeignKey("price_versions.number"), primary_key=True)
    list_id: Mapped[str] = mapped_column(ForeignKey("price_lists.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    value: Mapped[str] = mapped_column(String(100), primary_key=True)
    effective_from: Mapped[datetime] = mapped_column(UtcTime)
    ppm: Mapped[int]


class PriceAssignmentRow(Table):
    """One `Assignment`: who has which price list from when on."""

    __tablename__ = "price_assignments"
    __table_args__ = (CheckConstraint("scope IN ('plan', 'organisation')", name="scope_known"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    scope: Mapped[str] = mapped_column(String(20))
    subject: Mapped[str] = mapped_column(String(40), index=True)
    list_id: Mapped[str | None] = mapped_column(ForeignKey("price_lists.id"))
    effective_from: Mapped[datetime] = mapped_column(UtcTime)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class PriceTermsRow(Table):
    """Under which plan and in which currency an organisation's use is rated from when on.

    `other_currencies` are those of further accounts, in order, parted by commas.
    """

    __tablename__ = "price_terms"

    organisation_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    effective_from: Mapped[datetime] = mapped_column(UtcTime, primary_key=True)
    plan: Mapped[str] = mapped_column(String(40))
    currency: Mapped[str | None] = mapped_column(String(3))
    other_currencies: Mapped[str] = mapped_column(String(200), server_default="")


def after_create(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once the first of these tables existed."""
    return refuse_changes("rates", dialect_name)


def after_price_book(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once the price book's tables exist."""
    tables = ("price_versions", "rates", "price_modifiers", "price_assignments", "price_terms")
    return [statement for table in tables for statement in refuse_changes(table, dialect_name)]
