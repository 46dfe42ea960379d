"""Structured logs on standard error: JSON for machines, short lines for people."""

from __future__ import annotations

import logging
import logging.config
from typing import Any

import structlog
import structlog.tracebacks
import structlog.typing

from quotas import tracing

# Both of the library's defaults print local variables, and with them credentials and payloads.
_traceback = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)


def _add_trace(logger: Any, method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A processor: the ids of the present span."""
    entry.update(tracing.ids())
    return entry


def configure(options: dict[str, Any]) -> None:
    """Set up structlog and the standard library's logging alike. `options`: level, format (`json`, `console`)."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if options["format"] == "json":
        render: list[Any] = [structlog.processors.ExceptionRenderer(_traceback), structlog.processors.JSONRenderer()]
    else:
        render = [structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)]
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "structured": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": [*shared, structlog.stdlib.ExtraAdder()],
                    "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
            "root": {"handlers": ["stderr"], "level": options["level"]},
            "loggers": {
                # These print full URLs, with their paths and queries.
                "httpx": {"level": "WARNING"},
                "httpcore": {"level": "WARNING"},
                "urllib3": {"level": "WARNING"},
                "rq": {"level": "WARNING"},
            },
        }
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
