"""Where repositories are kept. Its law: bytes under keys; nothing here knows what a model is.

Stores are added by implementing :class:`Store` and naming the URL scheme in :func:`open_store`; the contract suite in
``tests/quiver/stores`` then runs on them.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from gravswell.errors import InvalidInputError, UnsupportedError
from gravswell.quiver.stores.base import Children, Content, Create, FileInfo, Overwrite, PutMode, Store, Update
from gravswell.quiver.stores.local import LocalStore

__all__ = [
    "Children",
    "Content",
    "Create",
    "FileInfo",
    "LocalStore",
    "Overwrite",
    "PutMode",
    "Store",
    "Update",
    "open_store",
]


def open_store(url: str | Path, *, create: bool = False) -> Store:
    """The store at ``url``: a path or ``file:///path``.

    With ``create`` the root is made if it is not there; otherwise that is a :class:`NotFoundError`.
    """
    return LocalStore(_local_path(url), create=create)


def _local_path(url: str | Path) -> Path:
    if isinstance(url, Path):
        return url
    if not url or "\0" in url:
        raise InvalidInputError(f"{url!r} is no repository URL: give a path or file:///path")
    parts = urlsplit(url)
    if "://" not in url:
        return Path(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InvalidInputError(f"{url} names a host or a relative path: write file:///absolute/path")
        return Path(unquote(parts.path))
    if parts.scheme == "pvc":
        raise UnsupportedError(f"{url} is a volume of a cluster: mount it and give its path here")
    raise UnsupportedError(f"{url} is in a kind of store that this version cannot open: use a path or file:///path")
