"""Every setting of every process, typed, read once from the environment and passed on from there."""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from galerne.kernel.errors import Unavailable


class Settings(BaseSettings):
    """What an installation may choose; each field is the environment variable `GALERNE_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="GALERNE_", frozen=True, extra="ignore")

    data: Path = Field(
        default=Path.home() / ".local/share/galerne", description="Folder for everything this installation keeps."
    )
    database_url: str = Field(
        default="", description="`sqlite+aiosqlite:///…` (default: in the data folder) or `postgresql+asyncpg://…`."
    )
    admin_key: SecretStr | None = Field(
        default=None, description="If set at first start, the first administrator's API key is exactly this."
    )
    sealing_key: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="Encrypts secrets that the database keeps, such as the journal's signing key; the same for every "
        "process of an installation. Default: the file `sealing.key` in the data folder, made when first needed.",
    )
    stripe_url: str = Field(default="https://api.stripe.com", description="Where Stripe's API is, for card payments.")
    webhooks_inside: bool = Field(
        default=False,
        description="Send webhooks to this machine and to private networks too, and without TLS.",
    )
    offline: bool = Field(default=False, description="Refuse every connection to another machine.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    zone: str = Field(default="on-prem", description="Where this installation stands; replicas started here carry it.")

    key_staleness_s: float = Field(
        default=1.0, gt=0, le=2, description="How long a resolved API key is trusted before it is read again."
    )
    default_requests_per_minute: int = Field(
        default=60_000, gt=0, description="Limit of a key that has none of its own."
    )
    default_tokens_per_minute: int = Field(
        default=50_000_000, gt=0, description="Limit of a key that has none of its own."
    )
    max_body_bytes: int = Field(default=4 * 1024 * 1024, gt=0, description="Largest request body that is read.")
    first_byte_timeout_s: float = Field(
        default=120, gt=0, description="How long an engine may take until its first byte."
    )
    idle_timeout_s: float = Field(default=60, gt=0, description="How long an engine may fall silent in mid-stream.")
    probe_interval_s: float = Field(
        default=5, gt=0, description="How often other servers are asked whether they live and which models they serve."
    )
    lease_s: float = Field(
        default=60,
        ge=3,
        description="How long a gateway holds leases of limits and money without a sign of life; then they are freed.",
    )
    outage_s: float = Field(
        default=60,
        ge=0,
        description="How long requests with known keys are admitted while the database is away; then 503.",
    )
    queue_capacity: int = Field(
        default=1000, ge=1, description="Requests that may wait for the replicas of one model; above it, 429."
    )
    queue_timeout_s: float = Field(default=30, gt=0, description="How long a request waits for a replica; then 429.")
    batch_queue_timeout_s: float = Field(default=600, gt=0, description="The same for requests of the batch tier.")
    engine_parallel: int = Field(
        default=8, ge=1, le=256, description="Requests that one embedded engine decodes together."
    )
    engine_threads: int = Field(default=0, ge=0, description="Threads of the embedded engine; 0 lets it choose.")

    checkpoint_s: float = Field(
        default=60, gt=0, description="How often the journal's tree is signed anew, if something has happened."
    )
    journal_origin: str = Field(
        default="",
        pattern=r"^[^\s+\x00-\x1f]{0,200}$",
        description="The journal's name in its checkpoints, such as `example.com/journal`, taken when its first "
        "key is made and kept from then on. Default: a name by chance.",
    )

    @model_validator(mode="after")
    def _database_is_one_we_speak(self) -> Self:
        if self.database_url and not self.database_url.startswith(("sqlite+aiosqlite://", "postgresql+asyncpg://")):
            raise ValueError("GALERNE_DATABASE_URL must start with sqlite+aiosqlite:// or postgresql+asyncpg://")
        return self

    @property
    def resolved_database_url(self) -> str:
        """The database in use: the one that was set, or the file `galerne.db` in the data folder."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data / 'galerne.db'}"

    def with_data(self, data: Path | None) -> "Settings":
        """These settings with another data folder; `None` keeps the one there is."""
        return self if data is None else self.model_copy(update={"data": data.expanduser().resolve()})


def read_secret(variable: str | None, file: str | None) -> str | None:
    """The secret in the environment variable or file named, read now so that a rotated one is noticed.

    None when neither is named. Raises `Unavailable` when that place holds nothing; the message names only the place.
    """
    if variable is not None:
        value = os.environ.get(variable, "")
        place = f"the environment variable {variable}"
    elif file is not None:
        path = Path(file)
        value = path.read_text(encoding="utf-8") if path.is_file() else ""
        place = f"the file {file}"
    else:
        return None
    if not value.strip():
        raise Unavailable(
            f"The key for this model should be in {place}, which is missing or empty.", code="upstream_key_missing"
        )
    return value.strip()
