"""The models folder: the only place that the agent writes to, and the one that its Triton reads.

::

    <root>/<entry>/<N>/              placed: under the number that Triton loads
    <root>/gravswell-proof-…/<N>/    for the length of a golden proof: hard links to a staged or placed version
    <root>/gravswell-member-…/<N>/   while a pipeline calls it: hard links to a staged or placed version
    <root>/.gravswell/               the agent's own; Triton in explicit mode looks only at what it is told to load
        staged/<identity>/           fetched whole, every hash checked, named by digest; members of pipelines stay here
        incoming/                    what is being fetched or removed
        state.json                   see :mod:`gravswell.serving.agent.state`

Every folder appears by one rename, so a killed agent leaves nothing half-made where Triton looks.
"""

import itertools
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from gravswell.errors import InvalidInputError, UnavailableError, VerificationError
from gravswell.names import why_reserved
from gravswell.quiver.layout import CONFIG, is_readable_name, parse_version
from gravswell.quiver.manifest import MANIFEST, VERSION_CONFIG, Manifest, digest_of
from gravswell.serving.agent.decide import identity
from gravswell.serving.contracts import DesiredModel, Verification

log = logging.getLogger(__name__)

WORK = ".gravswell"

CLAIM_SECONDS = 0.5
"""Between two looks whether a version that somebody else fetches is still wanted."""


class ModelFolder:
    """One agent's folder. Its methods block; ``placed`` and ``staged`` are the inventory, kept true by them.

    ``limit`` is the size in bytes that the volume may reach: a pod that exceeds its emptyDir's limit is evicted, and
    the file system does not tell it.
    """

    def __init__(self, root: Path, *, limit: int | None = None) -> None:
        self.root = root
        self._limit = limit
        self.placed: dict[str, dict[int, str]] = {}
        """Entry → number → identity."""
        self.staged: set[str] = set()
        """Identities of versions that are fetched and not placed."""
        self.exposed: set[str] = set()
        """Private names under which versions are shown; those of a killed agent too, for Triton's index does not show
        what it runs once its folder is gone."""
        self._members: dict[str, tuple[DesiredModel, ...]] = {}
        """Identity of a pipeline's version → what it is made of."""
        self._claims: dict[str, threading.Lock] = {}
        self._graves = itertools.count()

    @property
    def incoming(self) -> Path:
        """Scratch on the same file system: what lies here is never looked at again after a restart."""
        return self.root / WORK / "incoming"

    @property
    def state_file(self) -> Path:
        """Where the agent remembers what need not be done again."""
        return self.root / WORK / "state.json"

    def prepare(self) -> None:
        """Make the folder, clear what a killed agent left, and take stock.

        Raises :class:`InvalidInputError` for a folder that holds other things: versions that nothing desires are
        removed from here, so a user's own repository must never be given as the models folder.
        """
        work = self.root / WORK
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not work.exists() and any(path.name != "lost+found" for path in self.root.iterdir()):
                raise InvalidInputError(
                    f"{self.root} is not empty and is no agent's models folder: the agent removes versions that "
                    f"nothing desires; give it an empty folder"
                )
            shutil.rmtree(self.incoming, ignore_errors=True)
            self.incoming.mkdir(parents=True, exist_ok=True)
            (work / "staged").mkdir(exist_ok=True)
            self._take_stock()
        except OSError as error:
            raise UnavailableError(
                f"the models folder {self.root} cannot be used: {error.strerror}; check its owner and mode"
            ) from error

    def staged_path(self, name: str) -> Path:
        """Where the staged version of that identity lies or shall lie."""
        return self.root / WORK / "staged" / name

    def version_path(self, entry: str, number: int) -> Path:
        """Where the placed version lies or shall lie."""
        return self.root / entry / str(number)

    def find(self, model: DesiredModel) -> Path | None:
        """The folder that holds the files of exactly this version, placed or staged."""
        name = identity(model)
        if self.placed.get(model.name, {}).get(model.version) == name:
            return self.version_path(model.name, model.version)
        return self.staged_path(name) if name in self.staged else None

    def members_of(self, model: DesiredModel) -> tuple[DesiredModel, ...]:
        """What a pipeline's version is made of, each once; none for any other model, and for one that is not here."""
        return self._members.get(identity(model), ())

    def holds(self, model: DesiredModel) -> bool:
        """Whether the files of exactly this version are here, and those of all its members."""
        return all(self.find(part) is not None for part in (model, *self.members_of(model)))

    def needed(self) -> set[str]:
        """Identities of the members of all pipelines' versions that are here."""
        here = self.staged.union(*(versions.values() for versions in self.placed.values()))
        return {identity(member) for name in here for member in self._members.get(name, ())}

    def size(self, model: DesiredModel) -> int:
        """Bytes of a version that is here."""
        source = self.find(model)
        return 0 if source is None else sum(path.stat().st_size for path in source.rglob("*") if path.is_file())

    def free_bytes(self) -> int:
        """Room for another version: what the file system has left, and what the limit leaves."""
        free = shutil.disk_usage(self.root).free
        return free if self._limit is None else min(free, self._limit - self._used_bytes())

    @contextmanager
    def claimed(self, model: DesiredModel, waiting: Callable[[], None]) -> Iterator[None]:
        """Be the only one in the block who fetches the version: two pipelines may want the same member.

        ``waiting`` is called again and again until then, and ends the wait by raising.
        """
        lock = self._claims.setdefault(identity(model), threading.Lock())
        while not lock.acquire(timeout=CLAIM_SECONDS):
            waiting()
        try:
            yield
        finally:
            lock.release()

    def adopt_stage(self, model: DesiredModel) -> None:
        """Note that the version was fetched into :meth:`staged_path`."""
        self._note_members(self.staged_path(identity(model)), identity(model))
        self.staged.add(identity(model))

    def place(self, model: DesiredModel) -> Path:
        """Move a staged version to its number, in place of other content under that number; return its folder."""
        name = identity(model)
        target = self.version_path(model.name, model.version)
        if self.placed.get(model.name, {}).get(model.version) == name:
            return target
        target.parent.mkdir(exist_ok=True)
        self._show_config(self.staged_path(name), target.parent)
        if target.exists():
            self._discard(target)
            self.placed.get(model.name, {}).pop(model.version, None)
        self.staged_path(name).rename(target)
        self.staged.discard(name)
        self.placed.setdefault(model.name, {})[model.version] = name
        return target

    def expose(self, source: Path, private_name: str, number: int, config: str | None = None) -> None:
        """Show the version in ``source`` to Triton under a private name too, by hard links: no byte is copied.

        ``config`` is the text of the configuration there, in place of the one that the version was published with.
        """
        target = self.root / private_name
        if target.exists():
            shutil.rmtree(target)
        with tempfile.TemporaryDirectory(dir=self.incoming) as scratch:
            made = Path(scratch) / private_name
            shutil.copytree(source, made / str(number), copy_function=_link)
            if config is None:
                self._show_config(source, made)
            else:
                (made / CONFIG).write_text(config)
            made.rename(target)
        self.exposed.add(private_name)

    def withdraw(self, private_name: str) -> None:
        """Undo :meth:`expose`."""
        self._discard(self.root / private_name)
        self.exposed.discard(private_name)

    def remove(self, entry: str, number: int) -> None:
        """Remove a placed version, and the entry's folder with its last one."""
        self._discard(self.version_path(entry, number))
        versions = self.placed.get(entry, {})
        versions.pop(number, None)
        if not versions:
            self.placed.pop(entry, None)
            self._discard(self.root / entry)

    def distrust(self, model: DesiredModel) -> None:
        """Take the version's files for damaged: it counts as not here.

        Placed files stay where they are until other content takes their number: Triton may have them open.
        """
        if self.placed.get(model.name, {}).get(model.version) == identity(model):
            del self.placed[model.name][model.version]
        else:
            self.drop_stage(identity(model))

    def drop_stage(self, name: str) -> None:
        """Remove a staged version."""
        self._discard(self.staged_path(name))
        self.staged.discard(name)

    def _used_bytes(self) -> int:
        seen: dict[int, int] = {}  # by inode: a version under proof has two names and is there once
        for folder, _, names in os.walk(self.root):
            for name in names:
                with suppress(FileNotFoundError):  # another model's step may remove it while we look
                    info = Path(folder, name).stat()
                    seen[info.st_ino] = info.st_size
        return sum(seen.values())

    def _show_config(self, version: Path, model: Path) -> None:
        """Give the model's folder a ``config.pbtxt``, once.

        Triton reads the one that it is given at load and logs an error all the same where there is no file. It is
        never written again: Triton reloads every version when this file is newer than they are.
        """
        published, shown = version / VERSION_CONFIG, model / CONFIG
        if published.exists() and not shown.exists():
            with tempfile.TemporaryDirectory(dir=self.incoming) as scratch:  # a full disk must leave no half of it
                shutil.copyfile(published, Path(scratch) / CONFIG).rename(shown)

    def _discard(self, path: Path) -> None:
        """Rename away, then remove: half a version is never visible."""
        if not path.exists():
            return
        grave = self.incoming / f"removed-{next(self._graves)}"  # a full disk may have no room for a folder of its own
        path.rename(grave)
        try:
            shutil.rmtree(grave)
        except OSError as error:  # it is out of sight, and the next start clears it
            log.warning("%s cannot be removed: %s", grave, error)

    def _take_stock(self) -> None:
        staged = [path for path in (self.root / WORK / "staged").iterdir() if not path.name.startswith(".")]
        self.placed, self.exposed, self.staged = {}, set(), {path.name for path in staged}
        for path in staged:
            self._note_members(path, path.name)
        for folder in self.root.iterdir():
            if not folder.is_dir() or not is_readable_name(folder.name):
                continue
            if why_reserved(folder.name):
                self.exposed.add(folder.name)
                continue
            numbers = {number for path in folder.iterdir() if (number := parse_version(path.name)) is not None}
            self.placed[folder.name] = {number: self._identity(folder.name, number) for number in numbers}

    def _identity(self, entry: str, number: int) -> str:
        try:
            digest = digest_of((self.version_path(entry, number) / MANIFEST).read_bytes())
        except FileNotFoundError:
            digest = None
        name = identity(DesiredModel(name=entry, version=number, digest=digest))
        self._note_members(self.version_path(entry, number), name)
        return name

    def _note_members(self, version: Path, name: str) -> None:
        try:
            manifest = Manifest.from_bytes((version / MANIFEST).read_bytes(), where=str(version / MANIFEST))
            members = members_in(manifest)
        except (FileNotFoundError, VerificationError, ValidationError):  # of others, or damaged: nothing is made of it
            members = ()
        if members:
            self._members[name] = members


def members_in(manifest: Manifest) -> tuple[DesiredModel, ...]:
    """A pipeline's members, each once, as versions to bring here; pydantic's ValidationError for what cannot be one.

    Their own answers are not asked for: the pipeline's are.
    """
    found = (
        DesiredModel(name=member.model, version=member.version, digest=member.digest, verification=Verification.HASHES)
        for member in manifest.members
    )
    return tuple(dict.fromkeys(found))


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links, as some volume drivers are
        shutil.copy2(source, target)
    return target
