"""What every domain stands on and no business word: errors, time, ids, settings, database, HTTP client, logs."""

from galerne.kernel.clock import Clock, ManualClock, SystemClock, utc_text, utc_time
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
    place_of,
)
from galerne.kernel.fresh_cache import FreshCache
from galerne.kernel.ids import Ids, token
from galerne.kernel.loading import uncollected, unnoticed
from galerne.kernel.logs import LineLog, configure_logs, get_logger, log_context
from galerne.kernel.reader import Reader, open_reader
from galerne.kernel.script import Increase, Insert, Lock, Query, Rows, Script, json_list, run_in_session
from galerne.kernel.settings import Settings, read_secret
from galerne.kernel.wheel import Deadline, later
from galerne.kernel.writer import Writer, blames_content, open_writer

__all__ = [
    "BadRequest",
    "Clock",
    "Conflict",
    "Database",
    "Deadline",
    "Forbidden",
    "FreshCache",
    "GalerneError",
    "Ids",
    "Increase",
    "Insert",
    "InvariantViolated",
    "LineLog",
    "Lock",
    "ManualClock",
    "NotFound",
    "Query",
    "RateLimited",
    "Reader",
    "Rows",
    "Script",
    "Settings",
    "SystemClock",
    "Table",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "Unprocessable",
    "UpstreamFailed",
    "UtcTime",
    "Writer",
    "blames_content",
    "configure_logs",
    "get_logger",
    "invariant",
    "json_list",
    "later",
    "log_context",
    "open_reader",
    "open_writer",
    "place_of",
    "read_secret",
    "run_in_session",
    "token",
    "uncollected",
    "unnoticed",
    "utc_text",
    "utc_time",
]
