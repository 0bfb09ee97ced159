"""Who holds what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gravswell.errors import NotFoundError
from gravswell.placement.groups import Group, Held

MOST_TOLD = 5
"""Holders of one device that a message names: a condition has room for some 1000 characters."""


@dataclass(frozen=True)
class Layout:
    """The devices of one machine, and who holds them. ``print`` shows a line for each group."""

    devices: int
    """How many there are, numbered from 0."""
    held: tuple[Held, ...]
    """Everything that is held: first what was so before, then what was placed."""
    placed: Mapping[str, tuple[Group, ...]]
    """By model: the groups that it got, in the order of its copies."""
    refused: Mapping[str, str]
    """By model that there was no room for: what it asked for, and what stands in its way."""

    def gpus(self, name: str) -> tuple[int, ...]:
        """The devices of a model that was placed, ascending, as ``instance_group.gpus`` takes them.

        NotFoundError for one that was not.
        """
        if name not in self.placed:
            raise NotFoundError(f"{name!r} is not placed; there is: {', '.join(self.placed) or 'none'}")
        return tuple(sorted(device for group in self.placed[name] for device in group.devices))

    @property
    def rows(self) -> list[tuple[Group, tuple[str, ...]]]:
        """All devices from 0 on and who holds them: those in a row that the same hold together, free ones nobody."""
        found: list[tuple[Group, tuple[str, ...]]] = []
        for device in range(self.devices):
            holders = tuple(held.name for held in self.held if device in held.group.devices)
            if found and found[-1][1] == holders:
                before = found[-1][0]
                found[-1] = (Group(before.start, before.size + 1), holders)
            else:
                found.append((Group(device), holders))
        return found

    @property
    def table(self) -> str:
        """:attr:`rows` in one line, for messages: ``0-1 A; 2-5 B and C; 6-15 free``."""
        rows = self.rows
        return "; ".join(f"{group} {told(holders)}" for group, holders in rows) if rows else "there is no device"

    def __str__(self) -> str:
        width = max((len(str(group)) for group, _ in self.rows), default=0)
        return "\n".join(f"{group!s:>{width}}  {told(holders)}" for group, holders in self.rows)


def told(holders: Sequence[str]) -> str:
    """The holders of one device in words, of many the first; nobody is ``free``."""
    if len(holders) > MOST_TOLD:
        return f"{', '.join(holders[: MOST_TOLD - 1])} and {len(holders) - MOST_TOLD + 1} others"
    *others, last = holders or ["free"]
    return f"{', '.join(others)} and {last}" if others else last
