"""What is remembered of an entry, taken along: aliases, their history, the next number.

A number alone says nothing: the destination may have another version under it. So only versions that were looked at,
and are the source's to the byte, are named.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.state import EntryState, Move
from gravswell.quiver.stores.memory import change_state, whoami

_REASON = "as in the repository that it was copied from"


@dataclass(frozen=True, slots=True)
class AliasMove:
    """An alias in the destination that comes to name another version there."""

    name: str
    """The entry's, in the destination."""
    alias: str
    version: int
    previous: int | None
    """None for an alias that is not there yet."""

    def __str__(self) -> str:
        came = "" if self.previous is None else f" from {self.name}/{self.previous}"
        return f"{self.alias} to {self.name}/{self.version}{came}"


@dataclass(frozen=True, slots=True)
class Remembered:
    """What one entry of the destination will remember."""

    name: str
    moves: tuple[AliasMove, ...]
    history: tuple[Move, ...]
    """Taken as it is where nothing is remembered of aliases there; else each move is one of that history."""
    next_version: int
    """The next export gets no number below."""


def plan_remembered(
    name: str, given: EntryState, here: EntryState, *, same: Collection[int], there: Collection[int], whole: bool
) -> Remembered:
    """What the entry called ``name`` would remember of the source's state ``given``, where it remembers ``here``.

    :param same: versions that are, or will be, the source's in the destination.
    :param there: versions that are in the destination.
    :param whole: every version of the source was looked at, so the next export gets the number that it would get there.
    """
    wanted = {alias: number for alias, number in sorted(given.aliases.items()) if number in same}
    moves = tuple(
        AliasMove(name, alias, number, here.aliases.get(alias))
        for alias, number in wanted.items()
        if here.aliases.get(alias) != number
    )

    def told(number: int | None) -> bool:
        """Whether a move may name it: what is gone from a whole entry is gone for good, and a later rollback knows."""
        return number is None or number in same or (whole and number not in there)

    history = tuple(
        move if told(move.previous) else move.model_copy(update={"previous": None})
        for move in given.history
        if move.alias in wanted and told(move.version)
    )
    return Remembered(name, moves, history, given.next_version if whole else 1)


def carry(destination: RepositoryReader, planned: Remembered) -> Remembered:
    """Have the entry remember it, and return what of it was done.

    An alias stays where somebody else has moved it since, or where its version is gone by now.
    """
    at, by = datetime.now(UTC), whoami()

    def change(state: EntryState) -> EntryState:
        present = {v.number for v in destination.versions(planned.name)} - set(state.removing)
        moves = [m for m in planned.moves if m.version in present and state.aliases.get(m.alias) == m.previous]
        changed = state
        if not state.aliases and not state.history:
            aliases = {move.alias: move.version for move in moves}
            history = tuple(move for move in planned.history if move.alias in aliases)
            changed = changed.model_copy(update={"aliases": aliases, "history": history})
        else:
            for m in moves:
                move = Move(alias=m.alias, version=m.version, previous=m.previous, at=at, by=by, reason=_REASON)
                changed = changed.moved(move)
        return changed.model_copy(update={"next_version": max(state.next_version, planned.next_version)})

    aliases = change_state(destination.store, planned.name, change).aliases
    done = tuple(move for move in planned.moves if aliases.get(move.alias) == move.version)
    return Remembered(planned.name, done, planned.history, planned.next_version)
