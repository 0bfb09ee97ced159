"""The log of a program that runs for long: one line for each fact, for people or as JSON for collectors.

What a line is about is said once, by who begins the work, and every line of it carries that: see :func:`about`.
"""

import enum
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime


class LogFormat(enum.StrEnum):
    """How lines are written."""

    TEXT = "text"
    JSON = "json"


class LogLevel(enum.StrEnum):
    """What is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_SUBJECT: ContextVar[dict[str, str]] = ContextVar("subject", default={})  # noqa: B039  replaced, never changed


@contextmanager
def about(**subject: str) -> Iterator[None]:
    """Add ``subject`` (such as ``kind``, ``namespace`` and ``name``) to every line of what runs inside, tasks too."""
    token = _SUBJECT.set(_SUBJECT.get() | {key: value for key, value in subject.items() if value})
    try:
        yield
    finally:
        _SUBJECT.reset(token)


class _Json(logging.Formatter):
    """One object a line: ``time``, ``level``, ``logger``, ``message``, the subject's keys, and ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **_SUBJECT.get(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: LogLevel, form: LogFormat) -> None:
    """Set up the process's logging, on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Json() if form is LogFormat.JSON else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(level=level.value.upper(), handlers=[handler], force=True)
