"""structlog, set up once: console on a TTY, JSON lines otherwise, always stderr."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog


class _Unfailing:
    """Standard error for the log: a full disk or a reader that has gone must stop no work."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError, AttributeError):  # None where it was closed at the start
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()


def configure(*, verbose: bool) -> None:
    """Send events of level info (debug if verbose) and above to stderr."""
    renderer: Any = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr is not None and sys.stderr.isatty()
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
        # Standard error is looked up for every event: whoever redirects it gets what comes then.
        logger_factory=lambda *_: structlog.PrintLogger(cast(TextIO, _Unfailing())),
    )
