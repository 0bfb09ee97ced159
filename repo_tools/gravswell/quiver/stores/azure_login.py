"""Who asks at Azure, where the environment has no key: what Azure's own library finds, or why it finds nothing.

A service principal, a workload or managed identity, ``az login``, in that order. The library tells any failure as
refused credentials, in a dozen lines that it logs too, and the store's library repeats that for as long as it would ask
a server that does not answer. Here it is told once, as what it was.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from azure.core.credentials import AccessToken
from azure.identity import CredentialUnavailableError, DefaultAzureCredential

TIMEOUTS = {"connection_timeout": 10, "read_timeout": 30}
"""Seconds, for each of a few attempts: the library's own are 300, for a cloud that a firewall keeps away."""


_LOG = "azure.identity"
_WHO = ("AZURE_CLIENT_ID", "AZURE_TENANT_ID")
_PROOFS = ("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_FEDERATED_TOKEN_FILE")
"""Of a service principal one of the first two, of a workload identity the last."""


class NoTokenError(Exception):
    """No token was had. ``reason`` is the error of the identity that is there; None if there is none.

    No error of Azure's, which its library would repeat.
    """

    def __init__(self, reason: Exception | None) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Identity:
    """The first identity that there is, for Azure's libraries. NoTokenError in place of their errors."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        with _telling_ourselves():
            self._found = DefaultAzureCredential(**TIMEOUTS)
        self._ways = [_Way(credential) for credential in self._found.credentials]
        self._found.credentials = tuple(self._ways)

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """A token for ``scopes``, as the libraries ask for one."""
        with self._asking, _telling_ourselves():
            for way in self._ways:
                way.failure = None
            try:
                return self._found.get_token(*scopes, **options)
            except Exception as error:
                reason = next((way.failure for way in self._ways if way.failure is not None), None)
                raise NoTokenError(reason) from error


def half_set() -> str:
    """What the environment lacks of an identity of which it has something; empty where it has none, or all of one."""
    there = [name for name in (*_WHO, *_PROOFS) if os.environ.get(name)]
    lacking = [name for name in _WHO if name not in there]
    if not set(_PROOFS) & set(there):
        lacking.append(f"one of {', '.join(_PROOFS)}")
    return f"{' and '.join(there)} set without {' and '.join(lacking)}" if there and lacking else ""


_ours: ContextVar[bool] = ContextVar("_ours", default=False)
"""Whether what runs here asks the library for us."""


def _is_for_others(record: logging.LogRecord) -> bool:
    """A filter: our error tells what the library warns us of, unless the program has set a level for its log itself."""
    return record.levelno != logging.WARNING or not _ours.get() or logging.getLogger(_LOG).level != logging.NOTSET


@contextmanager
def _telling_ourselves() -> Iterator[None]:
    """Without the library's warnings of what is asked in the block. Those of what others ask meanwhile stay."""
    for name in list(logging.root.manager.loggerDict):  # a filter is not asked of what a logger below has logged
        if name.startswith(_LOG):
            logging.getLogger(name).addFilter(_is_for_others)  # once: it is known the second time
    before = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(before)


class _Way:
    """One of the kinds of identity; remembers why it failed, which the library keeps as text alone."""

    def __init__(self, credential: Any) -> None:
        self._credential = credential
        self.failure: Exception | None = None

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        try:
            found: AccessToken = self._credential.get_token(*scopes, **options)
        except CredentialUnavailableError:  # not of this kind
            raise
        except Exception as error:
            self.failure = error
            raise
        return found
