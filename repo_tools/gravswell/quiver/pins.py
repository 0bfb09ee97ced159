"""Pins: what clusters serve of an entry, remembered beside its aliases, so that pruning needs no way into a cluster."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.state import EntryState, Pin
from gravswell.quiver.stores.memory import change_state

PINS_COUNT_FOR = timedelta(days=7)
"""How long a pin holds its versions after it was last seen: a cluster that is gone holds nothing for ever."""

PINS_RENEWED = timedelta(hours=1)
"""How often a pin is written again while nothing changes."""

_FORGOTTEN = timedelta(days=90)
"""The age at which a pin is no longer kept at all."""


def pin(reader: RepositoryReader, entry: str, cluster: str, versions: Collection[int]) -> None:
    """Remember that ``cluster`` serves just these ``versions`` of the entry now; none: forget the cluster.

    Written only if that is news, or if it was last said :data:`PINS_RENEWED` ago.
    """
    now = datetime.now(UTC)
    wanted = Pin(versions=tuple(sorted(set(versions))), seen=now)

    def change(state: EntryState) -> EntryState:
        present = state.pins.get(cluster)
        if present is not None and present.versions == wanted.versions and abs(now - present.seen) < PINS_RENEWED:
            return state
        others = {n: known for n, known in state.pins.items() if n != cluster and now - known.seen < _FORGOTTEN}
        return state.model_copy(update={"pins": {**others, cluster: wanted} if wanted.versions else others})

    change_state(reader.store, entry, change)


def pinned(state: EntryState, within: timedelta) -> dict[int, list[str]]:
    """The versions that clusters serve, each with the clusters' names, by pins that were seen ``within`` so long."""
    now = datetime.now(UTC)
    found: dict[int, list[str]] = {}
    for cluster, known in sorted(state.pins.items()):
        if now - known.seen <= within:
            for number in known.versions:
                found.setdefault(number, []).append(cluster)
    return found
