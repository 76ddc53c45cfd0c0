"""The first schema: who calls, which models there are, what was consumed, what happened.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

from galerne.journal.tables import after_create as guard_journal
from galerne.kernel import UtcTime
from galerne.metering.tables import after_create as guard_metering

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, then what only the database can guard."""
    for create in (_journal, _metering, _models, _people, _keys):
        create()
    dialect = op.get_bind().dialect.name
    for statement in (*guard_journal(dialect), *guard_metering(dialect)):
        op.execute(statement)


def _journal() -> None:
    op.create_table(
        "journal_head",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("chain_hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_journal_head_one_row")),
        sa.CheckConstraint("length(chain_hash) = 32", name=op.f("ck_journal_head_hash_is_sha256")),
        sa.CheckConstraint("seq >= 0", name=op.f("ck_journal_head_seq_not_negative")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_journal_head")),
    )
    op.create_table(
        "journal_leaves",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", UtcTime(), nullable=False),
        sa.Column("organisation_id", sa.String(), nullable=False),
        sa.Column("workspace_id", sa.String(), nullable=True),
        sa.Column("actor_kind", sa.String(), nullable=False),
        sa.Column("actor_id", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("resource", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("chain_hash", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("outcome IN ('done', 'refused', 'failed')", name=op.f("ck_journal_leaves_outcome_known")),
        sa.CheckConstraint(
            "length(leaf_hash) = 32 AND length(chain_hash) = 32", name=op.f("ck_journal_leaves_hashes_are_sha256")
        ),
        sa.CheckConstraint("seq > 0", name=op.f("ck_journal_leaves_seq_positive")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_journal_leaves")),
    )
    op.create_index(
        op.f("ix_journal_leaves_organisation_id_seq"), "journal_leaves", ["organisation_id", "seq"], unique=False
    )


def _models() -> None:
    op.create_table(
        "models",
        sa.Column("id", sa.String(length=100), nullable=False),
        sa.Column("version", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("engine", sa.String(length=20), nullable=False),
        sa.Column("aliases", sa.JSON(), nullable=False),
        sa.Column("context_length", sa.Integer(), nullable=True),
        sa.Column("capabilities", sa.JSON(), nullable=False),
        sa.Column("upstream_model", sa.String(length=200), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("api_key_env", sa.String(length=200), nullable=True),
        sa.Column("api_key_file", sa.Text(), nullable=True),
        sa.Column("zone", sa.String(length=40), nullable=False),
        sa.Column("licence", sa.String(length=100), nullable=False),
        sa.Column("owned_by", sa.String(length=100), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.CheckConstraint("(engine = 'openai') = (url IS NOT NULL)", name=op.f("ck_models_url_for_openai_only")),
        sa.CheckConstraint("engine IN ('llamacpp', 'openai')", name=op.f("ck_models_engine_known")),
        sa.CheckConstraint("kind IN ('chat', 'embedding')", name=op.f("ck_models_kind_known")),
        sa.CheckConstraint("context_length IS NULL OR context_length > 0", name=op.f("ck_models_context_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
    )


def _metering() -> None:
    op.create_table(
        "usage_events",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(), nullable=False),
        sa.Column("workspace_id", sa.String(), nullable=True),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("model_version", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("dialect", sa.String(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("streamed", sa.Boolean(), nullable=False),
        sa.Column("partial", sa.Boolean(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("finish_reason", sa.String(), nullable=True),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("started_at", UtcTime(), nullable=False),
        sa.Column("queue_ms", sa.Double(), nullable=False),
        sa.Column("ttft_ms", sa.Double(), nullable=True),
        sa.Column("total_ms", sa.Double(), nullable=False),
        sa.Column("recorded_at", UtcTime(), server_default=sa.func.now(), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('completed', 'cancelled', 'failed')", name=op.f("ck_usage_events_outcome_known")
        ),
        sa.CheckConstraint(
            "input_tokens >= 0 AND cached_tokens >= 0 AND output_tokens >= 0",
            name=op.f("ck_usage_events_tokens_not_negative"),
        ),
        sa.CheckConstraint("length(id) = 32", name=op.f("ck_usage_events_id_is_a_request_id")),
        sa.CheckConstraint(
            "queue_ms >= 0 AND total_ms >= 0 AND (ttft_ms IS NULL OR ttft_ms >= 0)",
            name=op.f("ck_usage_events_times_not_negative"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_events")),
    )
    op.create_index(
        op.f("ix_usage_events_organisation_id_started_at_id"),
        "usage_events",
        ["organisation_id", "started_at", "id"],
        unique=False,
    )


def _people() -> None:
    op.create_table(
        "organisations",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisations")),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=40), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(["organisation_id"], ["organisations.id"], name=op.f("fk_users_organisation_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_index(op.f("ix_users_organisation_id"), "users", ["organisation_id"], unique=False)
    op.create_table(
        "workspaces",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.ForeignKeyConstraint(["organisation_id"], ["organisations.id"], name=op.f("fk_workspaces_organisation_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workspaces")),
    )
    op.create_index(op.f("ix_workspaces_organisation_id"), "workspaces", ["organisation_id"], unique=False)


def _keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("organisation_id", sa.String(length=32), nullable=False),
        sa.Column("workspace_id", sa.String(length=32), nullable=True),
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("prefix", sa.String(length=12), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("strict", sa.Boolean(), nullable=False),
        sa.Column("dialect", sa.String(length=10), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("tokens_per_minute", sa.Integer(), nullable=True),
        sa.Column("created_at", UtcTime(), nullable=False),
        sa.Column("expires_at", UtcTime(), nullable=True),
        sa.Column("revoked_at", UtcTime(), nullable=True),
        sa.CheckConstraint(
            "dialect IS NULL OR dialect IN ('openai', 'mistral')", name=op.f("ck_api_keys_dialect_known")
        ),
        sa.CheckConstraint(
            "requests_per_minute IS NULL OR requests_per_minute > 0", name=op.f("ck_api_keys_requests_positive")
        ),
        sa.CheckConstraint(
            "tokens_per_minute IS NULL OR tokens_per_minute > 0", name=op.f("ck_api_keys_tokens_positive")
        ),
        sa.ForeignKeyConstraint(["organisation_id"], ["organisations.id"], name=op.f("fk_api_keys_organisation_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_api_keys_user_id")),
        sa.ForeignKeyConstraint(["workspace_id"], ["workspaces.id"], name=op.f("fk_api_keys_workspace_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
    )
    op.create_index(
        "ix_api_keys_organisation_id_created_at", "api_keys", ["organisation_id", "created_at"], unique=False
    )
