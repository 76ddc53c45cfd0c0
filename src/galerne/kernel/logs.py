"""Logs: one JSON object a line on standard error, carrying the request id, never a prompt or a key."""

import logging
import sys
from typing import cast

import structlog
from structlog.contextvars import merge_contextvars
from structlog.typing import FilteringBoundLogger

_SHARED = [
    merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    # Without show_locals=False a traceback would carry the values of variables: prompts, and keys.
    structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
]


def configure_logs(level: str) -> None:
    """Send this process's logs, those of libraries included, to standard error as JSON lines from `level` upwards."""
    structlog.configure(
        processors=[*_SHARED, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries speak up only when something is wrong: their chatter may quote what users wrote.
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry `part=name` and whatever `structlog.contextvars` holds, such as the request id.

    It looks at how logs are configured when it is first used, so a module may make one while it is imported.
    """
    return cast(FilteringBoundLogger, structlog.get_logger(part=name))
