"""A process forked from one that has imported everything: what fails there is told, and ends there."""

import gc
import os
import sys
import traceback
from collections.abc import Callable

from gravswell_operator.devcluster.processes import die_with


def fork(work: Callable[[], object]) -> int:
    """Do it in a process of its own, which ends with 1 after an error, and when we end; and return its id."""
    with_us = die_with(os.getpid())
    pid = os.fork()
    if pid:
        return pid
    gc.freeze()  # what the parent forgot is not ended here: a channel of gRPC would wait for threads that it has not
    try:
        if with_us is not None:
            with_us()
        work()
    except BaseException:  # noqa: BLE001 - told, and never back into the parent's code
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def in_a_process(work: Callable[[], object]) -> int:
    """Do it there, and return how that ended."""
    return os.waitstatus_to_exitcode(os.waitpid(fork(work), 0)[1])
