"""TensorFlow's C++ writes notes to the terminal, past Python and whatever a user has set: here they are taken out."""

import logging
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_NOTES = re.compile(
    rb"[IWE]\d{4} (\d\d:|00:00:)|WARNING: All log messages before absl|To enable the following instructions"
)

_LOGGERS = ("absl", "h5py", "tensorflow", "tf2onnx")

_lock = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the notes and warnings of TensorFlow and its converter; what others write meanwhile comes a little late.

    One thread at a time is in it: standard error is the process's own, and tf2onnx keeps its tables in globals.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    with _lock, warnings.catch_warnings(), _without_notes():
        levels = [logger.level for logger in loggers]
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def _without_notes() -> Iterator[None]:
    with tempfile.TemporaryFile() as written:
        sys.stderr.flush()
        terminal = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            written.seek(0)
            for line in written:
                if not _NOTES.match(line):
                    os.write(2, line)
