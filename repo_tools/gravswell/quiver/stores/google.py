"""Buckets of Google Cloud Storage, by Google's own library: its credentials, its emulator variable, its retries.

``GOOGLE_APPLICATION_CREDENTIALS``, ``gcloud auth application-default login`` or the machine's own account say who asks;
``STORAGE_EMULATOR_HOST`` names an emulator. The etag is the object's generation.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud import storage
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from gravswell.errors import GravswellError
from gravswell.quiver.stores import objects
from gravswell.quiver.stores.base import Content, Create, PutMode, Update
from gravswell.quiver.stores.objects import STAMP, ObjectInfo, Objects

_CHUNK = 100 << 20
"""Bytes of one request of a resumable upload, as the library has it: held in memory, and sent again after a cut."""

_DELETES = 16
_PAGE = 1000
_FIELDS = "items(name,size,updated,generation),nextPageToken"


class GoogleObjects(Objects):
    """The objects of ``gs://bucket``."""

    def __init__(self, bucket: str) -> None:
        self.url = f"gs://{bucket}"
        self.way_to_make = f"gcloud storage buckets create {self.url} --location=REGION"
        self.way_to_log_in = (
            "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file of an "
            "account with the role Storage Object User on the bucket"
        )
        with self._translated(""):
            # Objects need no project, and without None the library looks for one, and fails if there is none.
            self._bucket = storage.Client(project=None).bucket(bucket)
        self._retry = DEFAULT_RETRY.with_timeout(objects.PATIENCE.total_seconds())

    def list(self, prefix: str) -> list[ObjectInfo]:
        """See :meth:`Objects.list`."""
        with self._translated(prefix, bucket=True):
            found = self._bucket.list_blobs(prefix=prefix or None, fields=_FIELDS, page_size=_PAGE, retry=self._retry)
            return [self._info(blob) for blob in found]

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
                data: bytes = blob.download_as_bytes(start=start, end=stop - 1, retry=self._retry, checksum=None)
        except GravswellError as error:
            if isinstance(error.__cause__, api.NotFound):
                raise self._conflict(key) from None
            raise
        return data

    def _put(self, key: str, data: bytes, mode: PutMode, stamp: str) -> str:
        blob = self._bucket.blob(key)
        blob.metadata = {STAMP: stamp}
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
                content_type="application/octet-stream",
                if_generation_match=generation,
                checksum="crc32c",
                retry=self._retry,
            )
        return str(blob.generation)

    def put_file(self, key: str, path: Path) -> None:
        """See :meth:`Objects.put_file`. Resumed where it was cut; the store checks its crc32c."""
        blob = self._bucket.blob(key, chunk_size=_CHUNK)
        with self._translated(key, bucket=True):
            blob.upload_from_filename(
                path, content_type="application/octet-stream", checksum="crc32c", retry=self._retry
            )

    def delete(self, keys: Sequence[str]) -> None:
        """See :meth:`Objects.delete`."""

        def delete(key: str) -> None:
            with self._translated(key), suppress(api.NotFound):
                self._bucket.blob(key).delete(retry=self._retry)

        with ThreadPoolExecutor(_DELETES, thread_name_prefix="gravswell-delete") as pool:
            for _ in pool.map(delete, keys):
                pass

    def _info(self, blob: Any) -> ObjectInfo:
        stamp = (blob.metadata or {}).get(STAMP)
        return ObjectInfo(blob.name, int(blob.size), blob.updated, str(blob.generation), stamp)

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
