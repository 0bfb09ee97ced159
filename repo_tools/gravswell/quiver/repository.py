"""A repository: a folder of entries that Triton can serve as it stands."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from gravswell.errors import ConflictError, InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.disk import refusals_told
from gravswell.quiver.entry import Entry, new_config
from gravswell.quiver.layout import CONFIG, check_name, state_key
from gravswell.quiver.platform import Platform
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.removal import Holders, needed, refuse_served
from gravswell.quiver.state import EntryState
from gravswell.quiver.stores import Store, open_store
from gravswell.quiver.stores.memory import change_state, forget_aliases

_log = logging.getLogger(__name__)


class ModelRepository:
    """The repository at ``url``: a folder, made if there is none, or ``gs://``, ``s3://`` or ``az://`` in a bucket.

    :meth:`open` makes nothing. InvalidInputError for a folder that holds other things and no entry.
    """

    def __init__(self, url: str | Path) -> None:
        self._attach(open_store(url, create=True))

    @classmethod
    def open(cls, url: str | Path) -> "ModelRepository":
        """The repository at ``url``, which must exist: NotFoundError otherwise."""
        repository = cls.__new__(cls)
        repository._attach(open_store(url))
        return repository

    def _attach(self, store: Store) -> None:
        self._store = store
        self._reader = RepositoryReader(store)
        self._models = _Models(store, self._reader.entries())
        if not self._models and self._strangers():
            with store.exclusive():  # in which no entry comes or goes while we look again
                strangers = self._strangers()
            if strangers:
                held = ", ".join(strangers[:3]) + ("…" if len(strangers) > 3 else "")
                raise InvalidInputError(
                    f"{store.location('')} is no model repository: it holds {held} and no entry with a {CONFIG} "
                    f"or a version; name another folder"
                )
            self.refresh()

    def _strangers(self) -> list[str]:
        children = self._store.children()
        folders, files = ([n for n in names if not n.startswith(".")] for names in (children.folders, children.files))
        return [] if any(map(self._reader.has, folders)) else folders + files

    def __repr__(self) -> str:
        return f"ModelRepository({self._store.location('')!r})"

    @property
    def url(self) -> str:
        """``file:///absolute/path``, or the bucket's URL as it was given."""
        return self._store.url

    @property
    def location(self) -> str:
        """Where it is, as it was named: a path, relative where it was given so, or the bucket's URL."""
        return self._store.location("")

    @property
    def models(self) -> Mapping[str, Entry]:
        """The entries by name, as they were when this object was made or last refreshed."""
        return self._models

    def refresh(self) -> None:
        """Take up what others added and removed."""
        self._models = _Models(self._store, self._reader.entries())

    def holders(self, name: str) -> dict[int, Holders]:
        """The versions of an entry that somebody needs, by number, each with the aliases and clusters that do.

        NotFoundError if there is no such entry.
        """
        return needed(self._reader.state(name)[0], self._reader.numbers(name))

    def add(
        self,
        name: str,
        platform: Platform | str = Platform.ONNX,
        force: bool = False,
        *,
        even_served: bool = False,
    ) -> Entry:
        """Make an entry. ConflictError if there is one, unless ``force`` replaces it and all its versions.

        That is a ConflictError too while a cluster said within a week that it serves one of them, without
        ``even_served``. The new entry goes on counting versions where the replaced one ended, and has none of its
        aliases. An export that is under way is published in the new entry only if it took nothing from the old one.
        """
        check_name(name)
        platform = Platform.parse(platform)
        with self._store.staging() as stage:
            with refusals_told(stage):
                (stage / CONFIG).write_text(new_config(name, platform))
            with self._store.exclusive():
                self._reader.state(name)  # one that is damaged is told before anything is changed
                replace = force and self._reader.has(name)
                if not replace:
                    try:
                        self._store.publish(stage, name)
                    except ConflictError:
                        replace = force and self._reader.has(name)  # where nothing locks, added a moment ago
                        if not replace:
                            raise ConflictError(
                                f"{self._store.location(name)} exists already: take it with repo.models[{name!r}], "
                                f"or replace it with force"
                            ) from None
                if replace:
                    self._close(name, even_served=even_served)
                    self._store.publish(stage, name, replace=True)
                forget_aliases(self._store, name)  # last: they may name versions until these are gone
        self.refresh()
        return self._models.get(name) or Entry(self._store, name)  # somebody may have removed it by now

    def remove(self, name: str, *, only_empty: bool = False, even_served: bool = False) -> None:
        """Remove an entry with all its versions, for every reader at once.

        Their numbers are never used again under this name: the file that remembers them stays, without the aliases. An
        export that is under way then fails with a NotFoundError. NotFoundError if there is no such entry.

        :param only_empty: ConflictError if it has a version, also one that somebody published a moment ago.
        :param even_served: also one of which a cluster said within a week that it serves a version: ConflictError
            otherwise. Aliases keep nothing here.
        """
        with self._store.exclusive():
            self._reader.state(name)  # as in add
            if not self._reader.has(name):
                known = ", ".join(self._reader.entries()) or "none"
                raise NotFoundError(f"there is no entry {name!r} in {self._store.location('')}; entries: {known}")
            if only_empty and self._reader.numbers(name):
                raise ConflictError(f"{self._store.location(name)} has versions: remove it with them, or leave it")
            self._close(name, even_served=even_served)
            self._store.remove_folder(name)
            forget_aliases(self._store, name)
        self.refresh()

    def _close(self, name: str, *, even_served: bool) -> None:
        """Remember the entry's numbers before they go, unless a cluster needs one of its versions: ConflictError."""

        def close(state: EntryState) -> EntryState:
            try:
                numbers = self._reader.numbers(name)
            except NotFoundError:
                return state  # others removed it this moment, and remembered its numbers
            if not even_served:
                refuse_served(name, needed(state, numbers))
            following = max(numbers, default=0) + 1
            return state.model_copy(update={"next_version": max(state.next_version, following)})

        change_state(self._store, name, close)

    def delete(self) -> None:
        """Remove every entry, served or not, what is remembered of them, and the folder if nothing else is in it.

        Numbers are forgotten with the repository, and not before: where this is interrupted they are still remembered.
        """
        with self._store.exclusive():
            for name in self._reader.entries():
                try:
                    self._close(name, even_served=True)
                except VerificationError:  # what is remembered is damaged, and goes too; the removal writes it anew
                    self._store.delete(state_key(name))
                    self._close(name, even_served=True)
                self._store.remove_folder(name)
            for name in self._store.children().files:
                if name.startswith(".") and name == state_key(name[1:].removesuffix(".gravswell.json")):
                    self._store.delete(name)
            if not self._store.remove_root():
                left = ", ".join((*self._store.children().folders, *self._store.children().files)[:3])
                _log.warning("%s stays: it holds %s, which is not ours", self._store.location(""), left)
        self._models = _Models(self._store, [])


class _Models(Mapping[str, Entry]):
    """Entries by name, each made when it is first asked for."""

    def __init__(self, store: Store, names: list[str]) -> None:
        self._store = store
        self._entries: dict[str, Entry | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Entry:
        entry = self._entries[name]
        if entry is None:
            entry = self._entries[name] = Entry(self._store, name)
        return entry

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"{{{', '.join(self._entries)}}}"
