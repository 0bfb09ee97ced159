"""Where repositories are kept. Its law: bytes under keys; nothing here knows what a model is.

A kind of bucket is added by implementing :class:`~gravswell.quiver.stores.objects.Objects` for its library and naming
the URL scheme in :func:`open_store`; the contract suite in ``tests/quiver/stores`` then runs on it.
"""

from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gravswell.errors import InvalidInputError, UnsupportedError
from gravswell.extras import install
from gravswell.quiver.layout import check_key
from gravswell.quiver.stores import objects
from gravswell.quiver.stores.base import (
    Children,
    Content,
    Create,
    FileInfo,
    Overwrite,
    PutMode,
    Store,
    Update,
    Upload,
    View,
)
from gravswell.quiver.stores.bucket import BucketStore
from gravswell.quiver.stores.local import LocalStore
from gravswell.quiver.stores.objects import Objects
from gravswell.quiver.stores.progress import Counter, Progress

__all__ = [
    "BucketStore",
    "Children",
    "Content",
    "Counter",
    "Create",
    "FileInfo",
    "LocalStore",
    "Overwrite",
    "Progress",
    "PutMode",
    "Store",
    "Update",
    "Upload",
    "View",
    "in_bucket",
    "open_store",
]


_LIBRARIES = {"gs": ("google-cloud-storage", "gcs"), "s3": ("obstore", "s3"), "az": ("azure-storage-blob", "azure")}
"""For each scheme of a bucket: its library, and the extra that brings it."""


def open_store(url: str | Path, *, create: bool = False, patience: timedelta | None = None) -> Store:
    """The store at ``url``: a path, ``file:///path``, ``gs://bucket/prefix``, ``s3://bucket/prefix`` or
    ``az://container/prefix``.

    With ``create`` a folder is made if it is not there; otherwise that is a :class:`NotFoundError`. A bucket is never
    made, and a prefix in it needs no making. ``patience`` is how long a bucket that does not answer is asked again, in
    place of :data:`~gravswell.quiver.stores.objects.PATIENCE`. UnsupportedError, naming the extra, where the store's
    library is missing.
    """
    if isinstance(url, str) and in_bucket(url):
        return _bucket_store(url, patience or objects.PATIENCE)
    return LocalStore(_local_path(url), create=create)


def in_bucket(url: str | Path) -> bool:
    """Whether a repository of that URL lies in a bucket. Nothing is opened."""
    return str(url).partition("://")[0] in _LIBRARIES


def _bucket_store(url: str, patience: timedelta) -> Store:
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if not bucket or any(c in bucket for c in "\\?#@:\0 "):
        raise InvalidInputError(f"{url!r} names no bucket: write {scheme}://bucket or {scheme}://bucket/folder")
    if prefix:
        check_key(prefix)
    try:
        return BucketStore(_objects(scheme, bucket, patience), prefix)
    except ModuleNotFoundError as error:
        library, extra = _LIBRARIES[scheme]
        if (error.name or "").startswith("gravswell"):
            raise
        raise UnsupportedError(f"{url} needs {library}: {install(extra)}") from error


def _objects(scheme: str, bucket: str, patience: timedelta) -> Objects:
    if scheme == "gs":
        from gravswell.quiver.stores.google import GoogleObjects  # noqa: PLC0415 - only where it is used

        return GoogleObjects(bucket, patience)
    if scheme == "s3":
        from gravswell.quiver.stores.amazon import AmazonObjects  # noqa: PLC0415 - only where it is used

        return AmazonObjects(bucket, patience)
    from gravswell.quiver.stores.azure import AzureObjects  # noqa: PLC0415 - only where it is used

    return AzureObjects(bucket, patience)


def _expanded(path: Path) -> Path:
    """``~/models`` in somebody's home, as a shell takes it; never a folder that is called ``~``."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InvalidInputError(f"{path} begins with a home that is not known ({error}): give the whole path") from None


def _local_path(url: str | Path) -> Path:
    if isinstance(url, Path):
        return _expanded(url)
    if not url or "\0" in url:
        raise InvalidInputError(f"{url!r} is no repository URL: give a path or file:///path")
    parts = urlsplit(url)
    if "://" not in url:
        scheme, colon, rest = url.partition(":")
        if colon and scheme in (*_LIBRARIES, "file"):  # gs:/bucket would be a folder, silently
            meant = f"{scheme}:{'///' if scheme == 'file' else '//'}{rest.lstrip('/')}"
            raise InvalidInputError(f"{url} lacks slashes: write {meant}, or ./{url} for a folder of that name")
        return _expanded(Path(url)) if url.startswith("~") else Path(url)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise InvalidInputError(f"{url} names a host or a relative path: write file:///absolute/path")
        return Path(unquote(parts.path))
    if parts.scheme == "pvc":
        raise UnsupportedError(f"{url} is a volume of a cluster: mount it and give its path here")
    raise UnsupportedError(
        f"{url} is in a kind of store that cannot be opened: use a path, file:///path, gs://, s3:// or az://"
    )
