"""The price book with versions, lists, service tiers, zones and volume; rates of before become its first versions.

Revision ID: 0009
"""

import sqlalchemy as sa
from alembic import op

from galerne.billing.tables import after_price_book as guard_price_book
from galerne.kernel import UtcTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_OLD = "SELECT id, model_id, token_class, currency, effective_from, nano_per_million, created_at FROM rates"


def upgrade() -> None:
    """Make the tables, move the rates that there are, and have the database keep prices as they were set."""
    old = [row._asdict() for row in op.get_bind().execute(sa.text(_OLD).columns(**_TIMES))]
    op.drop_table("rates")
    _create_price_versions()
    _create_price_lists()
    _create_price_modifiers()
    _create_price_assignments()
    _create_price_terms()
    _create_rates()
    _move(old)
    for statement in guard_price_book(op.get_bind().dialect.name):
        op.execute(statement)


_TIMES = {"effective_from": UtcTime(), "created_at": UtcTime()}


def _move(old: list[dict[str, object]]) -> None:
    # Of rates for the same thing from the same time on the one made last counted: their versions keep that order.
    ordered = sorted(old, key=lambda row: (row["created_at"], row["id"]))
    lists = sa.table("price_lists", sa.column("id"), sa.column("name"), sa.column("created_at", UtcTime()))
    made = sa.func.now() if op.get_bind().dialect.name == "postgresql" else sa.text("CURRENT_TIMESTAMP")
    op.execute(lists.insert().values(id="default", name="Everyone", created_at=made))
    columns = ("id", "version", "list_id", "currency", "model_id", "token_class", "service_tier", "zone", "batch")
    rates = sa.table(
        "rates",
        *map(sa.column, (*columns, "nano", "per")),
        sa.column("effective_from", UtcTime()),
        sa.column("steps", sa.JSON()),
    )
    versions = sa.table(
        "price_versions", sa.column("number"), sa.column("retroactive"), sa.column("created_at", UtcTime())
    )
    for number, row in enumerate(ordered, 1):
        version = {"number": number, "retroactive": False, "created_at": row["created_at"]}
        op.bulk_insert(versions, [version])
        same = {name: row[name] for name in ("id", "currency", "model_id", "token_class", "effective_from")}
        matching = {"service_tier": "", "zone": "", "batch": -1}
        price = {"nano": row["nano_per_million"], "per": 1_000_000, "steps": []}
        op.bulk_insert(rates, [{**same, **matching, **price, "version": number, "list_id": "default"}])


def _create_price_versions() -> None:
    op.create_table(
        "price_versions",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("retroactive", sa.Boolean(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_price_versions")),
    )


def _create_price_lists() -> None:
    op.create_table(
        "price_lists",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_lists")),
    )


def _create_price_modifiers() -> None:
    op.create_table(
        "price_modifiers",
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("list_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("value", sa.String(length=100), nullable=False),
        sa.Column("effective_from", UtcTime(), nullable=False),
        sa.Column("ppm", sa.Integer(), nullable=False),
        sa.CheckConstraint("kind IN ('tier', 'batch', 'cached', 'zone')", name=op.f("ck_price_modifiers_kind_known")),
        sa.CheckConstraint("ppm >= 0 AND ppm <= 10000000", name=op.f("ck_price_modifiers_ppm_in_bounds")),
        sa.ForeignKeyConstraint(["list_id"], ["price_lists.id"], name=op.f("fk_price_modifiers_list_id")),
        sa.ForeignKeyConstraint(["version"], ["price_versions.number"], name=op.f("fk_price_modifiers_version")),
        sa.PrimaryKeyConstraint("version", "list_id", "kind", "value", name=op.f("pk_price_modifiers")),
    )


def _create_price_assignments() -> None:
    op.create_table(
        "price_assignments",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("scope", sa.String(length=20), nullable=False),
        sa.Column("subject", sa.String(length=40), nullable=False),
        sa.Column("list_id", sa.String(length=40), nullable=True),
        sa.Column("effective_from", UtcTime(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint("scope IN ('plan', 'organisation')", name=op.f("ck_price_assignments_scope_known")),
        sa.ForeignKeyConstraint(["list_id"], ["price_lists.id"], name=op.f("fk_price_assignments_list_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_price_assignments")),
    )
    op.create_index(op.f("ix_price_assignments_subject"), "price_assignments", ["subject"], unique=False)


def _create_price_terms() -> None:
    op.create_table(
        "price_terms",
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("effective_from", UtcTime(), nullable=False),
        sa.Column("plan", sa.String(length=40), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.PrimaryKeyConstraint("organisation_id", "effective_from", name=op.f("pk_price_terms")),
    )


def _create_rates() -> None:
    op.create_table(
        "rates",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("list_id", sa.String(length=40), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("model_id", sa.String(length=100), nullable=False),
        sa.Column("token_class", sa.String(length=20), nullable=False),
        sa.Column("service_tier", sa.String(length=20), nullable=False),
        sa.Column("zone", sa.String(length=100), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("effective_from", UtcTime(), nullable=False),
        sa.Column("nano", sa.BigInteger(), nullable=True),
        sa.Column("per", sa.BigInteger(), nullable=False),
        sa.Column("volume", sa.String(length=20), nullable=True),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.CheckConstraint("nano >= 0", name=op.f("ck_rates_not_negative")),
        sa.CheckConstraint("per > 0", name=op.f("ck_rates_per_positive")),
        sa.CheckConstraint("batch IN (-1, 0, 1)", name=op.f("ck_rates_batch_known")),
        sa.CheckConstraint("length(currency) = 3", name=op.f("ck_rates_currency_is_a_code")),
        sa.ForeignKeyConstraint(["version"], ["price_versions.number"], name=op.f("fk_rates_version")),
        sa.ForeignKeyConstraint(["list_id"], ["price_lists.id"], name=op.f("fk_rates_list_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rates")),
    )
    match = ("version", "list_id", "currency", "model_id", "token_class", "service_tier", "zone", "batch")
    op.create_index("ux_rates_match", "rates", [*match, "effective_from"], unique=True)
    op.create_index("ix_rates_model_id", "rates", ["model_id"])
