"""How one gets what an extra brings. gravswell may have come from a clone, a wheel or an index, and says which."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname


def install(extra: str) -> str:
    """The command that adds an extra to this installation, as the end of a message.

    ``pip install -e '/home/me/gravswell[torch]'`` after an installation from a clone: pip notes where a distribution
    came from (PEP 610), unless that was an index.
    """
    try:
        noted = distribution("gravswell").read_text("direct_url.json")
    except PackageNotFoundError:  # run from its sources, and not installed at all
        noted = None
    origin = json.loads(noted) if noted else {}
    return f"pip install {_requirement(origin, extra)}"


def _requirement(origin: dict[str, dict[str, str]], extra: str) -> str:
    url = str(origin.get("url", ""))
    parts = urlsplit(url)
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return shlex.quote(f"gravswell[{extra}] @ {vcs['vcs']}+{url}@{vcs['commit_id']}")
    if parts.scheme != "file":
        return shlex.quote(f"gravswell[{extra}] @ {url}" if url else f"gravswell[{extra}]")
    path = Path(url2pathname(parts.path))
    if not path.exists():  # a wheel that was thrown away, as in images
        return shlex.quote(f"gravswell[{extra}]")
    editable = "-e " if origin.get("dir_info", {}).get("editable") else ""
    return editable + shlex.quote(f"{path}[{extra}]")
