"""The names under which Triton serves a model and every client reaches it, and the HTTP paths that they make.

Its law: data in, strings out, and only the standard library. What is servable was found out by asking, name by name.

Triton takes a name from an HTTP path as it stands there and decodes nothing, while clients encode what a URL cannot
hold: such a model is loaded and never found. Its Python backend hands the model's folder to a shell: a space or a quote
there makes the start hang, and a semicolon would run what follows it.
"""

import re
from urllib.parse import quote

from gravswell.names import why_reserved

_SERVABLE = re.compile(r"[A-Za-z0-9_.~-]+")


def why_unservable(name: str) -> str | None:
    """Why no Triton can serve a model of that name to all its clients; None where it can."""
    if not name:
        return "the name is empty"
    if name.startswith("."):
        return "hidden folders are no models"
    if reserved := why_reserved(name):
        return reserved
    if not _SERVABLE.fullmatch(name):
        return "Triton serves names of letters (a to z), digits, '_', '-', '.' and '~' only"
    return None


def model_path(model: str, version: str = "") -> str:
    """The path of a model, or of one version of it where ``version`` is not empty; what is asked of it follows."""
    return f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def control_path(model: str) -> str:
    """The path by which a model is loaded and unloaded; which of the two follows."""
    return f"/v2/repository/models/{quote(model, safe='')}"
