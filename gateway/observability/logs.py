"""Structured logs: text on a terminal, JSON otherwise."""

from __future__ import annotations

import logging
import sys
from typing import Final, TextIO

import structlog

_OWN: Final = ("adapters", "config", "firmware_sim", "gateway")
"""Whose lines a debug level shows."""


def configure_logs(level: str = "info", stream: TextIO | None = None) -> None:
    """Send everything, standard library included, through structlog to `stream`.

    None = standard error.
    """
    out = sys.stderr if stream is None else stream
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    if out.isatty():
        renderer = structlog.dev.ConsoleRenderer()
    else:
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    wanted = logging.getLevelNamesMapping()[level.upper()]
    # Libraries tell whole requests when they debug, the headers with the tokens too.
    root.setLevel(max(wanted, logging.INFO))
    for own in _OWN:
        logging.getLogger(own).setLevel(wanted)
    for noisy in ("httpx", "httpcore", "openleadr", "apscheduler", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It dumps its last frames with every timeout, which the adapter reports in a line of its own.
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
