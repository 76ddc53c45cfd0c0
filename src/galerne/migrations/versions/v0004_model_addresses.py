"""Several addresses for one model, each with its own zone, key and room; and adapters of other models.

Revision ID: 0004
"""

import hashlib
from typing import Any

import sqlalchemy as sa
from alembic import op

from galerne.kernel import UtcTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_REGISTERED = "SELECT id, url, zone, api_key_env, api_key_file, created_at FROM models WHERE url IS NOT NULL"


def upgrade() -> None:
    """Keep the addresses in mind while the columns that held them are dropped, then write them where they belong."""
    registered = op.get_bind().execute(sa.text(_REGISTERED).columns(created_at=UtcTime())).mappings().all()
    _models()
    addresses = _addresses()
    if registered:
        op.bulk_insert(addresses, [_address(dict(row)) for row in registered])
    op.execute("UPDATE models SET zone = NULL WHERE engine = 'openai'")


def _models() -> None:
    with op.batch_alter_table("models") as models:
        models.drop_constraint(op.f("ck_models_url_for_openai_only"), type_="check")
        for column in ("url", "api_key_env", "api_key_file"):
            models.drop_column(column)
        models.alter_column("zone", existing_type=sa.String(length=40), nullable=True)
        models.add_column(sa.Column("adapter_of", sa.String(length=100), nullable=True))
        models.create_foreign_key(op.f("fk_models_adapter_of"), "models", ["adapter_of"], ["id"])
        models.create_check_constraint(
            op.f("ck_models_adapter_of_another"), "adapter_of IS NULL OR (engine = 'openai' AND adapter_of <> id)"
        )


def _addresses() -> sa.Table:
    return op.create_table(
        "model_addresses",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("model_id", sa.String(length=100), nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("zone", sa.String(length=40), nullable=False),
        sa.Column("api_key_env", sa.String(length=200), nullable=True),
        sa.Column("api_key_file", sa.Text(), nullable=True),
        sa.Column("most_parallel", sa.Integer(), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint(
            "most_parallel IS NULL OR most_parallel > 0", name=op.f("ck_model_addresses_parallel_positive")
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_model_addresses_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_addresses")),
        sa.UniqueConstraint("model_id", "url", name=op.f("uq_model_addresses_model_id_url")),
    )


def _address(row: dict[str, Any]) -> dict[str, Any]:
    identity = hashlib.sha256(f"{row['id']}\n{row['url']}".encode()).hexdigest()[:32]
    return {**row, "id": identity, "model_id": row["id"], "most_parallel": None}
