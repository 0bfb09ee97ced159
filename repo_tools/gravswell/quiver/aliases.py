"""Aliases: names for versions, moved by compare-and-swap, with a memory of every move. Its law: no alias ever dangles.

That needs no lock. A removal first notes in the entry's state which versions go (:mod:`gravswell.quiver.removal`), and
a move is written into the same state only if nobody has written there since it was read, before it was looked whether
the version exists and stays. So of a promotion and a removal at the same time exactly one is refused.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from gravswell.errors import ConflictError, InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.fetching import Progress
from gravswell.quiver.layout import check_version, version_folder
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.state import PROMOTE, REMOVE, ROLLBACK, EntryState, Move
from gravswell.quiver.stores.memory import change_state, whoami

Expected = int | None | Literal["any"]
"""Where an alias must be for a move to be made: at this version, nowhere (None), or anywhere."""

LATEST = "latest"
"""No alias: everywhere the word for the newest version."""

_ALIAS = re.compile(r"[a-z][a-z0-9-]{0,62}")
_MOST = 100
_TEXT = 500


def is_alias(text: str) -> bool:
    """Whether a version may bear the name ``text``."""
    return text != LATEST and _ALIAS.fullmatch(text) is not None


def check_alias(alias: str) -> str:
    """Return ``alias`` if a version may bear it, else raise :class:`InvalidInputError`."""
    if alias == LATEST:
        raise InvalidInputError(f"{LATEST!r} is no alias: it always names the newest version")
    if not is_alias(alias):
        raise InvalidInputError(
            f"{alias!r} is no alias: write up to 63 small letters, digits and '-', beginning with a letter: champion"
        )
    return alias


def promote(
    reader: RepositoryReader,
    entry: str,
    number: int,
    alias: str,
    *,
    expect: Expected = "any",
    verify: bool = True,
    reason: str = "",
    by: str | None = None,
    progress: Progress | None = None,
) -> Move | None:
    """Move ``alias`` to version ``number``. See :meth:`gravswell.quiver.entry.Entry.promote`."""
    check_alias(alias)
    check_version(number)
    require = _Requirements(reader, entry, verify=verify, progress=progress)

    def move(state: EntryState) -> tuple[int, str] | None:
        present = state.aliases.get(alias)
        if present == number:
            return None
        _check_expected(entry, state, alias, expect)
        if present is None and len(state.aliases) >= _MOST:
            raise InvalidInputError(f"{entry} has {_MOST} aliases already: take one away with unalias first")
        require(state, number)
        return number, PROMOTE

    return _moved(reader, entry, alias, move, reason=reason, by=by)


def rollback(
    reader: RepositoryReader,
    entry: str,
    alias: str,
    *,
    steps: int = 1,
    to: int | None = None,
    expect: Expected = "any",
    verify: bool = False,
    reason: str = "",
    by: str | None = None,
    progress: Progress | None = None,
) -> Move:
    """Move ``alias`` back to where it was. See :meth:`gravswell.quiver.entry.Entry.rollback`."""
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidInputError(f"steps={steps!r}: a rollback goes back a whole number of moves, from 1 on")
    if to is not None and steps != 1:
        raise InvalidInputError("a rollback takes steps or to, not both")
    require = _Requirements(reader, entry, verify=verify, progress=progress)

    def move(state: EntryState) -> tuple[int, str]:
        trail = state.trail(alias)
        if not trail:
            raise _no_alias(entry, state, alias)
        _check_expected(entry, state, alias, expect)
        before = trail[:-1]
        was = ", ".join(map(str, before)) or "nowhere"
        if to is not None and to not in before:
            raise NotFoundError(
                f"{alias} of {entry} is at {trail[-1]} and was at {was} before, not at {to}; promote moves it anywhere"
            )
        if to is None and len(before) < steps:
            raise NotFoundError(
                f"{alias} of {entry} is at {trail[-1]} and was {'at ' if before else ''}{was} before: it cannot go "
                f"back {steps} {'move' if steps == 1 else 'moves'}; promote moves it anywhere"
            )
        goal = trail[-1 - steps] if to is None else to
        try:
            require(state, goal)
        except (NotFoundError, ConflictError) as error:
            earlier = [n for n in dict.fromkeys(reversed(before)) if n != goal]
            further = f"to={earlier[0]} goes further back" if earlier else "promote moves it to another one"
            raise type(error)(f"{alias} cannot go back to {goal}: {error}; {further}") from None
        return goal, ROLLBACK

    made = _moved(reader, entry, alias, move, reason=reason, by=by)
    assert made is not None, "a rollback always moves, or raises"
    return made


def unalias(
    reader: RepositoryReader,
    entry: str,
    alias: str,
    *,
    expect: Expected = "any",
    reason: str = "",
    by: str | None = None,
) -> Move:
    """Take ``alias`` away. See :meth:`gravswell.quiver.entry.Entry.unalias`."""
    reader.numbers(entry)  # says so where there is no such entry

    def move(state: EntryState) -> tuple[None, str]:
        if alias not in state.aliases:
            raise _no_alias(entry, state, alias)
        _check_expected(entry, state, alias, expect)
        return None, REMOVE

    made = _moved(reader, entry, alias, move, reason=reason, by=by)
    assert made is not None, "a removal always moves, or raises"
    return made


def history(reader: RepositoryReader, entry: str, alias: str | None = None) -> list[Move]:
    """The moves that are remembered of ``alias``, or of every alias, oldest first.

    NotFoundError for an alias that there is not, and of which no move is remembered.
    """
    reader.numbers(entry)
    state, _ = reader.state(entry)
    moves = [move for move in state.history if alias in (None, move.alias)]
    if alias is not None and not moves and alias not in state.aliases:
        raise _no_alias(entry, state, alias)
    return moves


def rollback_goals(state: EntryState) -> dict[str, int]:
    """For each alias that can go back: the version that one rollback leads to."""
    trails = {alias: state.trail(alias) for alias in state.aliases}
    return {alias: trail[-2] for alias, trail in trails.items() if len(trail) > 1}


class _Requirements:
    """What a version must be to get a name. Hashes are checked once, however often the write is tried again."""

    def __init__(self, reader: RepositoryReader, entry: str, *, verify: bool, progress: Progress | None) -> None:
        self._reader, self._entry = reader, entry
        self._verify, self._progress = verify, progress
        self._checked: set[int] = set()

    def __call__(self, state: EntryState, number: int) -> None:
        """NotFoundError, ConflictError or VerificationError if ``number`` is not to be named."""
        if number in state.removing:
            raise ConflictError(
                f"{self._entry}/{number} is being removed; if that was interrupted, removing it again completes it"
            )
        info = self._reader.version(self._entry, number)  # after the state was read: see the module
        if not self._verify or number in self._checked:
            return
        where = self._reader.store.location(version_folder(self._entry, number))
        if info.digest is None:
            raise VerificationError(
                f"{where} has no manifest, so nothing of it can be verified: something else wrote it; "
                f"export the model, or promote it without verification"
            )
        self._reader.check(self._entry, number, progress=self._progress)
        self._checked.add(number)


def _moved(
    reader: RepositoryReader,
    entry: str,
    alias: str,
    decide: Callable[[EntryState], tuple[int | None, str] | None],
    *,
    reason: str,
    by: str | None,
) -> Move | None:
    """Make and remember the move that ``decide`` wants: where to, and what it is called; None where it wants none."""
    at, who = datetime.now(UTC), _line("by", by) if by else whoami()
    _line("reason", reason)

    def own(state: EntryState) -> Move | None:
        """Our move, which an earlier try may have made though its answer was lost."""
        return next((m for m in state.history if (m.alias, m.at, m.by) == (alias, at, who)), None)

    def change(state: EntryState) -> EntryState:
        wanted = None if own(state) else decide(state)
        if wanted is None:
            return state
        version, action = wanted
        previous = state.aliases.get(alias)
        return state.moved(
            Move(alias=alias, version=version, previous=previous, at=at, by=who, action=action, reason=reason)
        )

    return own(change_state(reader.store, entry, change))


def _check_expected(entry: str, state: EntryState, alias: str, expect: Expected) -> None:
    present = state.aliases.get(alias)
    if expect in ("any", present):
        return
    move = state.last_move(alias)
    verb = "took it away" if present is None else "moved it there"
    told = f": {move.by} {verb} on {move.at:%Y-%m-%d at %H:%M:%S} UTC" if move and move.version == present else ""
    why = f" ({move.reason})" if told and move and move.reason else ""
    wanted = "it should not exist" if expect is None else f"it should be at {expect}"
    raise ConflictError(
        f"{alias} of {entry} {'does not exist' if present is None else f'is at {present}'}, and {wanted}{told}{why}; "
        f"look at its history, and repeat with what you expect now"
    )


def _no_alias(entry: str, state: EntryState, alias: str) -> NotFoundError:
    known = ", ".join(f"{name} ({number})" for name, number in sorted(state.aliases.items())) or "none"
    move = state.last_move(alias)
    gone = f" any more: {move.by} took it away from {move.previous} on {move.at:%Y-%m-%d}" if move else ""
    return NotFoundError(f"{entry} has no alias {alias!r}{gone}; its aliases: {known}; promote makes one")


def _line(what: str, text: str) -> str:
    if len(text) > _TEXT or not text.isprintable():
        raise InvalidInputError(f"{what}={text[:40]!r}…: write one line of at most {_TEXT} characters")
    return text
