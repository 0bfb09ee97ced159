"""Buckets of Google Cloud Storage, by Google's own library: its credentials, its emulator variable, its retries.

``GOOGLE_APPLICATION_CREDENTIALS``, ``gcloud auth application-default login`` or the machine's own account say who asks;
``STORAGE_EMULATOR_HOST`` names an emulator. The etag is the object's generation.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud import storage  # type: ignore[attr-defined]  # untyped, unlike its neighbours
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from gravswell.errors import GravswellError, NotFoundError
from gravswell.quiver.stores.base import Content, Create, PutMode, Update
from gravswell.quiver.stores.checksum import Crc32c
from gravswell.quiver.stores.objects import STAMP, ObjectInfo, Objects, delete_each

_PART = 16 << 20
"""Bytes of one part of a large file: held in memory, and what a cut connection costs."""

_AT_ONCE = 4
_COMPOSED = 32
"""As many objects as the store makes one of in one request."""

_BINARY = "application/octet-stream"
_PAGE = 1000
_FIELDS = "items(name,size,updated,generation),nextPageToken"


class GoogleObjects(Objects):
    """The objects of ``gs://bucket``."""

    def __init__(self, bucket: str, patience: timedelta) -> None:
        self.url = f"gs://{bucket}"
        self.way_to_make = f"gcloud storage buckets create {self.url} --location=REGION"
        self.way_to_log_in = (
            "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file of an "
            "account with the role Storage Object User on the bucket"
        )
        with self._translated(""):
            # Objects need no project, and without None the library looks for one, and fails if there is none.
            self._bucket = storage.Client(project=None).bucket(bucket)
        self._retry = DEFAULT_RETRY.with_timeout(patience.total_seconds())

    def pages(self, prefix: str) -> Iterator[Sequence[ObjectInfo]]:
        """See :meth:`Objects.pages`."""
        with self._translated(prefix, bucket=True):
            found = self._bucket.list_blobs(prefix=prefix or None, fields=_FIELDS, page_size=_PAGE, retry=self._retry)
            for page in found.pages:
                yield [self._info(blob) for blob in page]

    def get(self, key: str) -> Content:
        """See :meth:`Objects.get`."""
        blob = self._bucket.blob(key)
        with self._translated(key):
            data = blob.download_as_bytes(retry=self._retry)
        return Content(data, str(blob.generation))

    def stat(self, key: str) -> ObjectInfo:
        """See :meth:`Objects.stat`."""
        blob = self._bucket.blob(key)
        with self._translated(key):
            blob.reload(retry=self._retry)
        return self._info(blob)

    def get_range(self, key: str, start: int, stop: int, etag: str) -> bytes:
        """See :meth:`Objects.get_range`."""
        blob = self._bucket.blob(key, generation=int(etag))
        try:
            with self._translated(key):
                # In one piece: by default the library takes 8 kB at a time, and its loops are what a range then costs.
                data: bytes = blob.download_as_bytes(
                    start=start, end=stop - 1, retry=self._retry, checksum=None, single_shot_download=True
                )
        except GravswellError as error:
            if isinstance(error.__cause__, api.NotFound):
                raise self._conflict(key) from None
            raise
        return data

    def _put(self, key: str, data: bytes, mode: PutMode, stamp: str) -> str:
        blob = self._stamped(key, stamp)
        match mode:
            case Create():
                generation: int | None = 0
            case Update(etag):
                generation = int(etag)
            case _:
                generation = None
        with self._translated(key, mode=mode, bucket=True):
            blob.upload_from_string(
                data,
                content_type=_BINARY,
                if_generation_match=generation,
                checksum="crc32c",
                retry=self._retry,
            )
        return str(blob.generation)

    def put_file(self, key: str, path: Path, sent: Callable[[int], None], stamp: str = "") -> None:
        """See :meth:`Objects.put_file`.

        A large file goes up as objects of its own, a few at once, of which the store then makes one: ``gcloud storage``
        does the same. The store checks the crc32c of each, and we that of the whole.
        """
        with self._translated(key, bucket=True), path.open("rb") as source:
            if path.stat().st_size <= _PART:
                data = source.read()
                self._put_part(key, data, stamp)
                sent(len(data))
            else:
                self._put_in_parts(key, source, sent, stamp)

    def _put_part(self, key: str, data: bytes, stamp: str = "") -> Any:
        blob = self._stamped(key, stamp)
        blob.upload_from_string(data, content_type=_BINARY, checksum="crc32c", retry=self._retry)
        return blob

    def _put_in_parts(self, key: str, source: BinaryIO, sent: Callable[[int], None], stamp: str) -> None:
        folder, slash, name = key.rpartition("/")
        temporary = f"{folder}{slash}.{name}.part"
        parts: list[Any] = []
        checksum = Crc32c()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="gravswell-write") as pool:
            waiting: deque[tuple[Future[Any], int]] = deque()

            def arrived() -> None:
                future, size = waiting.popleft()
                parts.append(future.result())
                sent(size)

            try:
                while data := source.read(_PART):
                    checksum.add(data)
                    if len(waiting) == _AT_ONCE:
                        arrived()
                    number = len(parts) + len(waiting)
                    waiting.append((pool.submit(self._put_part, f"{temporary}-{number:05}", data), len(data)))
                while waiting:
                    arrived()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        whole, made = self._composed(key, parts, temporary, stamp)
        self.delete([part.name for part in made])
        if whole.crc32c != checksum.text:
            raise DataCorruption(None, f"the store has crc32c {whole.crc32c} of it, and that is not what was sent")

    def _composed(self, key: str, parts: Sequence[Any], temporary: str, stamp: str) -> tuple[Any, Sequence[Any]]:
        """One object of the parts, in as many steps as it takes; and all that went into it."""
        made, step = [*parts], 0
        while len(parts) > _COMPOSED:
            step += 1
            groups = [parts[start : start + _COMPOSED] for start in range(0, len(parts), _COMPOSED)]
            parts = [self._compose(f"{temporary}-{step}-{i:05}", group) for i, group in enumerate(groups)]
            made.extend(parts)
        return self._compose(key, parts, stamp), made

    def _compose(self, key: str, parts: Sequence[Any], stamp: str = "") -> Any:
        blob = self._stamped(key, stamp)
        blob.content_type = _BINARY
        generations = [part.generation for part in parts]
        try:
            blob.compose(parts, if_source_generation_match=generations, retry=self._retry)
        except (api.NotFound, api.PreconditionFailed) as error:  # others took this upload for dead
            raise self._conflict(key) from error
        return blob

    def _stamped(self, key: str, stamp: str) -> Any:
        blob = self._bucket.blob(key)
        if stamp:
            blob.metadata = {STAMP: stamp}
        return blob

    def delete(self, keys: Sequence[str]) -> None:
        """See :meth:`Objects.delete`."""
        delete_each(self._delete, keys)

    def _delete(self, key: str) -> None:
        with self._translated(key), suppress(api.NotFound):
            self._bucket.blob(key).delete(retry=self._retry)

    def delete_exact(self, key: str, etag: str) -> None:
        """See :meth:`Objects.delete_exact`. The generation that is deleted is named, and no other goes."""
        try:
            with self._translated(key):
                self._bucket.blob(key, generation=int(etag)).delete(retry=self._retry)
        except NotFoundError:
            raise self._conflict(key) from None

    def _info(self, blob: Any) -> ObjectInfo:
        stamp = (blob.metadata or {}).get(STAMP)
        return ObjectInfo(blob.name, int(blob.size), blob.updated, str(blob.generation), stamp, blob.crc32c)

    @contextmanager
    def _translated(self, key: str, *, mode: PutMode | None = None, bucket: bool = False) -> Iterator[None]:
        """Turn the library's errors into ours; with ``bucket``, what is not found is the bucket."""
        try:
            yield
        except api.NotFound as error:
            raise (self._no_bucket() if bucket else self._missing(key)) from error
        except api.PreconditionFailed as error:
            raise self._conflict(key, mode) from error
        except (api.Forbidden, api.Unauthorized) as error:
            raise self._denied(key, error.message) from error
        except (auth.DefaultCredentialsError, auth.RefreshError) as error:
            raise self._no_credentials(str(error).partition("\n")[0]) from error
        except (api.RetryError, api.GoogleAPICallError, InvalidResponse, DataCorruption, auth.TransportError) as error:
            raise self._unavailable(key, getattr(error, "cause", None) or error) from error
        except (requests.RequestException, ConnectionError, TimeoutError) as error:
            raise self._unavailable(key, error) from error
