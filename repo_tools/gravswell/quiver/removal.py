"""How versions go. Its law: what a promotion may name is never removed, on a store that can lock nothing.

1. Which versions go is decided and noted in the entry's state by one conditional write. From then on no alias is moved
   to one of them, and no alias names one: both were looked up in the state that was replaced.
2. Only then their folders are removed, oldest first.
3. The notes are taken off. They have left a mark: the state counts its writes, so a promotion that read it before all
   this is still refused.

Who dies on the way leaves notes, and the next removal that comes by completes what they say.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

from gravswell.errors import ConflictError
from gravswell.quiver.composition.holding import pipelines_of
from gravswell.quiver.layout import version_folder
from gravswell.quiver.pins import PINS_COUNT_FOR, pinned
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.state import EntryState
from gravswell.quiver.stored import write_healed
from gravswell.quiver.stores.memory import change_state


@dataclass(frozen=True, slots=True)
class Holders:
    """Who needs a version: the aliases that name it, and the clusters that said that they serve it, by name."""

    aliases: tuple[str, ...]
    clusters: tuple[str, ...]


def holders(state: EntryState, number: int, *, within: timedelta = PINS_COUNT_FOR) -> Holders:
    """Who needs version ``number`` of the entry of which ``state`` is remembered; a cluster by pins seen ``within``."""
    return Holders(
        tuple(sorted(alias for alias, target in state.aliases.items() if target == number)),
        tuple(pinned(state, within).get(number, ())),
    )


def needed(state: EntryState, numbers: Collection[int]) -> dict[int, Holders]:
    """Those of the versions that somebody needs, ascending, but for those whose removal is decided already."""
    found = {number: holders(state, number) for number in sorted(numbers) if number not in state.removing}
    return {number: held for number, held in found.items() if held.aliases or held.clusters}


def refuse_served(entry: str, held: Mapping[int, Holders]) -> None:
    """ConflictError, naming them, if clusters serve any of these versions of the entry."""
    served = [f"{', '.join(h.clusters)} serves {entry}/{number}" for number, h in held.items() if h.clusters]
    if served:
        raise ConflictError(
            f"{'; '.join(served)}: let it serve another version first; "
            f"even_served (--even-served) removes it all the same"
        )


def refuse_members(
    reader: RepositoryReader,
    entry: str,
    state: EntryState,
    numbers: Collection[int],
    *,
    going: Mapping[str, Collection[int] | None] | None = None,
) -> None:
    """ConflictError, naming them, if pipelines that stay have any of these versions of the entry as members."""
    held = pipelines_of(reader, entry, state, going=going)
    told = [f"{entry}/{n} is a member of {', '.join(held[n])}" for n in sorted(numbers) if n in held]
    if told:
        raise ConflictError(f"{'; '.join(told)}: remove that first")


def remove_versions(
    reader: RepositoryReader,
    entry: str,
    choose: Callable[[EntryState], Collection[int]],
    *,
    on_removed: Callable[[int], None] = lambda _: None,
) -> list[int]:
    """Remove the versions that ``choose`` names, and return them, ascending.

    ``choose`` is given the entry's state, and called again when that changed before its choice was noted. It looks up
    what else it needs itself, and raises to have nothing removed. Numbers that go are never used again.
    """
    chosen: list[int] = []

    def note(state: EntryState) -> EntryState:
        chosen[:] = sorted(choose(state))
        if not chosen:
            return state
        write_healed(reader, entry)
        following = max(state.next_version, chosen[-1] + 1)
        removing = tuple(sorted({*state.removing, *chosen}))
        return state.model_copy(update={"removing": removing, "next_version": following})

    change_state(reader.store, entry, note)
    for number in chosen:
        reader.store.remove_folder(version_folder(entry, number))
        on_removed(number)
    change_state(
        reader.store,
        entry,
        lambda s: s.model_copy(update={"removing": tuple(n for n in s.removing if n not in chosen)}),
    )
    return chosen


def remove_version(reader: RepositoryReader, entry: str, number: int, *, even_served: bool = False) -> None:
    """Remove one version, whatever it is. See :meth:`gravswell.quiver.entry.Entry.remove_version`."""

    def choose(state: EntryState) -> list[int]:
        if number in state.removing:
            return [number]
        reader.version(entry, number)
        held = holders(state, number)
        if held.aliases:
            raise ConflictError(f"{', '.join(held.aliases)} points at {entry}/{number}: move the alias first")
        if not even_served:
            refuse_served(entry, {number: held})
        refuse_members(reader, entry, state, [number])
        return [number]

    remove_versions(reader, entry, choose)
