"""Triton's words of what failed, without what a Python backend adds to them."""

import re

_PREFACE = re.compile(r"^Failed to process the request\(s\) for model '[^']*', message: (?:BackendError: )?")
"""What Triton puts before an exception that ``execute`` raised: the instance's name. A ``BackendError`` is that of
gravswell's own backend."""


def without_traceback(reason: str) -> str:
    """The words alone: a traceback names files of the server, and takes several lines."""
    words, _, _traceback = reason.partition("\n\nAt:\n")
    return _PREFACE.sub("", words.strip())


def tidy_reason(reason: str) -> str:
    """:func:`without_traceback`, and without the names of exceptions."""
    return re.sub(r"^(?:Internal: )?(?:\w+Error: )?", "", without_traceback(reason))
