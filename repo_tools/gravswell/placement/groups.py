"""What is asked for, and what is held."""

from collections.abc import Iterable
from dataclasses import dataclass

from gravswell.errors import InvalidInputError


@dataclass(frozen=True, order=True)
class Group:
    """Devices in a row: ``size`` of them from ``start`` on. As text ``3`` or ``2-5``."""

    start: int
    size: int = 1

    @property
    def devices(self) -> range:
        """The devices, ascending."""
        return range(self.start, self.end)

    @property
    def end(self) -> int:
        """The first device behind it."""
        return self.start + self.size

    def overlaps(self, other: "Group") -> bool:
        """Whether some device is in both."""
        return self.start < other.end and other.start < self.end

    def __str__(self) -> str:
        return str(self.start) if self.size == 1 else f"{self.start}-{self.end - 1}"


def groups_of(devices: Iterable[int]) -> tuple[Group, ...]:
    """The devices as the fewest groups, ascending: ``0, 1, 5`` is ``0-1`` and ``5``."""
    found: list[Group] = []
    for device in sorted(set(devices)):
        if found and device == found[-1].start + found[-1].size:
            found[-1] = Group(found[-1].start, found[-1].size + 1)
        else:
            found.append(Group(device))
    return tuple(found)


@dataclass(frozen=True)
class Wish:
    """What one model asks for. Several wishes of one name are several groups of one model, none on another's devices.

    Raises :class:`InvalidInputError` for what no machine could grant.
    """

    name: str
    devices: int = 1
    """Devices of each copy, in a row."""
    copies: int = 1
    """Groups of that size. Only a model of one device is copied so: ``4x1``."""
    start: int | None = None
    """The first copy's first device; the others follow in a row. None: wherever there is room."""
    shared: bool = False
    """Its devices may be held by others that share, too: they run side by side there."""
    now: tuple[Group, ...] = ()
    """Where it is already; it stays there while that is what it asks for, or as long as there is nothing else."""

    def __post_init__(self) -> None:
        if self.devices < 1 or self.copies < 1 or (self.start or 0) < 0:
            raise InvalidInputError(
                f"{self.name}: {self.copies}x{self.devices} from device {self.start or 0} on is nothing to place: "
                "devices and copies are whole numbers from 1 on, and the first device is 0"
            )
        if self.copies > 1 and self.devices > 1:
            raise InvalidInputError(
                f"{self.name}: {self.copies}x{self.devices} copies a model of {self.devices} devices, and only a model "
                f"of one device is copied, as {self.copies}x1; for {self.copies} groups of {self.devices} name it "
                f"{self.copies} times, each with {self.devices}"
            )

    @property
    def is_content(self) -> bool:
        """Whether ``now`` is of the form that is asked for; not whether others are there too."""
        if self.start is not None:
            return self.now == self.asked
        return [group.size for group in self.now] == [self.devices] * self.copies

    @property
    def asked(self) -> tuple[Group, ...]:
        """The groups that ``start`` asks for."""
        first = self.start or 0
        return tuple(Group(first + copy * self.devices, self.devices) for copy in range(self.copies))

    def held(self, groups: Iterable[Group]) -> list["Held"]:
        """What holding ``groups`` means to others."""
        return [Held(self.name, group, self.shared) for group in groups]

    def may_join(self, holder: "Held") -> bool:
        """Whether the devices of ``holder`` may become this model's too."""
        return self.shared and holder.shared and holder.name != self.name


@dataclass(frozen=True)
class Held:
    """Devices that somebody holds: a model, or another process on the machine."""

    name: str
    group: Group
    shared: bool = False
    """Others that share may hold them too."""
