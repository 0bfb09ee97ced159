"""A process forked from one that has imported everything: what fails there is told, and ends there."""

import os
import sys
import traceback
from collections.abc import Callable


def fork(work: Callable[[], object]) -> int:
    """Do it in a process of its own, which ends with 1 after an error, and return its id."""
    pid = os.fork()
    if pid:
        return pid
    try:
        work()
    except BaseException:  # noqa: BLE001 - told, and never back into the parent's code
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def in_a_process(work: Callable[[], object]) -> int:
    """Do it there, and return how that ended."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1])
