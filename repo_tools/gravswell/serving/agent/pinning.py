"""The lister's other half: what the cluster serves, pinned in the repository, so that nobody prunes it from elsewhere.

A lister may write there or may only read. Where it may not, whoever prunes asks the cluster itself.
"""

import logging
import time
from collections.abc import Iterable
from datetime import timedelta

from gravswell.errors import GravswellError, UnavailableError
from gravswell.quiver.pins import PINS_RENEWED, pin
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.stores import open_store
from gravswell.serving.contracts import Served

RETRY_SECONDS = 300.0
"""How long nothing is pinned after the repository refused it: most that do so once do it always."""

log = logging.getLogger(__name__)


class Pinning:
    """Keeps the pins of one cluster true in one repository, and remembers what it wrote: a look costs nothing then."""

    def __init__(self, url: str, patience: timedelta | None = None) -> None:
        self._url = url
        self._patience = patience
        self._said: dict[str, tuple[tuple[int, ...], float]] = {}
        self._not_before = 0.0
        self._refused = False

    def keep(self, cluster: str, served: Served, entries: Iterable[str]) -> None:
        """Pin what is ``served`` of each of these entries as ``cluster``'s; a refusal is told once, and tried again."""
        now = time.monotonic()
        if now < self._not_before:
            return
        due = [entry for entry in entries if not self._holds(entry, served.entries.get(entry, ()), now)]
        if not due:
            return
        reader = RepositoryReader(open_store(self._url, patience=self._patience))
        for entry in due:
            versions = served.entries.get(entry, ())
            try:
                pin(reader, entry, cluster, versions)
            except UnavailableError as error:  # all others would be refused too
                self._not_before = now + RETRY_SECONDS
                if not self._refused:
                    log.warning("what is served is not pinned, so prune this repository only with --context: %s", error)
                self._refused = True
                return
            except GravswellError as error:  # this one entry's, such as what is damaged
                log.warning("what is served of %s is not pinned, so prune it only with --context: %s", entry, error)
            self._said[entry] = (versions, now)
        self._refused = False

    def _holds(self, entry: str, versions: tuple[int, ...], now: float) -> bool:
        said, at = self._said.get(entry, (None, 0.0))
        return said == versions and now - at < PINS_RENEWED.total_seconds()
