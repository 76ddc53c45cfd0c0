"""The catalogue's tables. Where a key for another server is found is stored, the key never is."""

from datetime import datetime

from sqlalchemy import JSON, CheckConstraint, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from galerne.kernel import Table, UtcTime


class CatalogueRow(Table):
    """A model of the catalogue; see `catalogue.Model` for what the columns mean."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    version: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(20))
    engine: Mapped[str] = mapped_column(String(20))
    aliases: Mapped[list[str]] = mapped_column(JSON)
    context_length: Mapped[int | None]
    capabilities: Mapped[list[str]] = mapped_column(JSON)
    upstream_model: Mapped[str] = mapped_column(String(200))
    adapter_of: Mapped[str | None] = mapped_column(ForeignKey("models.id"))
    zone: Mapped[str | None] = mapped_column(String(40))
    licence: Mapped[str] = mapped_column(String(100))
    owned_by: Mapped[str] = mapped_column(String(100))
    description: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (
        CheckConstraint("kind IN ('chat', 'embedding')", name="kind_known"),
        CheckConstraint("engine IN ('llamacpp', 'openai')", name="engine_known"),
        CheckConstraint("context_length IS NULL OR context_length > 0", name="context_positive"),
        CheckConstraint("adapter_of IS NULL OR (engine = 'openai' AND adapter_of <> id)", name="adapter_of_another"),
    )


class AddressRow(Table):
    """One place where another server runs a model; see `catalogue.Address`."""

    __tablename__ = "model_addresses"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    url: Mapped[str] = mapped_column(String(2000))
    zone: Mapped[str] = mapped_column(String(40))
    api_key_env: Mapped[str | None] = mapped_column(String(200))
    api_key_file: Mapped[str | None] = mapped_column(Text)
    most_parallel: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (
        UniqueConstraint("model_id", "url"),
        CheckConstraint("most_parallel IS NULL OR most_parallel > 0", name="parallel_positive"),
    )
