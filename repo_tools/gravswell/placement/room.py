"""The devices and who is on each: what is free for whom, and why something is not."""

from collections.abc import Iterable

from gravswell.placement.groups import Group, Held, Wish
from gravswell.placement.layout import told


class Room:
    """``devices`` of them, of which ``held`` are taken."""

    def __init__(self, devices: int, held: Iterable[Held]) -> None:
        self._on: list[list[Held]] = [[] for _ in range(devices)]
        self.take(held)

    def take(self, held: Iterable[Held]) -> None:
        """Note what somebody holds; it is among the devices."""
        for holder in held:
            for device in holder.group.devices:
                self._on[device].append(holder)

    def is_alone(self, wish: Wish) -> bool:
        """Whether nobody else is where ``wish`` is now, its own holdings being among those that are taken."""
        return all(len(self._on[device]) == 1 for group in wish.now for device in group.devices)

    def admits(self, wish: Wish, groups: Iterable[Group]) -> bool:
        """Whether all of ``groups`` are there and nobody keeps ``wish`` out of them."""
        return all(group.end <= len(self._on) and not self._holders(wish, group) for group in groups)

    def choose(self, wish: Wish) -> tuple[Group, ...] | None:
        """The groups for ``wish`` beside what is taken; None where there is no room for all of them."""
        if wish.start is not None:
            return wish.asked if self.admits(wish, wish.asked) else None
        found: list[Group] = []
        for _ in range(wish.copies):
            places = [Group(start, wish.devices) for start in range(len(self._on) - wish.devices + 1)]
            free = [p for p in places if not self._holders(wish, p) and not any(p.overlaps(g) for g in found)]
            if not free:
                return None
            found.append(min(free, key=lambda place: (self._sharers(place), place.start)))
        return tuple(found)

    def why_not(self, wish: Wish) -> str:
        """What ``wish`` asks for, and what stands in its way."""
        total = len(self._on)
        if wish.start is not None:
            asked = Group(wish.start, wish.devices * wish.copies)
            if asked.end > total:
                return f"{wish.name} asks for {_named(asked)}, and there are {total} from 0 on"
            holders = self._holders(wish, asked)
            return (
                f"{wish.name} asks for {_named(asked)}, of which {told(holders)} hold{'s' * (len(holders) == 1)} some"
            )
        free = sum(not self._holders(wish, Group(device)) for device in range(total))
        asked_for = "1 device" if wish.devices == 1 else f"{wish.devices} devices in a row"
        times = f"{wish.copies} times " if wish.copies > 1 else ""
        return f"{wish.name} asks {times}for {asked_for}, and {free} of {total} are {'left' if wish.shared else 'free'}"

    def _holders(self, wish: Wish, group: Group) -> list[str]:
        """Who is on devices of ``group`` and keeps ``wish`` out, each once."""
        return list(dict.fromkeys(h.name for device in group.devices for h in self._on[device] if not wish.may_join(h)))

    def _sharers(self, group: Group) -> int:
        """The most that are on one device of ``group``."""
        return max(len(self._on[device]) for device in group.devices)


def _named(group: Group) -> str:
    return f"device{'s' * (group.size > 1)} {group}"
