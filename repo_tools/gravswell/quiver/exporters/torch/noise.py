"""What torch's exporters write to the terminal: here it is taken out."""

import ctypes
import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def quiet() -> Iterator[None]:
    """Without the exporters' chatter: they print progress and warn their users about their own internals."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def without_graphs() -> Iterator[None]:
    """The tracing exporter's C++ prints the graphs that it fails at to the process's own output, which may be JSON."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    output, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(output, 1)
        os.close(output)
        os.close(nowhere)
