"""What is remembered of an entry, changed rightly on every store: read, change, replace; again if one was faster."""

import getpass
import os
import random
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

from gravswell.errors import ConflictError, NotFoundError
from gravswell.quiver.layout import state_key
from gravswell.quiver.state import REMOVE, EntryState, Move
from gravswell.quiver.stores.base import Create, PutMode, Store, Update

_TRIES = 50
_REMOVED = "the entry was removed"


def change_state(store: Store, entry: str, change: Callable[[EntryState], EntryState]) -> EntryState:
    """Replace what is remembered of ``entry`` by what ``change`` makes of it, and return that.

    Nothing is written where both are equal. ``change`` is called again when another writer was faster, and also when a
    write arrived whose answer was lost: it must know its own work. What it looks up itself is looked up after what is
    remembered was read, so a version that it finds, and finds not being removed, stays until its change is written.
    """
    key = state_key(entry)
    for attempt in range(_TRIES):
        state, mode = read_state(store, entry)
        changed = change(state)
        if changed == state:
            return state
        changed = changed.model_copy(update={"revision": state.revision + 1})
        try:
            store.write(key, changed.to_bytes(), mode)
        except ConflictError:
            time.sleep(random.uniform(0, 0.05 * min(attempt + 1, 10)))  # noqa: S311 - spreads writers, no secret
        else:
            return changed
    raise ConflictError(f"{store.location(key)} changes too fast to be written: try again")


def remember_numbers(store: Store, entry: str, next_version: int) -> None:
    """Never again make a version of ``entry`` below ``next_version``."""
    change_state(store, entry, lambda s: s.model_copy(update={"next_version": max(s.next_version, next_version)}))


def begin_anew(store: Store, entry: str, following: int) -> int:
    """Remember that ``entry`` replaced another one, and return the first number that a version of it may have.

    That is ``following``, or a later one where an earlier was in use.
    """

    def begin(state: EntryState) -> EntryState:
        first = max(state.next_version, following)
        return state.model_copy(update={"next_version": first, "since": first})

    return change_state(store, entry, begin).next_version


def end_beginning(store: Store, entry: str, first: int) -> None:
    """Nothing is left below ``first`` of what ``entry`` replaced, unless somebody has replaced it again since."""
    change_state(store, entry, lambda s: s.model_copy(update={"since": None}) if s.since == first else s)


def forget_aliases(store: Store, entry: str) -> None:
    """Forget the names of the versions that were removed with ``entry``; what else is remembered of it stays.

    Those are the numbers that are not given again: an entry that somebody has made anew by now, and promoted in, keeps
    its own. Where anything is remembered this is a write, whatever it changes: a promotion that began before it fails.
    """
    at, by = datetime.now(UTC), whoami()

    def forget(state: EntryState) -> EntryState:
        if state == EntryState():
            return state
        for alias, number in state.aliases.items():
            if number < state.next_version:
                move = Move(alias=alias, version=None, previous=number, at=at, by=by, action=REMOVE, reason=_REMOVED)
                state = state.moved(move)
        return state.model_copy(update={"pins": {}, "removing": (), "revision": state.revision + 1})

    change_state(store, entry, forget)


def read_state(store: Store, entry: str) -> tuple[EntryState, PutMode]:
    """What is remembered of ``entry``, and how to replace exactly that."""
    key = state_key(entry)
    try:
        content = store.read(key)
    except NotFoundError:
        return EntryState(), Create()
    return EntryState.from_bytes(content.data, where=store.location(key)), Update(content.etag)


def whoami() -> str:
    """Who changes an entry where nobody says: ``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user id that has no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"
