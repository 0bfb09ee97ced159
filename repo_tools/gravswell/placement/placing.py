"""Wishes and devices in, groups out."""

from collections.abc import Iterable, Mapping, Sequence

from gravswell.errors import InvalidInputError
from gravswell.placement.groups import Group, Held, Wish
from gravswell.placement.layout import Layout
from gravswell.placement.notation import parse_held, parse_wish
from gravswell.placement.room import Room

Wishes = Mapping[str, int | str] | Iterable[Wish | str]
"""``{"A": 2, "B": "4x1"}``, or ``["A=2", "B=4x1"]``, or :class:`Wish` es: in the order in which they choose."""


def place(models: Wishes, devices: int, *, held: Iterable[Held | str] = ()) -> Layout:
    """Give each model consecutive groups of ``devices``, in order; ``held`` are taken already.

    Raises :class:`InvalidInputError`, with the table of who holds what, where one of them finds no room.
    """
    layout = arrange(wishes(models), devices, held=[parse_held(h) if isinstance(h, str) else h for h in held])
    if layout.refused:
        raise refusal(layout)
    return layout


def wishes(models: Wishes) -> list[Wish]:
    """What :func:`place` takes, as wishes; :class:`InvalidInputError` for what is none."""
    if isinstance(models, str):
        raise InvalidInputError(f"place takes several models, and {models!r} is one text: put it into a list")
    if isinstance(models, Mapping):
        return [parse_wish(f"{name}={asked}") for name, asked in models.items()]
    return [parse_wish(wish) if isinstance(wish, str) else wish for wish in models]


def refusal(layout: Layout) -> InvalidInputError:
    """What :func:`place` raises of a layout in which somebody is refused."""
    return InvalidInputError(
        f"{'; '.join(layout.refused.values())}. Who holds what: {layout.table}. Ask for fewer devices, or for others, "
        "or let models share theirs (,shared)"
    )


def arrange(wishes: Sequence[Wish], devices: int, *, held: Sequence[Held] = ()) -> Layout:
    """As :func:`place`, but who finds no room is :attr:`~Layout.refused`, keeps what it has, and the others go on.

    Whoever has what it asks for stays. The others choose at once, in order, if none of them loses its place by that;
    else they move one by one, to what nobody has. So to arrange what was arranged changes nothing, and a wish that is
    added at the end without a place changes nothing for the others.

    Raises :class:`InvalidInputError` for a number of devices that is none, and for ``held`` that are not among them.
    """
    if devices < 0:
        raise InvalidInputError(f"{devices} devices: a machine has 0 of them or more")
    for holder in held:
        if holder.group.end > devices:
            raise InvalidInputError(
                f"{holder.name} holds {holder.group} of {devices} devices, which are there from 0 on"
            )
    return _Arrangement(wishes, devices, held).settle()


class _Arrangement:
    """Who is where while everybody is being placed. A wish is known by its number, for names may repeat."""

    def __init__(self, wishes: Sequence[Wish], devices: int, held: Sequence[Held]) -> None:
        self._wishes, self._devices, self._before = wishes, devices, held
        self._at: dict[int, tuple[Group, ...]] = {}
        """The groups of those that are placed."""
        self._kept = {
            n: wish.now for n, wish in enumerate(wishes) if wish.now and all(g.end <= devices for g in wish.now)
        }
        """Where those are that are not placed, or not yet."""

    def settle(self) -> Layout:
        before, everybody = self._room({}), self._room(self._kept)
        for n, wish in enumerate(self._wishes):
            if n not in self._kept or not wish.is_content:
                continue
            # Who shares may stay with whom it was put: if one of those wants to be alone now, that one has to go.
            if before.admits(wish, wish.now) if wish.shared else everybody.is_alone(wish):
                self._at[n] = wish.now
        for n in self._at:
            del self._kept[n]
        while not self._all_at_once() and self._one_by_one():
            pass
        return self._layout()

    def _room(self, groups: Mapping[int, Iterable[Group]]) -> Room:
        """The devices, with what others hold and these ``groups`` of the wishes taken."""
        room = Room(self._devices, self._before)
        for n in sorted(groups):  # so that what is said of them does not depend on who was there first
            room.take(self._wishes[n].held(groups[n]))
        return room

    def _all_at_once(self) -> bool:
        """Let all that are not placed choose in order, as if none of them were anywhere; nothing happens and it is
        False where one would get nothing for what it has."""
        at, room = dict(self._at), self._room(self._at)
        for n, wish in enumerate(self._wishes):
            if n in at:
                continue
            found = room.choose(wish)
            if found is not None:
                room.take(wish.held(found))
                at[n] = found
            elif n in self._kept:
                return False
        self._at, self._kept = at, {}
        return True

    def _one_by_one(self) -> bool:
        """Move whoever finds room beside where all others are; False where nobody does. Who has nothing yet comes last:
        what others leave is not taken before those have looked at it that may want it."""
        new = [n for n in range(len(self._wishes)) if n not in self._at and n not in self._kept]
        moved = [n for n in sorted(self._kept) if self._settled(n)]
        return bool(moved or [n for n in new if self._settled(n)])

    def _settled(self, n: int) -> bool:
        """Whether ``n`` found room beside where all others are; it is there then."""
        found = self._beside(n).choose(self._wishes[n])
        if found is not None:
            self._at[n] = found
            self._kept.pop(n, None)
        return found is not None

    def _beside(self, n: int) -> Room:
        """The devices, with all taken that anybody but ``n`` has."""
        return self._room({m: groups for m, groups in (self._at | self._kept).items() if m != n})

    def _layout(self) -> Layout:
        held = list(self._before)
        placed: dict[str, tuple[Group, ...]] = {}
        refused: dict[str, str] = {}
        for n, wish in enumerate(self._wishes):
            held += wish.held(self._at.get(n, self._kept.get(n, ())))
            if n in self._at:
                placed[wish.name] = (*placed.get(wish.name, ()), *self._at[n])
            else:
                refused[wish.name] = self._beside(n).why_not(wish)
        return Layout(self._devices, tuple(held), placed, refused)
