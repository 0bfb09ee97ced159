"""Verified versions on a volume that outlives pods, and that several of them share: a new one needs no repository.

::

    <root>/versions/<digest>/    a published version, whole; its time of change says when somebody last wanted it
    <root>/incoming/<digest>-…/  what is being copied or removed; its time of change says that somebody is at it
    <root>/incoming/.clock-…     the file system's time, looked at

Its law: nothing that is served depends on this volume. Triton reads the pod's own folder, so the Python of a model,
which runs in Triton's container, cannot write here; every hash is checked again when a version is taken from here; and
where the volume fails, the repository is asked. A version appears and goes by one rename, so pods need no locks, which
network file systems hold unreliably. All times are the file system's own: pods' clocks may disagree.
"""

import errno
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from gravswell.errors import ConflictError, NotFoundError, UnavailableError, VerificationError
from gravswell.quiver.fetching import Progress, copy_version
from gravswell.quiver.manifest import MANIFEST, Manifest, digest_of
from gravswell.quiver.stores import LocalStore
from gravswell.serving.agent.failures import is_full
from gravswell.serving.agent.hanging import Volume
from gravswell.serving.contracts import DesiredModel

log = logging.getLogger(__name__)

T = TypeVar("T")

WANTED_SECONDS = 3600.0
"""How long a version counts as wanted after an agent said so; agents say it several times as often."""

ABANDONED_SECONDS = 600.0
"""After which what nobody goes on with in ``incoming`` counts as left by a pod that died."""

HANGS_SECONDS = 60.0
"""After which a volume that gives not a byte is done without, until it answers again."""

SIGN_SECONDS = 30.0
"""Between two signs of life of a copy."""

SPARE_BYTES = 16 << 20
"""Room that the cache leaves free on its volume."""


class Published(NamedTuple):
    """A published version, by its manifest."""

    manifest: Manifest
    raw: bytes
    """The manifest as it stands."""

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return len(self.raw) + sum(record.size for record in self.manifest.files.values())


def _idle() -> None:
    """Whoever waits has nothing else to do."""


class NodeCache:
    """The cache in the folder ``root``, of at most ``limit`` bytes; None: of as many as its volume holds.

    Its methods block, and raise no error of the volume: they log it and do without. So they do for one that hangs.
    """

    def __init__(self, root: Path, *, limit: int | None = None) -> None:
        self._root = root
        self._versions = root / "versions"
        self._incoming = root / "incoming"
        self._limit = limit
        self._told = ""
        self._volume = Volume()

    def find(self, model: DesiredModel) -> Published | None:
        """The version, if it is here; its files are checked when they are taken. Somebody wants it from now on."""
        return self._within(lambda _: self._find(model), _idle)

    def _find(self, model: DesiredModel) -> Published | None:
        if model.digest is None:
            return None
        folder = self._versions / model.digest
        self._want([model.digest])
        try:
            raw = (folder / MANIFEST).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(error)
            return None
        if digest_of(raw) != model.digest:
            self._drop(folder, "its manifest is damaged")
            return None
        try:
            manifest = Manifest.from_bytes(raw, where=str(folder / MANIFEST))
        except VerificationError as error:  # of a later release; the repository's own says so to its user
            self._tell(error)
            return None
        return Published(manifest, raw) if (manifest.model, manifest.version) == (model.name, model.version) else None

    def take(self, held: Published, destination: Path, staging: Path, progress: Progress) -> bool:
        """Copy a version to ``destination``, every hash checked; False if it cannot be had from here.

        What ``progress`` raises comes through, and so does UnavailableError for a full disk under ``destination``.
        """

        def taken(alive: Callable[[], None]) -> bool:
            def moved(done: int, total: int) -> None:
                alive()
                progress(done, total)

            return self._take(held, destination, staging, moved)

        return self._within(taken, lambda: progress(0, 0)) or False

    def _take(self, held: Published, destination: Path, staging: Path, progress: Progress) -> bool:
        digest = digest_of(held.raw)
        try:
            copy_version(LocalStore(self._versions), digest, held, destination, staging, progress=progress)
        except VerificationError as error:
            self._drop(self._versions / digest, str(error))
            return False
        except (NotFoundError, UnavailableError) as error:  # it was removed for others; or a volume fails
            if is_full(error.__cause__):
                raise
            self._tell(error)
            return False
        return True

    def keep(self, model: DesiredModel, source: Path, progress: Callable[[], None]) -> bool:
        """Copy the version in ``source`` here, every hash checked; True if it is here then, whoever brought it.

        What nobody wants makes room for it. What ``progress`` raises, which is called while bytes flow, comes through.
        """
        digest = model.digest
        if digest is None:
            return False

        def kept(alive: Callable[[], None]) -> bool:
            def going_on() -> None:
                alive()
                progress()

            try:
                return self._is_here(digest) or self._keep(digest, source, going_on)
            except (ConflictError, NotFoundError, UnavailableError, VerificationError, OSError) as error:
                if self._is_here(digest):  # another pod was faster
                    return True
                self._tell(error)
            return False

        # What is written reaches a slow volume all at once, at a file's end, which shows no sign of life meanwhile.
        return self._within(kept, progress, ABANDONED_SECONDS) or False

    def want(self, digests: Iterable[str]) -> None:
        """Say that these versions are wanted: they are not removed for others."""
        wanted = list(digests)
        self._within(lambda _: self._want(wanted), _idle)

    def _want(self, digests: Iterable[str]) -> None:
        for digest in digests:
            try:
                os.utime(self._versions / digest)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._tell(error)

    # -- inside

    def _within(
        self, work: Callable[[Callable[[], None]], T], waiting: Callable[[], None], seconds: float | None = None
    ) -> T | None:
        """What ``work`` returns; None where the volume hangs, in this call or still in an earlier one."""
        if self._volume.hangs:
            return None
        try:
            return self._volume.call(work, seconds or HANGS_SECONDS, waiting)
        except TimeoutError as error:
            self._tell(error)
            return None

    def _is_here(self, digest: str) -> bool:
        return (self._versions / digest / MANIFEST).is_file()

    def _keep(self, digest: str, source: Path, progress: Callable[[], None]) -> bool:
        self._versions.mkdir(parents=True, exist_ok=True)
        self._make_incoming()
        self._clear(progress)
        if any(self._incoming.glob(f"{digest}-*")):
            return False  # another pod is at it
        raw = (source / MANIFEST).read_bytes()
        if digest_of(raw) != digest:
            return False  # the source was replaced meanwhile, by another version under its number
        if os.path.lexists(self._versions / digest) and not self._is_here(digest):
            self._drop(self._versions / digest, "it has no manifest")
        published = Published(Manifest.from_bytes(raw, where=str(source / MANIFEST)), raw)
        if not self._make_room(published.size, progress):
            self._tell(f"it is full of versions that are wanted, and has no room for {source}; give it more")
            return False
        own = Path(tempfile.mkdtemp(dir=self._incoming, prefix=f"{digest}-"))
        signed = time.monotonic()

        def alive(_done: int, _total: int) -> None:
            nonlocal signed
            progress()
            if time.monotonic() - signed >= SIGN_SECONDS:
                os.utime(own)
                signed = time.monotonic()

        try:
            copy_version(
                LocalStore(source.parent), source.name, published, self._versions / digest, own, progress=alive
            )
        finally:
            shutil.rmtree(own, ignore_errors=True)
        self._want([digest])
        log.info("version %s of '%s' is in the node cache", published.manifest.version, published.manifest.model)
        return True

    def _make_room(self, size: int, progress: Callable[[], None]) -> bool:
        """Remove what nobody wants, the longest unwanted first, until ``size`` bytes fit; False if they cannot."""
        if self._limit is not None and size > self._limit:
            return False  # and nothing goes for it in vain
        unwanted = sorted(self._aged(self._versions, WANTED_SECONDS), reverse=True)
        while self._room() < size:
            progress()
            if not unwanted:
                return False
            _, folder = unwanted.pop(0)
            self._drop(folder, "nobody wants it, and another version needs its room")
        return True

    def _room(self) -> int:
        free = shutil.disk_usage(self._root).free - SPARE_BYTES
        if self._limit is None:
            return free
        used = 0
        for folder, _, names in os.walk(self._root):
            for name in names:
                with suppress(FileNotFoundError):
                    used += Path(folder, name).stat().st_size
        return min(free, self._limit - used)

    def _clear(self, progress: Callable[[], None]) -> None:
        for _, left in self._aged(self._incoming, ABANDONED_SECONDS):
            progress()
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

    def _aged(self, parent: Path, seconds: float) -> list[tuple[float, Path]]:
        """The folders in ``parent`` that did not change for so long, and for how long, by the file system's clock."""
        with tempfile.NamedTemporaryFile(dir=self._incoming, prefix=".clock-") as clock:  # cleared if this pod dies now
            now = os.fstat(clock.fileno()).st_mtime
        found = []
        for path in parent.iterdir():
            with suppress(FileNotFoundError):  # another pod removes it
                age = now - path.stat().st_mtime
                if age >= seconds:
                    found.append((age, path))
        return found

    def _drop(self, folder: Path, why: str) -> None:
        """Rename away, then remove: half a version is never visible."""
        log.info("%s goes from the node cache: %s", folder.name, why)
        try:
            self._make_incoming()
            grave = Path(tempfile.mkdtemp(dir=self._incoming, prefix="removed-"))
            with suppress(FileNotFoundError):  # another pod was faster
                folder.rename(grave / folder.name)
            shutil.rmtree(grave)
        except OSError as error:
            self._tell(error)

    def _make_incoming(self) -> None:
        """OSError where it leads elsewhere: what is old in it is removed."""
        if self._incoming.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, "is a link, and not used; remove it", str(self._incoming))
        self._incoming.mkdir(exist_ok=True)

    def _tell(self, problem: object) -> None:
        if str(problem) != self._told:
            log.warning("the node cache %s: %s; this pod does without it", self._root, problem)
        self._told = str(problem)
