"""How much memory a version may need at most: it is asked before a download that could never be loaded."""

import re
from pathlib import Path

MEMINFO = Path("/proc/meminfo")


def room(limit: int | None = None) -> int | None:
    """Bytes of main memory that Triton could get at most: what the machine has available, and what ``limit`` allows.

    ``limit`` is that of Triton's own container, which the agent, in another one, cannot see. None: nobody says.
    """
    available = _available()
    return min((value for value in (available, limit) if value is not None), default=None)


def _available() -> int | None:
    """The kernel's own estimate for new programs, caches that it would give up included."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", MEMINFO.read_text(), re.MULTILINE)
    except OSError:  # no Linux
        return None
    return int(found[1]) * 1024 if found else None
