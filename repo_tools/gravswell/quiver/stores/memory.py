"""What is remembered of an entry, changed rightly on every store: read, change, replace; again if one was faster."""

import random
import time
from collections.abc import Callable

from gravswell.errors import ConflictError, NotFoundError
from gravswell.quiver.layout import state_key
from gravswell.quiver.state import EntryState
from gravswell.quiver.stores.base import Create, PutMode, Store, Update

_TRIES = 50


def change_state(store: Store, entry: str, change: Callable[[EntryState], EntryState]) -> None:
    """Replace what is remembered of ``entry`` by what ``change`` makes of it, and write nothing where that is equal."""
    key = state_key(entry)
    for attempt in range(_TRIES):
        state, mode = read_state(store, entry)
        changed = change(state)
        if changed == state:
            return
        try:
            store.write(key, changed.to_bytes(), mode)
        except ConflictError:
            time.sleep(random.uniform(0, 0.05 * min(attempt + 1, 10)))  # noqa: S311 - spreads writers, no secret
        else:
            return
    raise ConflictError(f"{store.location(key)} changes too fast to be written: try again")


def remember_numbers(store: Store, entry: str, next_version: int) -> None:
    """Never again make a version of ``entry`` below ``next_version``."""
    change_state(store, entry, lambda s: s.model_copy(update={"next_version": max(s.next_version, next_version)}))


def forget_aliases(store: Store, entry: str) -> None:
    """Forget the names of versions that are gone; what else is remembered of ``entry`` stays."""
    change_state(store, entry, lambda s: s.model_copy(update={"aliases": {}}))


def read_state(store: Store, entry: str) -> tuple[EntryState, PutMode]:
    """What is remembered of ``entry``, and how to replace exactly that."""
    key = state_key(entry)
    try:
        content = store.read(key)
    except NotFoundError:
        return EntryState(), Create()
    return EntryState.from_bytes(content.data, where=store.location(key)), Update(content.etag)
