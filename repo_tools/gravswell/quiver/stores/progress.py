"""How far a transfer is, for whoever shows it."""

import threading
from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all, from one thread at a time; an upload begun anew begins at none."""


class Counter:
    """Adds up what several threads have transferred of ``total`` bytes, and tells ``report``."""

    def __init__(self, report: Progress | None, total: int) -> None:
        self._report, self._total, self._done = report, total, 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """So many bytes more are done."""
        if self._report is None:
            return
        with self._lock:
            self._done += count
            self._report(self._done, self._total)
