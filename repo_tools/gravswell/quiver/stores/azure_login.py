"""Who asks at Azure, where the environment has no key: what Azure's own library finds, or why it finds nothing.

A service principal, a workload or managed identity, ``az login``, in that order. The library tells any failure as
refused credentials, in a dozen lines that it logs too, and the store's library repeats that for as long as it would ask
a server that does not answer. Here it is told once, as what it was.
"""

import logging
import threading
from typing import Any

from azure.core.credentials import AccessToken
from azure.identity import CredentialUnavailableError, DefaultAzureCredential

TIMEOUTS = {"connection_timeout": 10, "read_timeout": 30}
"""Seconds, for each of a few attempts: the library's own are 300, for a cloud that a firewall keeps away."""


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
        log = logging.getLogger("azure.identity")
        if log.level == logging.NOTSET:
            log.setLevel(logging.ERROR)  # what it warns of, our error tells
        self._asking = threading.Lock()
        self._found = DefaultAzureCredential(**TIMEOUTS)
        self._ways = [_Way(credential) for credential in self._found.credentials]
        self._found.credentials = tuple(self._ways)

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """A token for ``scopes``, as the libraries ask for one."""
        with self._asking:
            for way in self._ways:
                way.failure = None
            try:
                return self._found.get_token(*scopes, **options)
            except Exception as error:
                reason = next((way.failure for way in self._ways if way.failure is not None), None)
                raise NoTokenError(reason) from error


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
