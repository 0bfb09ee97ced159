"""How a staged folder becomes a version: its number, its configuration, its manifest, and one rename.

The order is the guarantee. Everything is in the stage and hashed before a number is taken; the manifest is written last
inside it; the version appears whole; only then, if the entry's ``config.pbtxt`` has to say something new, is that
replaced. A writer that dies between the two leaves a version whose own configuration heals the entry's
(:func:`~gravswell.quiver.stored.stored_config`).
"""

import hashlib
import logging
import random
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gravswell import __version__
from gravswell.errors import ConflictError, GravswellError, InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.checks import refuse
from gravswell.quiver.composition.config import is_pipeline, take_parts
from gravswell.quiver.composition.holding import check_members, noted
from gravswell.quiver.config import ConfigText
from gravswell.quiver.disk import sha256_of
from gravswell.quiver.layout import config_key, parse_version, version_folder
from gravswell.quiver.manifest import MANIFEST, VERSION_CONFIG, FileRecord, Manifest, Signature
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.signature import describe, tensors_of
from gravswell.quiver.stored import StoredConfig, stored_config
from gravswell.quiver.stores import Create, Progress, Store, Update

if TYPE_CHECKING:
    from gravswell.quiver.exporters import Built

_TRIES = 50
_REFUSALS = 8
"""How often one number is tried that no listing shows to be taken."""
_PATIENCE = timedelta(seconds=60)
"""How long a first version waits for one with other tensors that has a higher number."""
_PAUSE = 0.2

_log = logging.getLogger(__name__)


class Publication:
    """The publication of one export: what the entry's configuration will be, and the version's number."""

    def __init__(self, store: Store, entry: str, *, max_batch_size: int | None, version: int | None) -> None:
        self._store = store
        self._reader = RepositoryReader(store)
        self._entry = entry
        self._max_batch_size = max_batch_size
        self._version = version
        self._began_with: Signature | None = None
        self._parts: Any = None

    def config(self) -> ConfigText:
        """The configuration as it is now, with this export's ``max_batch_size``."""
        return self._config().config

    def batched(self) -> bool:
        """Whether the server will form batches of this version's requests."""
        return bool(self.config().message.max_batch_size > 0)

    def earlier(self) -> Signature | None:
        """What the newest version takes and gives; before the first one, what the configuration states; else None.

        What is published stands on it: :meth:`publish` refuses if nothing of the kind is stated any more by then.
        """
        self._began_with = self._stated(self.config())
        return self._began_with

    def publish(self, stage: Path, built: "Built", progress: Progress | None = None) -> int:
        """Complete the staged version, make it appear, and return its number.

        It is made for the entry as it stands, and begun again where that changes before the version appears.
        InvalidInputError if it does not fit the entry's configuration as it is by now; ConflictError if the number that
        was asked for is taken, if the entry was made anew meanwhile, or if another first version with other tensors is
        on its way, or if a member of a pipeline is being removed; NotFoundError if the entry was removed.
        """
        self._parts = built.parts
        files = {
            path.relative_to(stage).as_posix(): _record(path) for path in sorted(stage.rglob("*")) if path.is_file()
        }
        with noted(self._reader, self._entry, built.members), self._store.exclusive():
            standing = self._appear(stage, built, files, progress)
            if standing.text != standing.stored.text:
                self._write_config(built, standing.stored, standing.text)
        return standing.number

    def _appear(
        self, stage: Path, built: "Built", files: dict[str, FileRecord], progress: Progress | None
    ) -> "_Standing":
        """Take a number. What somebody puts there by hand in between only costs the next number."""
        refused: Counter[int] = Counter()
        changed = 0
        while True:
            standing = self._standing(built)
            (stage / VERSION_CONFIG).write_text(standing.text)
            manifest = Manifest(
                model=self._entry,
                version=standing.number,
                created=datetime.now(UTC),
                parent=standing.parent,
                files={**files, VERSION_CONFIG: _record(stage / VERSION_CONFIG)},
                signature=built.signature,
                opset=built.opset,
                ir_version=built.ir_version,
                target=built.target,
                exporter=built.exporter,
                framework=built.framework,
                gravswell=__version__,
                verification=built.proof.record,
                members=built.members,
                fusion=built.fusion,
            )
            (stage / MANIFEST).write_bytes(manifest.to_bytes())
            folder = version_folder(self._entry, standing.number)
            try:
                check = partial(self._check, standing, built)
                self._store.publish(stage, folder, label=standing.label, check=check, progress=progress)
            except _ChangedError:
                changed += 1
                if changed == _TRIES:
                    raise
            except _RivalError:
                raise
            except ConflictError:
                refused[standing.number] += 1
                if refused[standing.number] == _REFUSALS:  # what is there shows in no listing
                    raise
                # others take it and give it up again, where they find the entry changed
                time.sleep(random.uniform(0, _PAUSE * (refused[standing.number] - 1)))  # noqa: S311 - spreads writers
            else:
                return standing

    def _standing(self, built: "Built") -> "_Standing":
        """What the version is made for, and from, by now."""
        stored = self._config()
        stated = self._stated(stored.config)
        if self._began_with is not None and stated is None:
            raise ConflictError(
                f"{self._entry} was replaced while this version was exported, and nothing was published: "
                f"export it again, with its shapes"
            )
        self._describe(stored.config.message, built)
        refuse(stored.config.message, stored.config.where)
        taken, highest = self._reader.numbers(self._entry), self._highest()
        state, _ = self._reader.state(self._entry)  # after the look: a removal writes the state first
        free = max(state.next_version, highest + 1)
        number = free if self._version is None else self._version
        if number < free:
            raise ConflictError(
                f"{self._entry} cannot have a version {number}: numbers up to {free - 1} are or were in use; "
                f"leave the number out, or use {free} or more"
            )
        own = filter(state.holds, taken)
        parent = next((earlier for earlier in own if self._manifest(earlier) is not None), None)
        label = _label(stored.config)
        return _Standing(stored, stored.config.render(), stated, label=label, number=number, parent=parent)

    def _check(self, standing: "_Standing", built: "Built") -> None:
        """The version's number is taken and seen by everybody; is the entry still what the version was made for?"""
        check_members(self._reader, built.members)
        if standing.stated is None:
            self._await_rivals(standing)
        stored = self._config()
        if stored.etag != standing.stored.etag or self._stated(stored.config) != standing.stated:
            raise _ChangedError(
                f"{self._entry} changes faster than a version of it can be published, and nothing was: export it again"
            )

    def _await_rivals(self, standing: "_Standing") -> None:
        """The first version says what tensors the entry has, so of several under way that differ only one may appear.

        The lowest number goes on, provided that those above it give way: each was seen by those that came after it,
        so at least one of two sees the other. It waits for one above it, which sees it too and gives way at once, or
        came before and is published; then the entry is no longer what this version was made for.
        """
        end = time.monotonic() + _PATIENCE.total_seconds()
        while rivals := [
            upload
            for upload in self._store.uploads(self._entry)
            if upload.number != standing.number and upload.label != standing.label
        ]:
            if rivals[0].number < standing.number or time.monotonic() > end:
                raise _RivalError(
                    f"the first version of {self._entry} is being uploaded by {rivals[0].writer}, with other tensors, "
                    f"or was until that ended a few minutes ago; nothing was published: wait for it, "
                    f"or start over with add --force (add(…, force=True))"
                )
            time.sleep(_PAUSE)

    def _write_config(self, built: "Built", stored: StoredConfig, text: str) -> None:
        """The version is there already, and its own configuration stands for one that cannot be written now."""
        try:
            while text != stored.text:
                try:
                    mode = Create() if stored.etag is None else Update(stored.etag)
                    self._store.write(config_key(self._entry), text.encode(), mode)
                except ConflictError:  # on a store without a lock; it may well say all of it by now
                    stored = self._config()
                    self._describe(stored.config.message, built)
                    text = stored.config.render()
                else:
                    return
        except GravswellError as error:
            _log.warning("the version is published; the next export states its tensors in the entry too: %s", error)

    def _describe(self, message: Any, built: "Built") -> None:
        batching = built.batching if self._max_batch_size is None else 0
        describe(message, built.signature, batchable=built.proof.batchable, batching=batching)

    def _config(self) -> StoredConfig:
        stored = stored_config(self._reader, self._entry)
        if stored.text is None and self._reader.state(self._entry)[0].next_version > 1:
            # Where entries go object by object this one goes first, once the numbers of the others are remembered.
            raise NotFoundError(
                f"{stored.config.where} is not there, and versions of {self._entry} were removed: so is the entry, or "
                f"it was to be when that was interrupted; remove it again, or start over with add --force "
                f"(add(…, force=True))"
            )
        message, wanted = stored.config.message, self._max_batch_size
        if message.name not in ("", self._entry):
            raise InvalidInputError(
                f"{stored.config.where} is named {message.name!r}, and Triton serves {self._entry} only under the name "
                f"of its folder: set the name in it to that, or take the line out"
            )
        if wanted is not None and wanted != message.max_batch_size:
            if message.input or message.output:
                raise InvalidInputError(
                    f"the tensors of {self._entry} are stated for max_batch_size={message.max_batch_size}: leave "
                    f"--max-batch-size {wanted} (max_batch_size={wanted}) out, or start over with add --force "
                    f"(add(…, force=True))"
                )
            message.max_batch_size = wanted
        if self._parts is not None:
            take_parts(message, self._parts)
        if not is_pipeline(message):  # which is unfinished until its tensors are described
            refuse(message, stored.config.where)
        return stored

    def _stated(self, config: ConfigText) -> Signature | None:
        state, _ = self._reader.state(self._entry)
        for number in filter(state.holds, self._reader.numbers(self._entry)):
            manifest = self._manifest(number)
            if manifest is not None:
                return manifest.signature
        return tensors_of(config.message)

    def _highest(self) -> int:
        """The highest number that any name in the entry has: a file or a dangling link is in a version's way too."""
        children = self._store.children(self._entry)
        return max((parse_version(name) or 0 for name in (*children.folders, *children.files)), default=0)

    def _manifest(self, number: int) -> Manifest | None:
        try:
            return self._reader.manifest(self._entry, number)[0]
        except (NotFoundError, VerificationError):
            return None  # none, or a damaged one: nothing that a new version could descend from


@dataclass(frozen=True, slots=True)
class _Standing:
    """What a version was made for: an entry's configuration and tensors at one moment, and what followed from them."""

    stored: StoredConfig
    text: str
    """The configuration with the version's tensors."""
    stated: Signature | None
    label: str
    number: int
    parent: int | None


class _ChangedError(ConflictError):
    """The entry is no longer what the version was made for."""


class _RivalError(ConflictError):
    """Another first version is on its way."""


def _label(config: ConfigText) -> str:
    """The same for configurations whose tensors are, whatever else they say."""
    message = config.message
    tensors = sorted(tensor.SerializeToString(deterministic=True) for tensor in (*message.input, *message.output))
    return hashlib.sha256(repr((message.max_batch_size, tensors)).encode()).hexdigest()[:16]


def _record(path: Path) -> FileRecord:
    return FileRecord(sha256=sha256_of(path), size=path.stat().st_size)
