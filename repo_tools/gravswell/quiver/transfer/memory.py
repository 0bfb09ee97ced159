"""What is remembered of an entry, taken along: aliases, their history, the next number."""

from datetime import UTC, datetime

from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.state import EntryState, Move
from gravswell.quiver.stores.memory import change_state, whoami

_REASON = "as in the repository that it was copied from"


def carry_state(source: RepositoryReader, destination: RepositoryReader, entry: str, name: str, *, whole: bool) -> None:
    """Have the destination's aliases name what the source's do, as far as it has those versions.

    Where nothing was remembered there yet the history comes along as it is; else each move is one of its own history.
    ``whole``: every version is there, so the next export gets the number that it would get in the source.
    """
    given = source.state(entry)[0]
    at, by = datetime.now(UTC), whoami()

    def change(state: EntryState) -> EntryState:
        present = {v.number for v in destination.versions(name)} - set(state.removing)
        wanted = {alias: number for alias, number in given.aliases.items() if number in present}
        changed = state
        if not state.aliases and not state.history:
            history = tuple(move for move in given.history if move.alias in wanted)
            changed = state.model_copy(update={"aliases": wanted, "history": history})
        for alias, number in wanted.items():
            previous = changed.aliases.get(alias)
            if previous != number:
                move = Move(alias=alias, version=number, previous=previous, at=at, by=by, reason=_REASON)
                changed = changed.moved(move)
        following = max(state.next_version, given.next_version) if whole else state.next_version
        return changed.model_copy(update={"next_version": following})

    change_state(destination.store, name, change)
