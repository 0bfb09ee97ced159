"""The operator's log: one line for each fact, as text or JSON; kopf's and aiohttp's chatter only when asked for."""

import enum
import json
import logging
import sys
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


_QUIET = {
    # In an outage, an error for each watch and attempt beside the one line of ours. Whatever ends kopf is raised, and
    # what fails in a handler of ours, we log ourselves.
    "kopf": logging.CRITICAL,
    "kopf.objects": logging.CRITICAL,
    "aiohttp": logging.WARNING,
    "asyncio": logging.WARNING,
    "kubernetes": logging.WARNING,
}


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(level: LogLevel, form: LogFormat) -> None:
    """Set up the process's logging, on standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Json() if form is LogFormat.JSON else logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(level=level.value.upper(), handlers=[handler], force=True)
    if level is not LogLevel.DEBUG:
        for name, least in _QUIET.items():
            logging.getLogger(name).setLevel(least)
