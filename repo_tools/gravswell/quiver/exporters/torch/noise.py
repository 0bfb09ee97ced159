"""What torch's exporters write to the terminal: here it is taken out."""

import ctypes
import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

_lock = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' chatter: they print progress and warn their users about their own internals.

    One thread at a time is in it, as in :func:`without_graphs`: what they take away is the process's own, and of two
    that overlap the second would give back what the first had put in its place.
    """
    with _lock, warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def without_graphs() -> Iterator[None]:
    """The tracing exporter's C++ prints the graphs that it fails at to the process's own output, which may be JSON."""
    libc = ctypes.CDLL(None)
    with _lock, Path(os.devnull).open("wb") as nowhere:
        libc.fflush(None)
        try:
            output = os.dup(1)
        except OSError:  # closed, as a service's may be
            output = None
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            libc.fflush(None)
            if output is None:
                os.close(1)
            else:
                os.dup2(output, 1)
                os.close(output)
