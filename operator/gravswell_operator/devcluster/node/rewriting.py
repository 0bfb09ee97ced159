"""Mount paths without mounts: what is under a mount point becomes a path of the folder that stands for it."""

import re
from collections.abc import Callable, Mapping

_BEFORE = r"(?:(?<![\w.~/)}\-])|(?<=://))"
"""A path begins here: not inside a longer path, a variable's or a substitution's; ``file://`` may stand before it."""

_AFTER = r"(?![\w\-]|\.\w)"
"""The last name of the path ends here."""


def rewriter(mounts: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that replaces each of ``mounts`` (mount path to folder) in a text, at path boundaries.

    The longest mount path wins, and what was put in is not looked at again.

    >>> rewriter({"/models": "/tmp/v"})("--model-repository=/models /models2 /models/a file:///models")
    '--model-repository=/tmp/v /models2 /tmp/v/a file:///tmp/v'
    """
    cleaned = {path.rstrip("/"): folder for path, folder in mounts.items() if path.rstrip("/")}
    if not cleaned:
        return lambda text: text
    longest_first = sorted(cleaned, key=len, reverse=True)
    pattern = re.compile(_BEFORE + "(" + "|".join(map(re.escape, longest_first)) + ")" + _AFTER)
    return lambda text: pattern.sub(lambda match: cleaned[match[1]], text)
