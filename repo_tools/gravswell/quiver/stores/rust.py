"""Buckets of Amazon S3 and what speaks like it, and containers of Azure, by ``obstore`` (Rust's ``object_store``).

One library for both kinds, and conditional puts, parallel parts and retries in it. Amazon's own would also hold
python-dateutil below version 3, which the Kubernetes client needs.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import obstore
from obstore import exceptions as rust

from gravswell.errors import GravswellError
from gravswell.quiver.stores import objects
from gravswell.quiver.stores.base import Content, Create, PutMode, Update
from gravswell.quiver.stores.objects import STAMP, ObjectInfo, Objects

if TYPE_CHECKING:
    from obstore.store import AzureStore, ClientConfig, RetryConfig, S3Store

_PART = 8 << 20
_PARTS = 10_000
"""As many parts as S3 takes; a larger file gets larger parts."""
_IN_FLIGHT = 8
_PAGE = 1000

_MISSING_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|specified container does not exist", re.IGNORECASE)
_STATUS = re.compile(r"status code: (\d{3})")
_SAID = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)
_WITHOUT_CREDENTIALS = re.compile(
    r"169\.254\.\d+\.\d+|identity/oauth2|NoCredentials|MissingCredentials|InvalidCredential"
)


def retries() -> "RetryConfig":
    """How long a failing request is repeated."""
    return {
        "max_retries": 8,
        "retry_timeout": objects.PATIENCE,
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=8), "base": 2},
    }


def client(endpoint: str | None) -> "ClientConfig":
    """How to connect; plain HTTP where the endpoint says so, as an emulator's does."""
    options: ClientConfig = {"timeout": timedelta(minutes=5), "connect_timeout": timedelta(seconds=10)}
    if endpoint is not None and endpoint.startswith("http://"):
        options["allow_http"] = True
    return options


class RustObjects(Objects):
    """The objects of one ``obstore`` store."""

    def __init__(self, store: "S3Store | AzureStore", *, url: str, way_to_make: str, way_to_log_in: str) -> None:
        self._store = store
        self.url = url
        self.way_to_make = way_to_make
        self.way_to_log_in = way_to_log_in

    def list(self, prefix: str) -> list[ObjectInfo]:
        """See :meth:`Objects.list`."""
        with self._translated(prefix):
            pages = obstore.list(self._store, prefix.rstrip("/") or None, chunk_size=_PAGE)
            return [_info(meta) for page in pages for meta in page]

    def get(self, key: str) -> Content:
        """See :meth:`Objects.get`."""
        with self._translated(key):
            found = obstore.get(self._store, key)
            return Content(bytes(found.bytes()), _etag(found.meta))

    def stat(self, key: str) -> ObjectInfo:
        """See :meth:`Objects.stat`."""
        with self._translated(key):
            found = obstore.get(self._store, key, options={"head": True})
            attributes: Any = found.attributes
            return _info(found.meta, attributes.get(STAMP))

    def get_range(self, key: str, start: int, stop: int, etag: str) -> bytes:
        """See :meth:`Objects.get_range`."""
        with self._translated(key):
            found = obstore.get(self._store, key, options={"range": (start, stop), "if_match": etag})
            return bytes(found.bytes())

    def _put(self, key: str, data: bytes, mode: PutMode, stamp: str) -> str:
        match mode:
            case Create():
                how: Any = "create"
            case Update(etag):
                how = {"e_tag": etag}
            case _:
                how = "overwrite"
        with self._translated(key, mode=mode):
            return _etag(obstore.put(self._store, key, data, mode=how, attributes={STAMP: stamp}, use_multipart=False))

    def put_file(self, key: str, path: Path, sent: Callable[[int], None]) -> None:
        """See :meth:`Objects.put_file`. In parallel parts; S3 checks the sha256 of each."""
        size = path.stat().st_size
        part = max(_PART, -(-size // _PARTS))
        with self._translated(key), path.open("rb") as source:
            if size <= part:
                obstore.put(self._store, key, source.read(), use_multipart=False)
                sent(size)
            else:
                parts = _Parts(source, part, sent)
                obstore.put(self._store, key, parts, chunk_size=part, max_concurrency=_IN_FLIGHT)
                parts.all_sent()

    def delete(self, keys: Sequence[str]) -> None:
        """See :meth:`Objects.delete`."""
        with self._translated(""):
            try:
                obstore.delete(self._store, list_of(keys))
            except FileNotFoundError:  # Azure ends at the first that is not there
                for key in keys:
                    try:
                        obstore.delete(self._store, key)
                    except FileNotFoundError:
                        continue

    @contextmanager
    def _translated(self, key: str, *, mode: PutMode | None = None) -> Iterator[None]:
        try:
            yield
        except (rust.BaseError, FileNotFoundError, PermissionError, OSError) as error:
            raise self._meaning(key, error, mode) from error

    def _meaning(self, key: str, error: Exception, mode: PutMode | None) -> GravswellError:
        text = str(error)
        status = _STATUS.search(text)
        code = int(status[1]) if status else 0
        said = _SAID.search(text)
        detail = " ".join((said[1] if said else text.partition("\n")[0]).split())
        if _MISSING_BUCKET.search(text):
            return self._no_bucket()
        if isinstance(error, FileNotFoundError):
            return self._missing(key)
        if isinstance(error, rust.AlreadyExistsError | rust.PreconditionError) or code in (409, 412):
            return self._conflict(key, mode)
        if isinstance(error, rust.PermissionDeniedError | rust.UnauthenticatedError) or code in (401, 403):
            return self._denied(key, detail)
        if _WITHOUT_CREDENTIALS.search(text):
            return self._no_credentials("neither the environment nor this machine has any")
        return self._unavailable(key, detail)


class _Parts(Iterator[bytes]):
    """A file's parts for the library, which does not say when one has arrived.

    As it has at most :data:`_IN_FLIGHT` of them on their way, one has arrived when that many later ones were taken.
    """

    def __init__(self, source: BinaryIO, size: int, sent: Callable[[int], None]) -> None:
        self._source, self._size, self._sent = source, size, sent
        self._on_the_way: deque[int] = deque()

    def __next__(self) -> bytes:
        data = self._source.read(self._size)
        if not data:
            raise StopIteration
        if len(self._on_the_way) > _IN_FLIGHT:
            self._sent(self._on_the_way.popleft())
        self._on_the_way.append(len(data))
        return data

    def all_sent(self) -> None:
        """The library is done."""
        self._sent(sum(self._on_the_way))


def list_of(keys: Sequence[str]) -> "list[str]":
    """A list, as the library asks for one."""
    return [*keys]


def _etag(meta: Any) -> str:
    return str(meta["e_tag"])


def _info(meta: Any, stamp: str | None = None) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["last_modified"], _etag(meta), stamp)
