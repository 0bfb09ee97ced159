"""What of the operator's log is heard: kopf's and aiohttp's chatter only when asked for."""

import logging

from gravswell import logs
from gravswell.logs import LogFormat, LogLevel

_QUIET = {
    # In an outage, an error for each watch and attempt beside the one line of ours. Whatever ends kopf is raised, and
    # what fails in a handler of ours, we log ourselves.
    "kopf": logging.CRITICAL,
    "kopf.objects": logging.CRITICAL,
    "aiohttp": logging.WARNING,
    "asyncio": logging.WARNING,
    "kubernetes": logging.WARNING,
}


def configure(level: LogLevel, form: LogFormat) -> None:
    """Set up the process's logging, on standard error."""
    logs.configure(level, form)
    if level is not LogLevel.DEBUG:
        for name, least in _QUIET.items():
            logging.getLogger(name).setLevel(least)
