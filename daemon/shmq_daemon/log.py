"""How the daemon's processes write their log: structlog events as key-value lines or JSON on standard error.

Owns: the form of a line and the level. Does not own: what is logged. Nothing per message is logged at info.
Under systemd standard error is the journal, which stamps time itself; the time is written all the same, for people
who read the file of a container.
"""

import logging
import sys
from typing import Final

import structlog

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

Logger = structlog.typing.FilteringBoundLogger


def configure(log_format: str, log_level: str) -> None:
    """Set the form of all later lines of this process and its children."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "process", "event"], bool_as_flag=False
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[log_level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def logger(process: str) -> Logger:
    """Return the logger of one process of the daemon."""
    bound: Logger = structlog.get_logger().bind(process=process)
    return bound
