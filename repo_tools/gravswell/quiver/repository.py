"""A repository: a folder of entries that Triton can serve as it stands."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from gravswell.errors import ConflictError, GravswellError, InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.disk import refusals_told
from gravswell.quiver.entry import Entry, new_config
from gravswell.quiver.layout import CONFIG, check_name, is_state_key, state_key
from gravswell.quiver.live import Config
from gravswell.quiver.platform import Platform
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.removal import Holders, needed, refuse_members, refuse_served
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
        self._models = _Models(self._reader)
        if not self._reader.is_one() and self._strangers():
            with store.exclusive():  # in which no entry comes or goes while we look again
                strangers = self._strangers()
            if strangers:
                held = ", ".join(strangers[:3]) + ("…" if len(strangers) > 3 else "")
                raise InvalidInputError(
                    f"{store.location('')} is no model repository: it holds {held} and no entry with a {CONFIG} "
                    f"or a version; name another folder"
                )

    def _strangers(self) -> list[str]:
        children = self._store.children()
        held = [name for name in (*children.folders, *children.files) if not name.startswith(".")]
        return held if held and not self._reader.is_one() else []

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
    def reader(self) -> RepositoryReader:
        """What looks into it, version by version, and changes nothing."""
        return self._reader

    @property
    def models(self) -> Mapping[str, Entry]:
        """The entries by name.

        All of them as they were when their names were first asked for, or last refreshed; where only one name is asked
        for, before that, only that entry is looked at, and a bucket with thousands is not listed for it.
        """
        return self._models

    def refresh(self) -> None:
        """Take up what others added and removed."""
        self._models = _Models(self._reader)

    def configs(self, names: Iterable[str] | None = None) -> dict[str, Config]:
        """The configurations of these entries, of all by default: each is ``models[name].config``.

        They are read several at a time where that is a bucket. KeyError for a name that no entry has, NotFoundError for
        an entry that others remove meanwhile, InvalidInputError for a file that is no configuration.
        """
        wanted = list(self.models if names is None else names)
        found = self._store.in_parallel(lambda name: self.models[name].config, wanted)
        return dict(zip(wanted, found, strict=True))

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
        return self._models.added(name)

    @contextmanager
    def present(self, name: str, make: Callable[[], Entry]) -> Iterator[Entry]:
        """The entry, which ``make`` makes if there is none.

        One that was made for this goes again where the block fails, unless somebody else has exported to it.
        """
        if name in self.models:
            yield self.models[name]
            return
        entry = make()
        try:
            yield entry
        except BaseException:
            with suppress(GravswellError):  # the error in hand says more
                self.remove(name, only_empty=True)
            raise

    def remove(self, name: str, *, only_empty: bool = False, even_served: bool = False) -> None:
        """Remove an entry with all its versions, for every reader at once.

        Their numbers are never used again under this name: the file that remembers them stays, without the aliases. An
        export that is under way then fails with a NotFoundError. NotFoundError if there is no such entry.

        :param only_empty: ConflictError if it has a version, also one that somebody published a moment ago.
        :param even_served: also one of which a cluster said within a week that it serves a version: ConflictError
            otherwise. Aliases keep nothing here; a pipeline of another entry keeps its members always.
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
        self._models.removed(name)

    def _close(self, name: str, *, even_served: bool, everything: bool = False) -> None:
        """Remember the entry's numbers before they go. ConflictError if a cluster needs one of its versions, or, unless
        ``everything`` goes, a pipeline does.
        """

        def close(state: EntryState) -> EntryState:
            try:
                numbers = self._reader.numbers(name)
            except NotFoundError:
                return state  # others removed it this moment, and remembered its numbers
            if not even_served:
                refuse_served(name, needed(state, numbers))
            if not everything:
                refuse_members(self._reader, name, state, numbers, going={name: None})
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
                    self._close(name, even_served=True, everything=True)
                except VerificationError:  # what is remembered is damaged, and goes too; the removal writes it anew
                    self._store.delete(state_key(name))
                    self._close(name, even_served=True, everything=True)
                self._store.remove_folder(name)
            for name in self._store.children().files:
                if is_state_key(name):
                    self._store.delete(name)
            if not self._store.remove_root():
                left = ", ".join((*self._store.children().folders, *self._store.children().files)[:3])
                _log.warning("%s stays: it holds %s, which is not ours", self._store.location(""), left)
        self._models = _Models(self._reader, [])


class _Models(Mapping[str, Entry]):
    """Entries by name, each made when it is first asked for; their names are listed when they are."""

    def __init__(self, reader: RepositoryReader, names: list[str] | None = None) -> None:
        self._reader = reader
        self._names = None if names is None else set(names)
        self._made: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        if name not in self:
            raise KeyError(name)
        return self._made.setdefault(name, Entry(self._reader.store, name))

    def __contains__(self, name: object) -> bool:
        if self._names is not None:
            return name in self._names
        return name in self._made or (isinstance(name, str) and self._reader.has(name))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._listed()))

    def __len__(self) -> int:
        return len(self._listed())

    def __repr__(self) -> str:
        return f"{{{', '.join(self)}}}"

    def added(self, name: str) -> Entry:
        """Take up an entry that we made, and return it."""
        if self._names is not None:
            self._names.add(name)
        self._made[name] = entry = Entry(self._reader.store, name)
        return entry

    def removed(self, name: str) -> None:
        """Forget one that we removed."""
        if self._names is not None:
            self._names.discard(name)
        self._made.pop(name, None)

    def _listed(self) -> set[str]:
        if self._names is None:
            self._names = set(self._reader.entries())
        return self._names
