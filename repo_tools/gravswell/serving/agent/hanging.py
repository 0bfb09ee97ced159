"""Calls into a volume that may never return: each in a thread of its own, which is left behind where it hangs."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from gravswell.errors import UnavailableError

T = TypeVar("T")

_LOOK_SECONDS = 0.5


class _Alive:
    """What a call says while it gets on; it ends with the next word once nobody waits for it."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.given_up = False

    def __call__(self) -> None:
        if self.given_up:
            raise UnavailableError("it hung, and nobody waits for it any more")
        self.last = time.monotonic()


class Volume:
    """A volume that is given up for as long as a call into it hangs: nobody can end one that the kernel holds."""

    def __init__(self) -> None:
        self._left: list[threading.Thread] = []
        self._lock = threading.Lock()

    @property
    def hangs(self) -> bool:
        """Whether a call that was given up has not come back yet."""
        with self._lock:
            self._left = [thread for thread in self._left if thread.is_alive()]
            return bool(self._left)

    def call(self, work: Callable[[Callable[[], None]], T], seconds: float, waiting: Callable[[], None]) -> T:
        """What ``work`` returns or raises; :class:`TimeoutError` once it showed no sign of life for ``seconds``.

        :param work: given what it calls as such a sign, which raises where it was given up.
        :param waiting: called now and then by the thread that waits; what it raises gives the call up, too.
        """
        alive, results, errors = _Alive(), list[T](), list[BaseException]()

        def run() -> None:
            try:
                results.append(work(alive))
            except BaseException as error:  # noqa: BLE001  raised where it is waited for
                errors.append(error)

        thread = threading.Thread(target=run, name="volume", daemon=True)
        thread.start()
        try:
            while thread.is_alive() and time.monotonic() - alive.last < seconds:
                thread.join(min(_LOOK_SECONDS, seconds))
                waiting()
        finally:
            if thread.is_alive():
                alive.given_up = True
                with self._lock:
                    self._left.append(thread)
        if alive.given_up:
            raise TimeoutError(f"it showed no sign of life for {seconds:.0f} s")
        if errors:
            raise errors[0]
        return results[0]
