"""Hourly sums under the numbers of keys and lines, and ratings that are found by period, organisation and event.

Revision ID: 0023
"""

import sqlalchemy as sa
from alembic import op

from galerne.billing.rating.tables import after_numbers

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_LINE = "rate_id, model_id, token_class, service_tier, zone, batch, tier_index"
_KEY = "organisation_id, workspace_id, key_id"
_HOUR = {
    "sqlite": "CAST(strftime('%s', b.hour) AS INTEGER) / 3600",
    "postgresql": "CAST(extract(epoch FROM b.hour) AS BIGINT) / 3600",
}


def upgrade() -> None:
    """Number keys and lines, sum under their numbers what was summed, and rebuild the ratings' index."""
    dialect = op.get_bind().dialect.name
    _create_numbers()
    op.execute(f"INSERT INTO rated_keys (number, {_KEY}) {_numbered(_KEY)}")  # names of ours
    op.execute(f"INSERT INTO rated_lines (number, {_LINE}, currency) {_numbered(_LINE, ', currency')}")  # as above
    for statement in after_numbers(dialect):
        op.execute(statement)
    _create_sums("short_buckets", "pk_usage_buckets" if dialect == "sqlite" else "pk_short_buckets")
    lines = " AND ".join(f"l.{name} = b.{name}" for name in _LINE.split(", "))
    keys = " AND ".join(f"k.{name} = b.{name}" for name in _KEY.split(", "))
    op.execute(
        "INSERT INTO short_buckets (key_number, period, hour, line_number, requests, quantity, nano) "  # noqa: S608  # as above
        f"SELECT k.number, b.period, {_HOUR[dialect]}, l.number, b.requests, b.quantity, b.nano "
        f"FROM usage_buckets b JOIN rated_keys k ON {keys} JOIN rated_lines l ON {lines} ORDER BY 1, 2, 3, 4"
    )
    op.drop_table("usage_buckets")
    op.rename_table("short_buckets", "usage_buckets")
    if dialect == "sqlite":
        _without_rowid()
    else:
        op.execute("ALTER INDEX pk_short_buckets RENAME TO pk_usage_buckets")
        op.drop_index("ix_usage_ratings_period_organisation_id", "usage_ratings")
    op.create_index(
        op.f("ix_usage_ratings_period_organisation_id_event_id"),
        "usage_ratings",
        ["period", "organisation_id", "event_id"],
    )


def _numbered(columns: str, more: str = "") -> str:
    return (
        f"SELECT row_number() OVER (ORDER BY {columns}), {columns}{more} "  # noqa: S608  # names of ours
        f"FROM (SELECT DISTINCT {columns}{more} FROM usage_buckets) named"
    )


def _create_numbers() -> None:
    op.create_table(
        "rated_keys",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("workspace_id", sa.String(length=32), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_rated_keys")),
        sa.UniqueConstraint(
            "key_id", "workspace_id", "organisation_id", name=op.f("uq_rated_keys_key_id_workspace_id_organisation_id")
        ),
    )
    op.create_index(op.f("ix_rated_keys_organisation_id"), "rated_keys", ["organisation_id"])
    op.create_table(
        "rated_lines",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rate_id", sa.String(length=120), nullable=False),
        sa.Column("model_id", sa.String(length=100), nullable=False),
        sa.Column("token_class", sa.String(length=20), nullable=False),
        sa.Column("service_tier", sa.String(length=20), nullable=False),
        sa.Column("zone", sa.String(length=100), nullable=False),
        sa.Column("batch", sa.Boolean(), nullable=False),
        sa.Column("tier_index", sa.Integer(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_rated_lines")),
        sa.UniqueConstraint(*_LINE.split(", "), name=op.f("uq_rated_lines_line")),
    )


def _create_sums(name: str, key: str) -> None:
    op.create_table(
        name,
        sa.Column("key_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("period", sa.String(length=7), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("line_number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("nano", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_number", "period", "hour", "line_number", name=op.f(key)),
        sqlite_with_rowid=False,
    )


def _without_rowid() -> None:
    """Make the ratings anew in the order of their key: SQLite cannot change that of a table."""
    connection = op.get_bind()
    about = "FROM sqlite_master WHERE tbl_name = 'usage_ratings'"
    triggers = connection.execute(sa.text(f"SELECT sql {about} AND type = 'trigger'")).scalars().all()  # names of ours
    (made,) = connection.execute(sa.text(f"SELECT sql {about} AND type = 'table'")).scalars()  # as above
    op.execute(f"{made.replace('usage_ratings', 'ordered_ratings', 1)} WITHOUT ROWID")
    op.execute("INSERT INTO ordered_ratings SELECT * FROM usage_ratings ORDER BY event_id, revision")
    op.drop_table("usage_ratings")
    op.rename_table("ordered_ratings", "usage_ratings")
    for sql in triggers:
        op.execute(sa.text(sql.replace(":", r"\:")))
