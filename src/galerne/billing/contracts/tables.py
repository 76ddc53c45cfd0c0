"""What is stored of contracts: versions and signatures, append-only. Only what was signed counts."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, ForeignKeyConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from galerne.journal import refuse_changes
from galerne.kernel import Table, UtcTime


class ContractRow(Table):
    """A contract with an organisation."""

    __tablename__ = "contracts"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    organisation_id: Mapped[str] = mapped_column(String(32), index=True)
    name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class ContractVersionRow(Table):
    """Terms that were drafted, and from when they shall count; `sha256` is of their canonical text."""

    __tablename__ = "contract_versions"
    __table_args__ = (CheckConstraint("version > 0", name="version_positive"),)

    contract_id: Mapped[str] = mapped_column(ForeignKey("contracts.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    effective_from: Mapped[datetime] = mapped_column(UtcTime)
    terms: Mapped[dict[str, Any]] = mapped_column(JSON)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class ContractSignatureRow(Table):
    """That a version was agreed: by whom (`renewal` for one that renewed itself), and when."""

    __tablename__ = "contract_signatures"
    __table_args__ = (
        ForeignKeyConstraint(
            ["contract_id", "version"], ["contract_versions.contract_id", "contract_versions.version"]
        ),
    )

    contract_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    signed_by: Mapped[str] = mapped_column(String(200))
    signed_at: Mapped[datetime] = mapped_column(UtcTime)


def after_create(dialect_name: str) -> list[str]:
    """The statements that a migration runs, one by one, once the tables exist."""
    return [
        statement
        for table in ("contract_versions", "contract_signatures")
        for statement in refuse_changes(table, dialect_name)
    ]
