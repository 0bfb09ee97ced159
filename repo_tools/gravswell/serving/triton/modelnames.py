"""The names under which Triton serves a model and every client reaches it; found out by asking it, name by name.

Triton takes a name from an HTTP path as it stands there and decodes nothing, while clients encode what a URL cannot
hold: such a model is loaded and never found. Its Python backend hands the model's folder to a shell: a space or a quote
there makes the start hang, and a semicolon would run what follows it.
"""

import re

from gravswell.names import PROOF_PREFIX

_SERVABLE = re.compile(r"[A-Za-z0-9_.~-]+")


def why_unservable(name: str) -> str | None:
    """Why no Triton can serve a model of that name to all its clients; None where it can."""
    if not name:
        return "the name is empty"
    if name.startswith("."):
        return "hidden folders are no models"
    if name.startswith(PROOF_PREFIX):
        return f"names that start with {PROOF_PREFIX!r} are for versions under proof"
    if not _SERVABLE.fullmatch(name):
        return "Triton serves names of letters (a to z), digits, '_', '-', '.' and '~' only"
    return None
