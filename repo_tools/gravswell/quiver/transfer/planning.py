"""What a transfer would do, and whether it may: decided from both listings, before anything moves."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from gravswell.errors import ConflictError, InvalidInputError, NotFoundError, VerificationError
from gravswell.quiver.composition.holding import pipelines_of
from gravswell.quiver.config import ModelConfig
from gravswell.quiver.layout import check_version
from gravswell.quiver.reader import RepositoryReader, VersionInfo
from gravswell.quiver.removal import needed
from gravswell.quiver.signature import describe
from gravswell.quiver.state import EntryState
from gravswell.quiver.transfer.remembered import AliasMove, Remembered, plan_remembered

Action = Literal["copy", "same", "skip", "delete"]

_UNVERIFIED = "unverified: `gravswell import` verifies it"


@dataclass(frozen=True, slots=True)
class Step:
    """One version, or with number 0 a whole entry.

    ``copy`` moves it; ``same`` is there already, byte for byte; ``skip`` leaves it, for its ``reason``; ``delete`` is
    no longer in the source. A whole entry is deleted after its versions, and only if no other has come into it.
    """

    action: Action
    entry: str
    """Its name in the source; in the destination for ``delete``."""
    name: str
    """Its name in the destination."""
    number: int
    size: int = 0
    digest: str | None = None
    """The source's; the destination's for ``delete``."""
    reason: str = ""
    """Why it is skipped."""

    def __str__(self) -> str:
        what = self.entry if not self.number else f"{self.entry}/{self.number}"
        return what if self.name == self.entry else f"{what} as {self.name}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps in their order: entries by name, versions ascending, what goes last."""

    steps: tuple[Step, ...]
    remembered: tuple[Remembered, ...] = ()
    """What the entries will remember, where their state is taken along."""

    def of(self, action: Action) -> list[Step]:
        """The steps of one kind."""
        return [step for step in self.steps if step.action == action]

    @property
    def moves(self) -> list[AliasMove]:
        """Aliases that come to name another version."""
        return [move for remembered in self.remembered for move in remembered.moves]

    @property
    def size(self) -> int:
        """Bytes to move."""
        return sum(step.size for step in self.of("copy"))


Wanted = Mapping[str, Collection[int] | None]
"""Entries of the source, and the versions of each; None for all."""


def _versions(source: RepositoryReader, entry: str) -> dict[int, VersionInfo]:
    return {info.number: info for info in source.versions(entry)}


def _brought(
    versions: Mapping[str, Mapping[int, VersionInfo]],
    destination: RepositoryReader | None,
    wanted: Wanted,
    rename: Mapping[str, str],
) -> dict[str, set[int]]:
    """The members of those pipelines among the ``wanted`` that come or are there, as far as they are not wanted
    themselves. Those of a version that is skipped stay: what was pruned there went with its members.

    :param versions: those that the source has of each entry that is wanted.
    """
    found: dict[str, set[int]] = {}
    for entry, numbers in wanted.items():
        pipelines = [v for n, v in versions[entry].items() if v.members and (numbers is None or n in numbers)]
        if not pipelines:
            continue
        name = rename.get(entry, entry)
        there, here = _held(destination, name, present=destination is not None and destination.has(name))
        for info in pipelines:
            step, _ = _judge(
                entry,
                name,
                info,
                destination=destination,
                there=there,
                floor=here.next_version,
                named=numbers is not None,
            )
            for member in info.members if step.action != "skip" else ():
                own = wanted.get(member.model, ())
                if own is not None and member.version not in own:
                    found.setdefault(member.model, set()).add(member.version)
    return found


def plan_transfer(
    source: RepositoryReader,
    destination: RepositoryReader | None,
    *,
    wanted: Wanted,
    rename: Mapping[str, str],
    delete: bool,
    delete_entries: bool,
    state: bool,
) -> Plan:
    """Compare the two. ConflictError names every version that is in the way, and those that ``delete`` may not take.

    Pipelines bring their members, which arrive before them and go after them.

    :param destination: None where there is no repository yet.
    :param rename: names in the destination, where they differ.
    :param delete: versions of those entries that the source does not have go.
    :param delete_entries: entries that are not wanted go.
    :param state: aliases, their history and the next number go along.
    """
    steps: list[Step] = []
    conflicts: list[str] = []
    remembered: list[Remembered] = []
    # before the versions: the next number must not pass over one that is exported from now on
    given = {entry: source.state(entry)[0] for entry in wanted} if state else {}
    found = {entry: _versions(source, entry) for entry in wanted}
    brought = _brought(found, destination, wanted, rename)
    found |= {entry: _versions(source, entry) for entry in brought if entry not in wanted}
    own, wanted = wanted, {**wanted, **{e: {*(wanted.get(e) or ()), *numbers} for e, numbers in brought.items()}}
    needing: dict[str, list[VersionInfo]] = {}
    present = _present(destination, [rename.get(entry, entry) for entry in wanted], everything=delete_entries)
    for entry, numbers in sorted(wanted.items()):
        name = rename.get(entry, entry)
        versions = found[entry]
        for number in sorted(numbers or ()):
            if check_version(number) not in versions:
                versions[number] = source.version(entry, number)  # names those that exist, if this one does not
        chosen = [versions[n] for n in sorted(versions if numbers is None else numbers)]
        there, here = _held(destination, name, present=name in present)
        steps.append(Step("same" if name in present else "copy", entry, name, 0))
        for info in chosen:
            step, conflict = _judge(
                entry,
                name,
                info,
                destination=destination,
                there=there,
                floor=here.next_version,
                named=info.number in (own.get(entry) or ()),
            )
            steps.append(step)
            conflicts += [conflict] if conflict else []
            if info.members and step.action in ("copy", "same"):
                needing.setdefault(name, []).append(info)
        if entry in given:
            same = {s.number for s in steps if s.name == name and s.action in ("copy", "same")}
            remembered.append(plan_remembered(name, given[entry], here, same=same, there=there, whole=numbers is None))
        gone = [v for n, v in there.items() if n not in versions] if delete and entry in own else []
        if destination is not None:
            stay = [v for v in there.values() if v not in gone]
            conflicts += _other_tensors(source, destination, [s for s in steps if s.name == name and s.number], stay)
            steps += _deletes(name, gone)
    if delete_entries and destination is not None:
        for name in sorted(present - {rename.get(entry, entry) for entry in wanted}):
            steps += [*_deletes(name, destination.versions(name)), Step("delete", name, name, 0)]
    conflicts += _without_members(steps, needing)
    moves = [move for planned in remembered for move in planned.moves]
    _refuse(conflicts, list(_needed(destination, steps, moves)) if destination is not None else [])
    return Plan(tuple(_ordered(steps, needing, destination)), tuple(remembered))


def _without_members(steps: Sequence[Step], needing: Mapping[str, Sequence[VersionInfo]]) -> Iterator[str]:
    """Versions of pipelines that would be copied without a member: it is skipped, or is not in the source either."""
    arriving = {(step.entry, step.number): step for step in steps if step.action in ("copy", "same")}
    skipped = {(step.entry, step.number): step.reason for step in steps if step.action == "skip"}
    for name, infos in needing.items():
        for info in infos:
            for member in info.members:
                what = member.model, member.version
                if what not in arriving:
                    why = f"is skipped ({skipped[what]})" if what in skipped else "is not in the source"
                    yield f"{name}/{info.number} needs {member.model}/{member.version}, which {why}"


def _ordered(steps: Sequence[Step], needing: Collection[str], destination: RepositoryReader | None) -> list[Step]:
    """What goes last; and pipelines behind what they need, and gone before it. Else as they were."""
    going = {step.name for step in steps if step.action == "delete"}
    leaving = {name for name in going if destination is not None and any(v.members for v in destination.versions(name))}
    return sorted(steps, key=lambda s: (s.action == "delete", s.name in needing, s.name not in leaving))


def _held(
    destination: RepositoryReader | None, name: str, *, present: bool
) -> tuple[dict[int, VersionInfo], EntryState]:
    """The versions that the destination has of the entry, which is ``present`` or not, and its state."""
    there = {v.number: v for v in destination.versions(name)} if destination is not None and present else {}
    return there, destination.state(name)[0] if destination is not None else EntryState()


def _present(destination: RepositoryReader | None, names: Collection[str], *, everything: bool) -> set[str]:
    """Those of the ``names`` that are entries of the destination, which is not listed for one; or all that are."""
    if destination is None:
        return set()
    return set(destination.entries()) if everything or len(names) > 1 else set(filter(destination.has, names))


def _refuse(conflicts: list[str], held: list[str]) -> None:
    """ConflictError with all that is in the way, and the way out of each kind."""
    told: list[str] = []
    if conflicts:
        told += [*conflicts, "copy the entry under another name, or export the model anew there"]
    if held:
        told += [*held, "take its alias away (`gravswell unalias`), or let the cluster serve another version"]
    if told:
        raise ConflictError(f"nothing was moved: {'; '.join(told)}")


def _deletes(name: str, versions: Iterable[VersionInfo]) -> list[Step]:
    return [Step("delete", name, name, v.number, v.size, v.digest) for v in sorted(versions, key=lambda v: v.number)]


def _judge(
    entry: str,
    name: str,
    info: VersionInfo,
    *,
    destination: RepositoryReader | None,
    there: Mapping[int, VersionInfo],
    floor: int,
    named: bool,
) -> tuple[Step, str | None]:
    """The version's step, and what is in its way. One whose number is closed there, as prune leaves it, is in the way
    only where it was ``named``: a mirror that was pruned still gets what follows.
    """
    step = Step("copy", entry, name, info.number, info.size, info.digest)
    if info.digest is None:
        return Step("skip", entry, name, info.number, info.size, reason=_UNVERIFIED), None
    held = there.get(info.number)
    if held is None and info.number < floor:
        closed = f"is below the next number in the destination ({floor}): removed there, or passed over"
        if named:
            return step, f"{name}/{info.number} {closed}"
        return replace(step, action="skip", reason=closed), None
    if held is None:
        return step, None
    if destination is not None and _is_copy(destination, name, held, info, renamed=name != entry):
        return Step("same", entry, name, info.number, info.size, info.digest), None
    digest = held.digest[:12] if held.digest else "unverified"
    return step, f"{name}/{info.number} is in the destination with another digest ({digest}, not {info.digest[:12]})"


def _is_copy(destination: RepositoryReader, name: str, held: VersionInfo, info: VersionInfo, *, renamed: bool) -> bool:
    if not renamed or held.digest is None:
        return held.digest == info.digest
    try:
        origin = destination.manifest(name, held.number)[0].source
    except NotFoundError:
        return False
    return origin is not None and origin.digest == info.digest


def _other_tensors(
    source: RepositoryReader, destination: RepositoryReader, steps: Sequence[Step], stay: Sequence[VersionInfo]
) -> list[str]:
    """That the newest version to copy takes or gives other tensors than those of the destination that ``stay``.

    What shares a version with the source is a copy of it, whose versions fit each other.
    """
    copies = [step for step in steps if step.action == "copy"]
    if not copies or any(step.action == "same" for step in steps):
        return []
    step, theirs = copies[-1], next((v.number for v in stay if v.digest is not None), None)
    if theirs is None:
        return []
    config = ModelConfig(name=step.name)
    try:
        describe(config, destination.manifest(step.name, theirs)[0].signature, batchable=True)
        describe(config, source.manifest(step.entry, step.number)[0].signature, batchable=True)
    except InvalidInputError as error:
        return [f"{step}: {error}"]
    except (NotFoundError, VerificationError):
        pass  # gone by now, or damaged, which is told when it is copied
    return []


def _needed(destination: RepositoryReader, steps: list[Step], moves: Collection[AliasMove]) -> Iterator[str]:
    """Versions that would go and are served by a cluster, or named by an alias that is not among ``moves``."""
    moving = {(move.name, move.alias) for move in moves}
    going: dict[str, list[int]] = {}
    for step in steps:
        if step.action == "delete" and step.number:
            going.setdefault(step.name, []).append(step.number)
    for name, numbers in going.items():
        state = destination.state(name)[0]
        pipelines = pipelines_of(destination, name, state, going=going)
        held = needed(state, numbers)
        for number in numbers:
            who = [f"the pipeline {pipeline}" for pipeline in pipelines.get(number, ())]
            if number in held:
                who += [*(alias for alias in held[number].aliases if (name, alias) not in moving)]
                who += held[number].clusters
            if who:
                yield f"{name}/{number} would be deleted, and {', '.join(who)} needs it"
