"""Logs of a service: one sentence, an `action`, ids. On stderr, for people or as JSON lines."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from storage.settings import Settings

_QUIET = (
    "alembic",
    "amqp",
    "boto3",
    "botocore",
    "celery",
    "httpcore",
    "httpx",
    "kombu",
    "PIL",
    "s3transfer",
    "uvicorn",
)
"""Libraries whose informational lines nobody acts on."""


def set_up_logs(settings: Settings, service: str) -> None:
    """Send our events and those of libraries to stderr in one form; `service` stands in every line."""
    level = getattr(logging, settings.log_level.upper())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _name_service(service),
    ]
    render: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=0,
            pad_level=False,
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    handler = logging.StreamHandler(sys.stderr)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            *((structlog.processors.format_exc_info,) if settings.log_json else ()),
            render,
        ],
    )
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Said at every start in a container, where there is nobody else to be.
    warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _name_service(service: str) -> Any:
    def add(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        event["service"] = service
        return event

    return add
