"""``s3://bucket``: Amazon S3 and whatever speaks its protocol (MinIO, Ceph, R2…), by ``obstore``.

That (Rust's ``object_store``) has conditional puts, parallel parts and retries; Amazon's own library would also hold
python-dateutil below version 3, which the Kubernetes client needs. ``AWS_ENDPOINT_URL`` (or ``AWS_ENDPOINT_URL_S3``)
names another server; who asks is said in :mod:`gravswell.quiver.stores.amazon_login`.
"""

import logging
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import obstore
from obstore import exceptions as rust
from obstore.store import S3Store

from gravswell.errors import GravswellError, InvalidInputError
from gravswell.quiver.stores.amazon_endpoint import endpoint_of
from gravswell.quiver.stores.amazon_login import amazon_login
from gravswell.quiver.stores.base import Content, Create, PutMode, Update
from gravswell.quiver.stores.objects import STAMP, ObjectInfo, Objects, parents

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Config

_PART = 8 << 20
_PARTS = 10_000
"""As many parts as S3 takes; a larger file gets larger parts."""
_IN_FLIGHT = 8
_PAGE = 1000
_LOOKS = 16

_MISSING_BUCKET = re.compile(r"NoSuchBucket")
_STATUS = re.compile(r"status code: (\d{3})")
_SAID = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)
_EXPIRED = re.compile(r"<Code>(ExpiredToken|InvalidToken|TokenRefreshRequired)")
_OTHER_REGION = re.compile(r"incorrectly configured region|<Code>(AuthorizationHeaderMalformed|PermanentRedirect)")
_NO_LISTING = re.compile(r"invalid list response")
_WITHOUT_CREDENTIALS = re.compile(r"/latest/(api/token|meta-data)|NoCredentials|MissingCredentials|InvalidCredential")
"""The former is asked of the machine, after all else."""


_log = logging.getLogger(__name__)


class AmazonObjects(Objects):
    """The objects of ``s3://bucket``."""

    way_to_log_in = (
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for what ~/.aws says; the account or role has "
        "to list the bucket and to read, write and delete its objects"
    )

    def __init__(self, bucket: str, patience: timedelta) -> None:
        self.url = f"s3://{bucket}"
        self.way_to_make = f"aws s3 mb {self.url}"
        endpoint = endpoint_of(self.url)
        login = amazon_login(self.url)
        config: S3Config = {"checksum_algorithm": "SHA256", **login.config}
        self._endpoint, self._speaks_s3 = endpoint, endpoint is None
        if endpoint:
            config["endpoint"] = endpoint

        def opened(retries: "RetryConfig") -> S3Store:
            return S3Store(
                bucket,
                config=config,
                client_options=_client(endpoint),
                retry_config=retries,
                credential_provider=login.provider,
            )

        self._store = opened(_retries(patience))
        self._once = opened({"max_retries": 0})

    def pages(self, prefix: str) -> Iterator[Sequence[ObjectInfo]]:
        """See :meth:`Objects.pages`.

        The library takes the slash from the end of a key: the folder marker ``a/`` looks like an empty file ``a``, and
        is told from one by asking for that. It knows no key with two slashes in a row: the folder of ``a//b`` is left
        out. It takes a web page for a listing of nothing: see :meth:`_check_nothing`.
        """
        seen: set[str] = set()
        with self._translated(prefix):
            try:
                for page in obstore.list(self._store, prefix.rstrip("/") or None, chunk_size=_PAGE):
                    seen.update(meta["path"] for meta in page)
                    yield self._inside(prefix, map(_info, page))
                if not seen:
                    self._check_nothing(prefix)
            except rust.InvalidPathError:
                found = _walked(self._store, prefix, self.at)
                yield self._inside(prefix, (info for info in found if info.key not in seen))

    def _check_nothing(self, prefix: str) -> None:
        """InvalidInputError where what was listed as nothing is no store, but answers with a page whatever is asked.

        As a console does, or a proxy: an object of a name that nobody has is there. Asked once, and of Amazon never.
        """
        if self._speaks_s3:
            return
        try:
            obstore.head(self._once, f"{prefix}.{uuid.uuid4().hex}")
        except (FileNotFoundError, PermissionError):
            self._speaks_s3 = True
        except (rust.BaseError, OSError) as error:
            _log.debug("whether %s speaks S3 is not known: %s", self._endpoint, _first_line(error))
        else:
            raise self._no_s3(prefix, "whatever it is asked for is there, as at a console or a proxy")

    def _inside(self, prefix: str, found: Iterable[ObjectInfo]) -> Sequence[ObjectInfo]:
        inside = [info for info in found if info.key.startswith(prefix)]
        markers = self._markers(inside)
        return [info for info in inside if info.key not in markers]

    def _markers(self, found: Iterable[ObjectInfo]) -> set[str]:
        """The keys of folder markers; a marker with something in its folder is recognised without being asked for."""
        empty = {o.key for o in found if o.size == 0 and not o.key.rpartition("/")[2].startswith(".")}
        if not empty:
            return empty
        folders = {parent for info in found for parent in parents(info.key)}
        unclear = [*(empty - folders)]
        with ThreadPoolExecutor(_LOOKS, thread_name_prefix="gravswell-look") as pool:
            real = {key for key, there in zip(unclear, pool.map(self._is_there, unclear), strict=True) if there}
        return empty - real

    def _is_there(self, key: str) -> bool:
        try:
            obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

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

    def put_file(self, key: str, path: Path, sent: Callable[[int], None], stamp: str = "") -> None:
        """See :meth:`Objects.put_file`. In parallel parts; S3 checks the sha256 of each."""
        size = path.stat().st_size
        part = max(_PART, -(-size // _PARTS))
        attributes: Any = {STAMP: stamp} if stamp else None
        with self._translated(key), path.open("rb") as source:
            if size <= part:
                obstore.put(self._store, key, source.read(), attributes=attributes, use_multipart=False)
                sent(size)
            else:
                parts = _Parts(source, part, sent)
                obstore.put(self._store, key, parts, attributes=attributes, chunk_size=part, max_concurrency=_IN_FLIGHT)
                parts.all_sent()

    def delete(self, keys: Sequence[str]) -> None:
        """See :meth:`Objects.delete`."""
        with self._translated(""):
            obstore.delete(self._store, [*keys])

    def _delete_once(self, key: str) -> None:
        with self._translated(key):
            obstore.delete(self._once, key)

    @contextmanager
    def _translated(self, key: str, *, mode: PutMode | None = None) -> Iterator[None]:
        try:
            yield
        except (rust.BaseError, FileNotFoundError, PermissionError, OSError) as error:
            raise self._meaning(key, error, mode) from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # Rust's own, which no module has and no Exception is
                raise
            raise InvalidInputError(
                f"{self.at(key)}: no request can be made of what the environment says ({_first_line(error)}): "
                f"look for what does not belong into AWS_ENDPOINT_URL, AWS_REGION and the keys"
            ) from error

    def _meaning(self, key: str, error: Exception, mode: PutMode | None) -> GravswellError:
        text = str(error)
        status = _STATUS.search(text)
        code = int(status[1]) if status else 0
        said = _SAID.search(text)
        detail = " ".join((said[1] if said else _first_line(error)).split())
        if _MISSING_BUCKET.search(text):
            return self._no_bucket()
        if isinstance(error, FileNotFoundError):
            return self._missing(key)
        if isinstance(error, rust.AlreadyExistsError | rust.PreconditionError) or code in (409, 412):
            return self._conflict(key, mode)
        if _WITHOUT_CREDENTIALS.search(text):
            return self._no_credentials("neither the environment nor this machine has any")
        refused = isinstance(error, rust.PermissionDeniedError | rust.UnauthenticatedError) or code in (401, 403)
        if refused or _EXPIRED.search(text):
            return self._denied(key, detail)
        if _NO_LISTING.search(text):
            meaning = self._no_s3
        else:
            meaning = self._elsewhere if _OTHER_REGION.search(text) else self._unavailable
        return meaning(key, detail)

    def _no_s3(self, key: str, detail: str) -> GravswellError:
        return InvalidInputError(
            f"{self.at(key)}: {self._endpoint or 'what answers for Amazon'} does not speak S3 ({detail}): let "
            f"AWS_ENDPOINT_URL name the address of its API; MinIO's, for one, is on another port than its console"
        )

    def _elsewhere(self, key: str, detail: str) -> GravswellError:
        return InvalidInputError(
            f"{self.at(key)}: the bucket seems to be in another region ({detail}): set AWS_REGION to its own "
            f"(of a ModelRepository, spec.region)"
        )


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


def _walked(store: S3Store, prefix: str, at: Callable[[str], str]) -> list[ObjectInfo]:
    """Folder by folder, so that a key that the library does not know costs no more than its own folder."""
    found: list[ObjectInfo] = []

    def look(folder: str) -> list[str]:
        try:
            level = obstore.list_with_delimiter(store, folder or None)
        except rust.InvalidPathError as error:
            _log.warning("%s is left out: %s; remove or rename that key", at(folder), _first_line(error))
            return []
        found.extend(_info(meta) for meta in level["objects"])
        return [*level["common_prefixes"]]

    folders = [prefix.rstrip("/")]
    with ThreadPoolExecutor(_LOOKS, thread_name_prefix="gravswell-list") as pool:
        while folders:
            folders = [inner for level in pool.map(look, folders) for inner in level]
    return found


def _retries(patience: timedelta) -> "RetryConfig":
    return {
        "max_retries": 8,
        "retry_timeout": patience,
        "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=8), "base": 2},
    }


def _client(endpoint: str | None) -> "ClientConfig":
    """Plain HTTP where the endpoint says so, as an emulator's does."""
    options: ClientConfig = {"timeout": timedelta(minutes=5), "connect_timeout": timedelta(seconds=10)}
    if endpoint is not None and endpoint.startswith("http://"):
        options["allow_http"] = True
    return options


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _etag(meta: Any) -> str:
    return str(meta["e_tag"])


def _info(meta: Any, stamp: str | None = None) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["last_modified"], _etag(meta), stamp)
