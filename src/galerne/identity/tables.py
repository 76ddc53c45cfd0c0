"""Tables of identity. A key's secret is not among them: only its SHA-256."""

from datetime import datetime

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String, false
from sqlalchemy.orm import Mapped, mapped_column

from galerne.identity.tenants import DEFAULT_PLAN
from galerne.journal import refuse_changes
from galerne.kernel import Table, UtcTime

_ZONES = JSON(none_as_null=True)


class Organisation(Table):
    """Whom everything belongs to; nothing is ever shared between two of them."""

    __tablename__ = "organisations"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    plan: Mapped[str] = mapped_column(String(40), default=DEFAULT_PLAN, server_default=DEFAULT_PLAN)
    zones: Mapped[list[str] | None] = mapped_column(_ZONES)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class PlanChange(Table):
    """An organisation got another plan: rating asks which one it had at any time."""

    __tablename__ = "plan_changes"

    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcTime, primary_key=True)
    before: Mapped[str] = mapped_column(String(40))
    plan: Mapped[str] = mapped_column(String(40))


def after_plan_changes(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once that table exists."""
    return refuse_changes("plan_changes", dialect_name)


class Workspace(Table):
    """A part of an organisation: a team, a project, a customer.

    `trace_content`: whether what its callers write and get may be put into traces.
    """

    __tablename__ = "workspaces"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    zones: Mapped[list[str] | None] = mapped_column(_ZONES)
    trace_content: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class User(Table):
    """A person, in one organisation, with one role there."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class ApiKey(Table):
    """An API key: its hash, its terms, and when it ends."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(ForeignKey("organisations.id"))
    workspace_id: Mapped[str | None] = mapped_column(ForeignKey("workspaces.id"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(100))
    prefix: Mapped[str] = mapped_column(String(12))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    zones: Mapped[list[str] | None] = mapped_column(_ZONES)
    strict: Mapped[bool]
    dialect: Mapped[str | None] = mapped_column(String(10))
    requests_per_minute: Mapped[int | None]
    tokens_per_minute: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcTime)

    __table_args__ = (
        Index("ix_api_keys_organisation_id_created_at", "organisation_id", "created_at"),
        CheckConstraint("requests_per_minute IS NULL OR requests_per_minute > 0", name="requests_positive"),
        CheckConstraint("tokens_per_minute IS NULL OR tokens_per_minute > 0", name="tokens_positive"),
        CheckConstraint("dialect IS NULL OR dialect IN ('openai', 'mistral')", name="dialect_known"),
    )
