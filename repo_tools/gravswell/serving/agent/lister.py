"""``gravswell agent list``: what a repository holds, written where the operator reads it.

The operator holds no credentials for repositories; this small program has those of one and writes one ConfigMap. What
the operator says there of what is served, it pins in the repository.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gravswell.errors import (
    AccessDeniedError,
    GravswellError,
    InvalidInputError,
    NotFoundError,
    UnsupportedError,
    VerificationError,
)
from gravswell.kube.backoff import Backoff
from gravswell.names import why_reserved
from gravswell.quiver.reader import EntryInfo, RepositoryReader, VersionInfo
from gravswell.quiver.stores import Content, open_store
from gravswell.quiver.stores.looking import looked_at
from gravswell.serving.agent.configmaps import ConfigMap, Snapshot
from gravswell.serving.agent.pinning import Pinning
from gravswell.serving.contracts import (
    LISTING_KEY,
    SERVED_KEY,
    ListedEntry,
    ListedVersion,
    Listing,
    RankPart,
    Reason,
    Served,
    is_text,
)
from gravswell.serving.members import opens_members

T = TypeVar("T")

log = logging.getLogger(__name__)

LARGEST_BYTES = 900_000
"""Of the document: a ConfigMap has 1 MiB in all."""

HEARTBEAT = timedelta(minutes=5)
"""How old ``observedAt`` may become while nothing changes: every write wakes the operator."""

STUCK_INTERVALS = 3
STUCK_SECONDS = 120.0
"""A loop that has not turned for so many intervals, and for so long, is stuck: its waits for the API server are
shorter, and while it waits for the repository its heart beats on."""

BEAT_SECONDS = 5.0
"""Between two heartbeats while the repository is being read."""


def list_repository(
    url: str,
    now: datetime,
    last: Listing | None = None,
    *,
    known_as: str | None = None,
    contents: dict[str, Content] | None = None,
    patience: timedelta | None = None,
) -> Listing:
    """What the repository at ``url`` holds; never raises for a repository that cannot be read, but says so.

    The listing is of ``known_as``, the name by which its reader knows the repository, if that is not ``url``.
    ``contents`` is what earlier listings read of a bucket: what did not change since is not read again. ``patience`` is
    that of :func:`~gravswell.quiver.stores.open_store`.

    An entry that alone cannot be read stands as in ``last``, for what is no longer listed may be unloaded; one that was
    never read is left out. ``message`` names both.
    """
    try:
        return read_repository(url, now, last, known_as=known_as, contents=contents, patience=patience)
    except GravswellError as error:
        return Listing(
            repository=known_as or url,
            observed_at=now,
            accessible=False,
            reason=_reason(error),
            message=str(error)[:1000],
        )


def read_repository(
    url: str,
    now: datetime,
    last: Listing | None = None,
    *,
    known_as: str | None = None,
    contents: dict[str, Content] | None = None,
    patience: timedelta | None = None,
) -> Listing:
    """:func:`list_repository`, which raises members of :mod:`gravswell.errors` where the repository cannot be read."""
    name_of_it = known_as or url
    known = {e.name: e for e in last.entries} if last is not None and last.repository == name_of_it else {}
    entries: list[ListedEntry] = []
    problems: list[str] = []
    reader = RepositoryReader(looked_at(open_store(url, patience=patience), {} if contents is None else contents))
    survey = reader.survey()
    for name in sorted({*survey, *known}):
        if why_reserved(name):
            continue  # nothing is served under such a name
        if not is_text(name):
            problems.append(f"folder {name!a}: its name is not UTF-8, so no document can carry it; rename it")
            continue
        try:
            entries.append(_entry(reader, name, survey[name] if name in survey else reader.look(name)))
        except NotFoundError:
            continue  # removed since
        except (AccessDeniedError, InvalidInputError, VerificationError) as error:
            problems.append(f"{name}: {error}")
            entries += [known[name]] if name in known else []
    reader.check_present([entry.name for entry in entries], [name for name, entry in known.items() if entry.versions])
    message = "; ".join(problems)[:1000]
    listing = Listing(repository=name_of_it, observed_at=now, accessible=True, message=message, entries=tuple(entries))
    return trimmed(listing)


def render(listing: Listing) -> RenderableType:
    """The listing for a person."""
    table = Table(title=listing.repository, title_justify="left")
    for column in ("entry", "versions", "latest", "digest"):
        table.add_column(column)
    for entry in listing.entries:
        latest = entry.versions[0] if entry.versions else None
        count = str(len(entry.versions) + entry.omitted)
        digest = (latest.digest or "unverified")[:12] if latest else ""
        table.add_row(entry.name, count, str(latest.number) if latest else "", digest)
    return Group(table, Text(f"could not be read: {listing.message}")) if listing.message else table


def merged(last: Listing | None, new: Listing) -> Listing:
    """``new``, or where it could not see, what was last seen with the reason why it cannot now."""
    if new.accessible or last is None or last.repository != new.repository:
        return new
    observed = last.observed_at if last.entries or last.accessible else new.observed_at
    return new.model_copy(update={"entries": last.entries, "observed_at": observed})


def must_write(written: Listing | None, new: Listing) -> bool:
    """Whether the operator should hear of ``new``."""
    if written is None:
        return True
    unchanged = written.model_copy(update={"observed_at": new.observed_at}) == new
    # A clock that was set back must not end the heartbeat until it has caught up.
    return not unchanged or abs(new.observed_at - written.observed_at) >= HEARTBEAT


def trimmed(listing: Listing, limit: int = LARGEST_BYTES) -> Listing:
    """The listing in at most ``limit`` bytes of JSON: the oldest versions that no alias names are left out and counted.

    Every entry keeps its newest version.
    """
    entries = list(listing.entries)
    # The overhead of the document and of each entry is small beside the versions; measured once, then only subtracted.
    size = len(listing.to_json().encode())
    while size > limit:
        longest = max(range(len(entries)), key=lambda k: _droppable(entries[k]), default=None)
        if longest is None or not _droppable(entries[longest]):
            break
        entry = entries[longest]
        kept, dropped = _halved(entry)
        entries[longest] = entry.model_copy(update={"versions": kept, "omitted": entry.omitted + dropped})
        size -= len(entry.to_json().encode()) - len(entries[longest].to_json().encode())
    return listing.model_copy(update={"entries": tuple(entries)})


class Lister:
    """Lists one repository again and again and keeps the ConfigMap true to it.

    The ConfigMap is read before each listing: what somebody removed from it or wrote over is mended with the next one.
    """

    def __init__(
        self,
        url: str,
        configmap: ConfigMap,
        interval: float,
        *,
        known_as: str | None = None,
        patience: timedelta | None = None,
    ) -> None:
        self._url = url
        self._patience = patience
        self._known_as = known_as or url
        self._configmap = configmap
        self._interval = interval
        self._pinning = Pinning(url, patience)
        self._contents: dict[str, Content] = {}
        self.last: Listing | None = None
        """What was seen last."""
        self.has_listed = False
        """A listing was made and stored. It may say that the repository cannot be read."""
        self._beat = time.monotonic()

    @property
    def stuck_for(self) -> float | None:
        """Seconds for which the loop has not turned, once that proves it stuck; a slow repository does not."""
        silent = time.monotonic() - self._beat
        return silent if silent > max(STUCK_SECONDS, STUCK_INTERVALS * self._interval) else None

    async def run(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """List every ``interval`` seconds until cancelled."""
        backoff = Backoff()
        while True:
            self._beat = time.monotonic()
            pause = self._interval
            try:
                await self._turn(now())
                backoff.succeeded()
            except GravswellError as error:
                if backoff.failures in (0, 5):
                    log.warning("the listing waits: %s", error)
                pause = min(backoff.failed(error), self._interval)
            await asyncio.sleep(pause)

    async def _turn(self, now: datetime) -> None:
        there = await self._configmap.read()
        written = _listed(there)
        self.last = self.last or written
        new = merged(self.last, await self._list(now))
        if new.message and (self.last is None or self.last.message != new.message):
            log.warning("%s: %s", new.reason or "not all entries can be read", new.message)
        self.last = new
        if must_write(written, new):
            await self._configmap.merge({LISTING_KEY: new.to_json()})
            log.info("%d entries, digest %s", len(new.entries), new.digest)
        self.has_listed = True
        await self._pin(there, new)

    async def _pin(self, there: Snapshot, listing: Listing) -> None:
        served = _served(there)
        if served is None or served.repository != listing.repository or not listing.accessible:
            return
        where = f"{self._configmap.namespace}/{self._configmap.name.removesuffix('-listing')}"
        cluster = f"{where} ({there.uid[:8]})"  # two clusters may call their repositories the same
        await self._in_thread(self._pinning.keep, cluster, served, [entry.name for entry in listing.entries])

    async def _list(self, now: datetime) -> Listing:
        """What the repository holds."""
        look = partial(
            list_repository,
            known_as=self._known_as,
            contents=self._contents,
            patience=self._patience,
        )
        return await self._in_thread(look, self._url, now, self.last)

    async def _in_thread(self, work: Callable[..., T], *given: object) -> T:
        """What asks the store, which may be slow or away for long: that is no fault of this loop."""
        working = asyncio.ensure_future(asyncio.to_thread(work, *given))
        try:
            while not working.done():
                self._beat = time.monotonic()
                await asyncio.wait({working}, timeout=BEAT_SECONDS)
            return working.result()
        finally:
            working.cancel()


def _listed(there: Snapshot) -> Listing | None:
    """What an earlier lister wrote: its entries stand while the repository cannot be read."""
    text = there.data.get(LISTING_KEY)
    if not text:
        return None
    try:
        return Listing.model_validate_json(text)
    except ValueError as error:
        log.warning("the listing that is there cannot be read and is replaced: %s", error)
        return None


def _served(there: Snapshot) -> Served | None:
    """What the operator says that is served; None where it is of a release that says nothing, or of a later one."""
    text = there.data.get(SERVED_KEY)
    try:
        return Served.model_validate_json(text) if text else None
    except ValueError as error:
        log.warning("what the operator says of what is served cannot be read: %s", error)
        return None


def _entry(reader: RepositoryReader, name: str, seen: EntryInfo) -> ListedEntry:
    if seen.error is not None:
        raise seen.error
    pipelines = [info.number for info in seen.versions if info.members]
    opening = reader.store.in_parallel(lambda number: opens_members(reader, name, number), pipelines)
    opens = dict(zip(pipelines, opening, strict=True))
    versions = tuple(
        ListedVersion(
            number=info.number,
            digest=info.digest,
            size=info.size,
            created=info.created,
            parts=tuple(_parts(info)),
            members=tuple(dict.fromkeys(member.model for member in info.members)),
            opens_members=opens.get(info.number, False),
            opset=info.opset or None,
            ir_version=info.ir_version or None,
        )
        for info in seen.versions
    )
    return ListedEntry(name=name, versions=versions, aliases=dict(seen.aliases))


def _parts(info: VersionInfo) -> Iterator[RankPart]:
    """What each rank computes of a version that is a partition."""
    for member in info.members:
        if member.rank is not None:
            yield RankPart(name=member.model, version=member.version, digest=member.digest, rank=member.rank)


def _reason(error: GravswellError) -> Reason:
    if isinstance(error, AccessDeniedError):
        return Reason.ACCESS_DENIED
    if isinstance(error, InvalidInputError | UnsupportedError):
        return Reason.NOT_A_REPOSITORY
    if isinstance(error, NotFoundError):
        return Reason.REPOSITORY_NOT_FOUND
    return Reason.REPOSITORY_UNAVAILABLE


def _droppable(entry: ListedEntry) -> int:
    named = set(entry.aliases.values())
    return sum(1 for version in entry.versions[1:] if version.number not in named)


def _halved(entry: ListedEntry) -> tuple[tuple[ListedVersion, ...], int]:
    """Without the older half of what may go."""
    named = set(entry.aliases.values())
    may_go = [version.number for version in entry.versions[1:] if version.number not in named]
    going = set(may_go[len(may_go) // 2 :])
    return tuple(version for version in entry.versions if version.number not in going), len(going)
