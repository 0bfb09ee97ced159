"""``az://container``: containers of the Azure storage account that the environment names, by Azure's own library.

``AZURE_STORAGE_CONNECTION_STRING``; or ``AZURE_STORAGE_ACCOUNT`` (``AZURE_STORAGE_ACCOUNT_NAME``) with a key, a SAS
token, or whatever ``azure-identity`` finds: a service principal, a workload or managed identity, ``az login``. It is
this library because it alone sends checksums with what it uploads.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from azure.core import MatchConditions
from azure.core import exceptions as azure
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.storage.blob import BlobServiceClient, ExponentialRetry

from gravswell.errors import AccessDeniedError, GravswellError, InvalidInputError, NotFoundError
from gravswell.quiver.stores.azure_login import Identity, NoTokenError, half_set
from gravswell.quiver.stores.base import Content, Create, PutMode, Update
from gravswell.quiver.stores.objects import STAMP, ObjectInfo, Objects, delete_each

_PART = 8 << 20
"""Bytes of one block of a large file; as a blob has 50,000 blocks at most, one of 419 GB is the largest."""

_IN_FLIGHT = 4
_PAGE = 1000
_CONNECTION = "AZURE_STORAGE_CONNECTION_STRING"
_LOG_IN = (
    f"set {_CONNECTION}, or AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or an identity "
    "(`az login`) that has the role Storage Blob Data Contributor on the container"
)


class AzureObjects(Objects):
    """The objects of ``az://container``."""

    way_to_log_in = _LOG_IN

    def __init__(self, container: str, patience: timedelta) -> None:
        self.url = f"az://{container}"
        service = _service(self.url, patience)
        self.way_to_make = f"az storage container create --name {container} --account-name {service.account_name}"
        self._container = service.get_container_client(container)

    def pages(self, prefix: str) -> Iterator[Sequence[ObjectInfo]]:
        """See :meth:`Objects.pages`."""
        with self._translated(prefix):
            found = self._container.list_blobs(name_starts_with=prefix or None, results_per_page=_PAGE)
            for page in found.by_page():
                yield [_info(str(blob.name), blob) for blob in page]

    def get(self, key: str) -> Content:
        """See :meth:`Objects.get`."""
        with self._translated(key):
            found = self._container.download_blob(key)
            return Content(found.readall(), str(found.properties.etag))

    def stat(self, key: str) -> ObjectInfo:
        """See :meth:`Objects.stat`."""
        with self._translated(key):
            found = self._container.get_blob_client(key).get_blob_properties()
            return _info(key, found, (found.metadata or {}).get(STAMP))

    def get_range(self, key: str, start: int, stop: int, etag: str) -> bytes:
        """See :meth:`Objects.get_range`."""
        with self._translated(key):
            found = self._container.download_blob(
                key, offset=start, length=stop - start, etag=etag, match_condition=MatchConditions.IfNotModified
            )
            return found.readall()

    def _put(self, key: str, data: bytes, mode: PutMode, stamp: str) -> str:
        condition: dict[str, Any] = {"overwrite": not isinstance(mode, Create)}
        if isinstance(mode, Update):
            condition |= {"etag": mode.etag, "match_condition": MatchConditions.IfNotModified}
        with self._translated(key, mode=mode):
            made = self._container.get_blob_client(key).upload_blob(
                data, metadata={STAMP: stamp}, validate_content=True, **condition
            )
            return str(made["etag"])

    def put_file(self, key: str, path: Path, sent: Callable[[int], None], stamp: str = "") -> None:
        """See :meth:`Objects.put_file`. In parallel blocks, each checked by its MD5 and sent again if cut."""
        with self._translated(key), path.open("rb") as source:
            self._container.get_blob_client(key).upload_blob(
                source,
                length=path.stat().st_size,
                metadata={STAMP: stamp} if stamp else None,
                overwrite=True,
                max_concurrency=_IN_FLIGHT,
                validate_content=True,
                progress_hook=_increments(sent),
            )

    def delete(self, keys: Sequence[str]) -> None:
        """See :meth:`Objects.delete`."""
        delete_each(self._delete, keys)

    def _delete(self, key: str) -> None:
        with self._translated(key):
            try:
                self._container.delete_blob(key, delete_snapshots="include")
            except azure.ResourceNotFoundError as error:
                if _code(error) == "ContainerNotFound":
                    raise

    def delete_exact(self, key: str, etag: str) -> None:
        """See :meth:`Objects.delete_exact`."""
        try:
            with self._translated(key):
                self._container.delete_blob(
                    key, delete_snapshots="include", etag=etag, match_condition=MatchConditions.IfNotModified
                )
        except NotFoundError:
            raise self._conflict(key) from None

    @contextmanager
    def _translated(self, key: str, *, mode: PutMode | None = None) -> Iterator[None]:
        try:
            yield
        except azure.ResourceNotFoundError as error:
            raise (self._no_bucket() if _code(error) == "ContainerNotFound" else self._missing(key)) from error
        except (azure.ResourceExistsError, azure.ResourceModifiedError) as error:
            raise self._conflict(key, mode) from error
        except NoTokenError as error:
            raise self._without_token(key, error.reason) from error
        except azure.ClientAuthenticationError as error:
            raise self._denied(key, _said(error)) from error
        except azure.HttpResponseError as error:
            raise (self._denied if error.status_code in (401, 403) else self._unavailable)(key, _said(error)) from error
        except azure.AzureError as error:
            raise self._unavailable(key, _said(error)) from error

    def _without_token(self, key: str, reason: Exception | None) -> GravswellError:
        if reason is None:
            return self._no_credentials(half_set() or "neither the environment nor this machine has any")
        away = isinstance(reason, azure.AzureError) and not isinstance(reason, azure.ClientAuthenticationError)
        return (self._unavailable if away else self._denied)(key, str(reason).partition("\n")[0])


def _service(url: str, patience: timedelta) -> BlobServiceClient:
    options: dict[str, Any] = {
        "retry_policy": ExponentialRetry(1, 2, _retries(patience), random_jitter_range=1),
        "connection_timeout": 10,
        "max_single_put_size": _PART,
        "max_block_size": _PART,
    }
    connection = _first(_CONNECTION)
    if connection:
        try:
            return BlobServiceClient.from_connection_string(connection, **options)
        except ValueError as error:
            raise InvalidInputError(
                f"{_CONNECTION} is no connection string ({error}): copy it anew from the account's access keys"
            ) from None
    name = _first("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")
    if not name:
        raise AccessDeniedError(f"{url}: the environment names no storage account; {_LOG_IN}")
    endpoint = _first("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT") or f"https://{name}.blob.core.windows.net"
    try:
        return BlobServiceClient(endpoint, credential=_credential(name), **options)
    except ValueError as error:  # no URL, or an identity, whose tokens it sends over HTTPS only
        raise InvalidInputError(f"{url} cannot be asked at {endpoint} ({error}); {_LOG_IN}") from None


def _credential(account: str) -> Any:
    key = _first("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY")
    if key:
        return AzureNamedKeyCredential(account, key)
    token = _first("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY")
    return AzureSasCredential(token) if token else Identity()


def _first(*names: str) -> str:
    """What the first of the variables says that says something, without the line's end of a Secret made of a file."""
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")


def _retries(patience: timedelta) -> int:
    """As many as fit into ``patience``: they wait for 1, 3, 5, 9, 17… seconds."""
    count, left = 0, patience.total_seconds() - 1
    while left >= 0:
        count += 1
        left -= 1 + 2**count
    return count


def _increments(sent: Callable[[int], None]) -> Callable[[int, int | None], None]:
    """What the library calls with the bytes so far, from any thread and not always in order."""
    lock, done = threading.Lock(), [0]

    def hook(current: int, _total: int | None) -> None:
        with lock:
            more, done[0] = current - done[0], max(current, done[0])
        if more > 0:
            sent(more)

    return hook


def _info(key: str, found: Any, stamp: str | None = None) -> ObjectInfo:
    return ObjectInfo(key, int(found.size), found.last_modified, str(found.etag), stamp)


def _code(error: azure.HttpResponseError) -> str:
    return str(getattr(error, "error_code", ""))


def _said(error: azure.AzureError) -> str:
    """The first line; of a refused token or signature also that of what is wrong with it: that it has expired, say."""
    detail = (getattr(error, "additional_info", None) or {}).get("authenticationerrordetail") or ""
    return " ".join(line for line in (str(text).partition("\n")[0].strip() for text in (error.message, detail)) if line)
