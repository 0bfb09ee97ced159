"""Where the desired state comes from. A source hands over each state it sees and goes on until it is cancelled."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from gravswell.errors import GravswellError, InvalidInputError, NotFoundError
from gravswell.kube.backoff import Backoff
from gravswell.names import why_reserved
from gravswell.quiver.reader import RepositoryReader, VersionInfo
from gravswell.quiver.stores import Content, open_store
from gravswell.quiver.stores.looking import looked_at
from gravswell.serving.agent.configmaps import ConfigMap, Snapshot
from gravswell.serving.contracts import DESIRED_KEY, Desired, DesiredModel, Verification, is_text, private_members
from gravswell.serving.members import opens_members

log = logging.getLogger(__name__)

Accept = Callable[[Desired], None]


class DesiredSource(Protocol):
    """Says what shall be served."""

    async def follow(self, accept: Accept) -> None:
        """Call ``accept`` with the desired state, at first and whenever it may have changed; never returns."""


class ConfigMapSource:
    """The operator's word: ``desired.json`` in ``<server>-desired``, watched."""

    def __init__(self, configmap: ConfigMap) -> None:
        self._configmap = configmap
        self._unreadable = ""

    async def follow(self, accept: Accept) -> None:
        """See :class:`DesiredSource`. What cannot be read changes nothing: the last good state stays."""
        backoff = Backoff()
        while True:
            began, heard = math.inf, False
            fault: GravswellError | None = None
            try:
                seen = await self._configmap.read()
                self._take(seen, accept)
                began = time.monotonic()
                async for snapshot in self._configmap.watch(seen.resource_version):
                    heard = True
                    self._take(snapshot, accept)
            except GravswellError as error:
                fault = error
            lived = max(time.monotonic() - began, 0.0)
            pause = backoff.watch_ended(lived, heard=heard, error=fault)
            if fault is not None and backoff.failures in (1, 6):  # once when it begins, once when it lasts
                passing = lived and backoff.failures == 1  # a watch that ends now and then warns of nothing
                log.log(logging.INFO if passing else logging.WARNING, "%s; what is served stays as it is", fault)
            await asyncio.sleep(pause)

    def _take(self, snapshot: Snapshot, accept: Accept) -> None:
        text = snapshot.data.get(DESIRED_KEY)
        if text is None:  # made, and not yet written to; an empty state would be an empty list of models
            return
        try:
            accept(parse_desired(text, where=f"{self._configmap.name}, key {DESIRED_KEY}"))
        except InvalidInputError as error:
            if text != self._unreadable:
                log.warning("%s; what is served stays as it is", error)
            self._unreadable = text


class OfRank:
    """What another source says, as it concerns the replica of one rank: of each partition, that rank's parts."""

    def __init__(self, source: DesiredSource, rank: int) -> None:
        self._source, self._rank = source, rank

    async def follow(self, accept: Accept) -> None:
        """See :class:`DesiredSource`."""
        await self._source.follow(lambda desired: accept(desired.of_rank(self._rank)))


class FileSource:
    """A file that holds the same document, read again every ``interval`` seconds."""

    def __init__(self, path: Path, interval: float) -> None:
        self._path = path
        self._interval = interval

    async def follow(self, accept: Accept) -> None:
        """See :class:`DesiredSource`."""
        told = ""
        while True:
            try:
                accept(parse_desired(await asyncio.to_thread(self._path.read_bytes), where=str(self._path)))
                told = ""
            except (OSError, InvalidInputError) as error:
                if str(error) != told:
                    log.warning("%s; what is served stays as it is", error)
                told = str(error)
            await asyncio.sleep(self._interval)


class LatestSource:
    """Every entry of the repository at its latest version, looked at every ``interval`` seconds.

    A bucket is listed once for each look, and only what is new there is read. A version without a manifest is served as
    it is: nothing of it can be verified. Passed over are entries whose names no desired model can have, and those that
    pipelines have as private members: these call them by names of their own. An entry that cannot be read stays as it
    was, and so does all of it when the repository is away; ``last`` is what an earlier agent was told of it.
    """

    def __init__(
        self,
        repository: str,
        interval: float,
        verification: Verification = Verification.GOLDEN,
        *,
        last: Desired | None = None,
    ) -> None:
        self._repository = repository
        self._interval = interval
        self._verification = verification
        self._last = last if last is not None and last.repository == repository else Desired(repository=repository)
        self._contents: dict[str, Content] = {}
        self._pipelines: dict[str, tuple[Sequence[str], bool]] = {}
        """What each calls, and whether it opens that to clients, as it was last seen."""

    async def follow(self, accept: Accept) -> None:
        """See :class:`DesiredSource`."""
        told = ""
        while True:
            try:
                self._last, problem = await asyncio.to_thread(self._latest)
                accept(self._last)
            except GravswellError as error:
                problem = str(error)
            if problem and problem != told:
                log.warning("%s; what is served stays as it is", problem)
            told = problem
            await asyncio.sleep(self._interval)

    def _latest(self) -> tuple[Desired, str]:
        """The latest of every entry, and what cannot be read."""
        reader = RepositoryReader(looked_at(open_store(self._repository), self._contents))
        known = {model.name: model for model in self._last.models}
        wanted = [name for name in sorted({*reader.entries(), *known}) if _can_be_desired(name)]

        def newest(entry: str) -> tuple[VersionInfo, bool] | GravswellError | None:
            try:
                found = reader.newest(entry)
                if found is None:
                    return None
                return found, bool(found.members) and opens_members(reader, entry, found.number)
            except NotFoundError:
                return None  # removed
            except GravswellError as error:
                return error

        models: list[DesiredModel] = []
        pipelines: dict[str, tuple[Sequence[str], bool]] = {}
        problems: list[str] = []
        for entry, found in zip(wanted, reader.store.in_parallel(newest, wanted), strict=True):
            if isinstance(found, GravswellError):
                problems.append(f"{entry}: {found}")
                models += [known[entry]] if entry in known else []
                pipelines |= {entry: self._pipelines[entry]} if entry in self._pipelines else {}
            elif found is not None:
                info, opens = found
                verification = self._verification if info.digest else Verification.NONE
                models.append(
                    DesiredModel(name=entry, version=info.number, digest=info.digest, verification=verification)
                )
                if info.members:
                    pipelines[entry] = [member.model for member in info.members], opens
        reader.check_present([model.name for model in models], known)
        self._pipelines = pipelines
        private = private_members(pipelines.values())
        shown = tuple(model for model in models if model.name not in private)
        return Desired(repository=self._repository, models=shown), "; ".join(problems)


def _can_be_desired(entry: str) -> bool:
    return is_text(entry) and why_reserved(entry) is None


def parse_desired(text: str | bytes, *, where: str) -> Desired:
    """The document in ``text``, UTF-8 where it is bytes.

    :class:`InvalidInputError` names ``where`` and the field that cannot be right.
    """
    try:
        return Desired.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the document"
        raise InvalidInputError(f"{where} holds no desired state: {field}: {first['msg']}") from None
