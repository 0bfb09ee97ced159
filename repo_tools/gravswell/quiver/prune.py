"""Pruning: which versions of an entry go, and for each that stays, why. The policy; removal.py does it safely."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from gravswell.durations import span
from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver.aliases import rollback_goals
from gravswell.quiver.composition.holding import pipelines_of
from gravswell.quiver.layout import version_folder
from gravswell.quiver.manifest import MANIFEST, MemberRecord
from gravswell.quiver.pins import PINS_COUNT_FOR
from gravswell.quiver.reader import RepositoryReader, VersionInfo
from gravswell.quiver.removal import holders, remove_versions
from gravswell.quiver.state import EntryState

GRACE = timedelta(hours=24)
"""How long a version stays in any case: whoever exported it is about to promote it."""

Duration = str | timedelta
"""``30d``, ``12h``, ``1h30m``, or a timedelta."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What is to stay; a version goes only if no rule holds it. At least ``keep`` or ``older_than`` is given."""

    keep: int | None = None
    """The newest so many of the entry's own versions."""
    older_than: timedelta | None = None
    """All that are not older."""
    grace: timedelta = GRACE
    """All that are not older, by the time when they appeared in this store."""
    served: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Versions by digest, each with the names of those who serve it."""
    pins_within: timedelta = PINS_COUNT_FOR
    """What clusters said that they serve, if they said so within this time."""
    only: Collection[int] | None = None
    """Of what could go, only these go: those that somebody has seen and agreed to."""
    leaving: Mapping[str, Collection[int]] = field(default_factory=dict)
    """Versions of pipelines, by entry, that go before: they hold no members any more."""

    @classmethod
    def of(
        cls,
        keep: int | None,
        older_than: Duration | None,
        *,
        grace: Duration = GRACE,
        served: Mapping[str, Sequence[str]] | None = None,
        pins_within: Duration = PINS_COUNT_FOR,
        only: Collection[int] | None = None,
        leaving: Mapping[str, Collection[int]] | None = None,
    ) -> "Rules":
        """From what a user wrote; InvalidInputError for what cannot be meant."""
        if keep is None and older_than is None:
            raise InvalidInputError("nothing says what may go: give keep, older_than, or both to let go what is beyond")
        if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 1):
            raise InvalidInputError(f"keep={keep!r}: keep a whole number of versions, from 1 on")
        return cls(
            keep,
            None if older_than is None else _span(older_than),
            _span(grace),
            served or {},
            _span(pins_within),
            None if only is None else frozenset(only),
            leaving or {},
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one version, and why."""

    version: int
    digest: str | None
    size: int
    """Bytes of all its files."""
    created: datetime | None
    goes: bool
    reasons: tuple[str, ...]
    members: tuple[MemberRecord, ...] = ()
    """Of a pipeline."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """What was decided, and unless it was a dry run also done, for the versions of one entry, newest first."""

    entry: str
    verdicts: tuple[Verdict, ...]
    dry_run: bool

    @property
    def pipeline(self) -> bool:
        """Whether any of them is a pipeline's, and has members in other entries."""
        return any(verdict.members for verdict in self.verdicts)

    @property
    def going(self) -> list[int]:
        """The versions that go, or went, ascending."""
        return sorted(verdict.version for verdict in self.verdicts if verdict.goes)

    @property
    def freed(self) -> int:
        """Bytes of their files."""
        return sum(verdict.size for verdict in self.verdicts if verdict.goes)


def prune(
    reader: RepositoryReader,
    entry: str,
    rules: Rules,
    *,
    dry_run: bool,
    on_removed: Callable[[int], None] = lambda _: None,
) -> Pruning:
    """Decide by the rules, and unless ``dry_run`` do it. See :meth:`gravswell.quiver.entry.Entry.prune`."""
    if dry_run:
        return Pruning(entry, _judged(reader, entry, rules, reader.state(entry)[0]), dry_run)
    verdicts: tuple[Verdict, ...] = ()

    def choose(state: EntryState) -> set[int]:
        nonlocal verdicts
        verdicts = _judged(reader, entry, rules, state)
        return {*state.removing, *(verdict.version for verdict in verdicts if verdict.goes)}

    remove_versions(reader, entry, choose, on_removed=on_removed)
    return Pruning(entry, verdicts, dry_run)


def _judged(reader: RepositoryReader, entry: str, rules: Rules, state: EntryState) -> tuple[Verdict, ...]:
    """A verdict on each version, newest first. What is looked up here is looked up after ``state`` was read."""
    now = datetime.now(UTC)
    found = reader.versions(entry)
    staying = [info for info in found if info.number not in state.removing]
    whole = [info for info in staying if info.digest is not None and info.created is not None]
    ranks = {info.number: rank for rank, info in enumerate(whole)}
    held = _held(rules, state, staying, whole)
    for number, pipelines in pipelines_of(reader, entry, state, going=rules.leaving).items():
        held.setdefault(number, []).append(f"member of {', '.join(pipelines)}")
    view = reader.store.view(entry)

    def age(info: VersionInfo) -> timedelta:
        """By when it appeared here: a version that was copied from elsewhere brings an old date along."""
        try:
            files = view.walk(version_folder(entry, info.number))
        except NotFoundError:  # others remove it: what they wrote of that has us judge again
            files = []
        appeared = max((f.modified for f in files if f.path == MANIFEST), default=now)
        return now - max(appeared, info.created or now)

    def judge(info: VersionInfo) -> Verdict:
        if info.number in state.removing:
            goes, reasons = True, ["its removal was begun"]
        else:
            reasons = held.get(info.number, []) + _young(rules, ranks.get(info.number), info, age)
            goes = not reasons
            if goes and rules.only is not None and info.number not in rules.only:
                goes, reasons = False, ["nobody agreed to its removal"]
        told = tuple(reasons) or (_beyond(rules),)
        return Verdict(info.number, info.digest, info.size, info.created, goes, told, info.members)

    return tuple(judge(info) for info in found)


def _held(
    rules: Rules, state: EntryState, staying: Sequence[VersionInfo], whole: Sequence[VersionInfo]
) -> dict[int, list[str]]:
    """By version: what holds it, whatever its age."""
    held: dict[int, list[str]] = {info.number: [] for info in staying}

    def hold(number: int, reason: str) -> None:
        held.setdefault(number, []).append(reason)

    for info in staying[:1]:
        hold(info.number, "the newest")
    for info in whole[:1]:
        if info != staying[0]:
            hold(info.number, "the newest of ours")
    needed = {info.number: holders(state, info.number, within=rules.pins_within) for info in staying}
    for number, needs in needed.items():
        for alias in needs.aliases:
            hold(number, alias)
    for alias, number in sorted(rollback_goals(state).items()):
        hold(number, f"rollback of {alias} goes there")
    for info in staying:
        servers = [*rules.served.get(info.digest or "", ()), *needed[info.number].clusters]
        if servers:
            hold(info.number, f"served by {', '.join(dict.fromkeys(servers))}")
        if info.digest is None:
            hold(info.number, "not ours: something else wrote it")
        elif info.created is None:
            hold(info.number, "its manifest is damaged: look at it with verify")
    return held


def _young(rules: Rules, rank: int | None, info: VersionInfo, age: Callable[[VersionInfo], timedelta]) -> list[str]:
    """What holds it for its place or its age."""
    if rank is None:
        return []
    if rules.keep is not None and rank < rules.keep:
        return [f"among the newest {rules.keep}"]
    for limit in sorted({rules.grace, rules.older_than or rules.grace}):
        if age(info) < limit:
            return [f"younger than {_words(limit)}"]
    return []


def _beyond(rules: Rules) -> str:
    parts = [f"beyond the newest {rules.keep}"] if rules.keep is not None else []
    if rules.older_than is not None:
        parts.append(f"older than {_words(rules.older_than)}")
    return ", ".join(parts)


def _span(given: Duration) -> timedelta:
    length = span(given) if isinstance(given, str) else given
    if length < timedelta(0):
        raise InvalidInputError(f"{given} is no length of time: it is negative")
    return length


def _words(length: timedelta) -> str:
    for unit, word in ((timedelta(days=1), "d"), (timedelta(hours=1), "h"), (timedelta(minutes=1), "m")):
        if length and not length % unit:
            return f"{length // unit}{word}"
    return f"{length.total_seconds():g}s"
