"""structlog, set up once: console on a TTY, JSON lines otherwise, always stderr."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def configure(*, verbose: bool) -> None:
    """Send events of level info (debug if verbose) and above to stderr."""
    renderer: Any = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.DEBUG if verbose else logging.INFO
        ),
        # Looked up for every event: whoever redirects stderr gets what is said from then on.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
