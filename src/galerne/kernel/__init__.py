"""What every domain stands on and no business word: errors, time, ids, settings, database, logs."""

from galerne.kernel.clock import Clock, ManualClock, SystemClock
from galerne.kernel.database import Database, Table, UtcTime
from galerne.kernel.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    GalerneError,
    InvariantViolated,
    NotFound,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unprocessable,
    UpstreamFailed,
    invariant,
)
from galerne.kernel.ids import Ids, token
from galerne.kernel.logs import configure_logs, get_logger
from galerne.kernel.settings import Settings, read_secret

__all__ = [
    "BadRequest",
    "Clock",
    "Conflict",
    "Database",
    "Forbidden",
    "GalerneError",
    "Ids",
    "InvariantViolated",
    "ManualClock",
    "NotFound",
    "RateLimited",
    "Settings",
    "SystemClock",
    "Table",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "Unprocessable",
    "UpstreamFailed",
    "UtcTime",
    "configure_logs",
    "get_logger",
    "invariant",
    "read_secret",
    "token",
]
