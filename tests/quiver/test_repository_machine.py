"""A whole repository against a model of it: anything that users and accidents do, in any order.

Hypothesis draws the orders. A test run tries some, always the same; with ``GRAVSWELL_EXAMPLES=2000`` in its
environment it tries so many new ones, and prints the shortest that fails.
"""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gravswell import quiver as qv
from gravswell.errors import ConflictError, InvalidInputError, NotFoundError
from gravswell.quiver.reader import RepositoryReader

from .faults import DISK, Killed, Trap, found_in

EXAMPLES = int(os.environ.get("GRAVSWELL_EXAMPLES", "0"))
FEW = 100
"""Examples of a test run: some ten seconds."""
NAMES = ("m", "m-2", "n")
ALIASES = ("champion", "canary")
names, aliases = st.sampled_from(NAMES), st.sampled_from(ALIASES)
HAPPEN = {
    *("add", "add, refused", "replace", "export", "export, refused", "edit", "remove", "remove, refused", "delete"),
    *("promote", "rollback", "unalias", "prune", "remove a version", "leave a folder"),
    *("die: export", "die: replace", "die: edit"),
}
"""In every run, among the rest that :attr:`RepositoryMachine.done` counts."""


class Known:
    """What the model knows of an entry."""

    def __init__(self) -> None:
        self.versions: list[int] = []
        self.aliases: dict[str, int] = {}
        self.trails: dict[str, list[int]] = {alias: [] for alias in ALIASES}
        """By alias: where it was since it came to be, as far as rollbacks go back there, and last where it is."""
        self.dims: tuple[int, ...] | None = None
        self.count = 0


class RepositoryMachine(RuleBasedStateMachine):
    """Two handles on one repository, used in turn, and what is known of it."""

    given: Path
    other: Path
    highest: dict[str, int]
    """By entry: the last number that was given."""
    done: ClassVar[Counter[str]] = Counter()
    """How often each thing that may happen did, over all orders."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gravswell-machine-"))
        self.root = self.folder / "repo"
        self.strangers: set[str] = set()
        self.start()

    def start(self) -> None:
        """With an entry that stays: a folder that holds strangers' things and no entry is no repository.

        It has versions, without which there is little that can be done.
        """
        entry = qv.ModelRepository(self.root).add("stays")
        known = Known()
        known.versions = [int(Path(entry.export_version(self.given)).parent.name) for _ in range(3)]
        known.dims = (-1, 4)
        self.known, self.highest = {"stays": known}, {"stays": 3}
        self.reopen()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def repo(self, handle: int) -> qv.ModelRepository:
        repo = self.handles[handle]
        repo.refresh()
        return repo

    def entry(self, handle: int, name: str) -> qv.Entry:
        return self.repo(handle).models[name]

    # -- what users do

    @rule(handle=st.integers(0, 1), name=names)
    def add(self, handle: int, name: str) -> None:
        if name in self.known:
            with pytest.raises(ConflictError, match="exists already"):
                self.repo(handle).add(name)
            self.done["add, refused"] += 1
        else:
            self.repo(handle).add(name)
            self.known[name] = Known()
            self.done["add"] += 1

    @rule(handle=st.integers(0, 1), name=names)
    def add_by_force(self, handle: int, name: str) -> None:
        self.repo(handle).add(name, force=True)
        self.done["replace" if name in self.known else "add by force"] += 1
        self.known[name] = Known()

    @precondition(lambda self: self.known)
    @rule(handle=st.integers(0, 1), data=st.data(), other=st.booleans(), count=st.integers(1, 3))
    def export(self, handle: int, data: st.DataObject, other: bool, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.known)))
        known, dims = self.known[name], (-1, 3) if other else (-1, 4)
        model = self.other if other else self.given
        if known.dims not in (None, dims):
            with pytest.raises(InvalidInputError, match="signature"):
                self.entry(handle, name).export_version(model)
            self.done["export, refused"] += 1
            return
        for _ in range(count):
            made = self.entry(handle, name).export_version(model)
            number = int(Path(made).parent.name)
            assert number > self.highest.get(name, 0), "numbers strictly increase"
            self.highest[name] = number
            known.versions.append(number)
        known.dims = dims
        self.done["export"] += 1

    @precondition(lambda self: self.known)
    @rule(handle=st.integers(0, 1), data=st.data(), count=st.integers(1, 4))
    def edit(self, handle: int, data: st.DataObject, count: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.known)))
        config = self.entry(handle, name).config
        if config.instance_group:
            config.scale_instance_group(count)
        else:
            config.add_instance_group(count=count)
        self.known[name].count = count
        self.done["edit"] += 1

    @precondition(lambda self: any(known.versions for known in self.known.values()))
    @rule(handle=st.integers(0, 1), data=st.data(), alias=aliases)
    def promote(self, handle: int, data: st.DataObject, alias: str) -> None:
        name, _ = self.drawn(data)
        known = self.known[name]
        for number in data.draw(st.lists(st.sampled_from(known.versions), min_size=1, max_size=3)):
            move = self.entry(handle, name).promote(number, alias)
            assert (move is None) == (known.aliases.get(alias) == number)
            if move is not None:
                known.aliases[alias] = number
                known.trails[alias].append(number)
            self.done["promote, again" if move is None else "promote"] += 1

    @precondition(lambda self: any(known.aliases for known in self.known.values()))
    @rule(handle=st.integers(0, 1), data=st.data(), moved=st.booleans())
    def rollback(self, handle: int, data: st.DataObject, moved: bool) -> None:
        name, alias = self.named(data, moved=True)
        known = self.known[name]
        trail = known.trails[alias]
        others = [number for number in known.versions if number != trail[-1]]
        if moved and others:
            trail.append(data.draw(st.sampled_from(others)))
            self.entry(handle, name).promote(trail[-1], alias)
        if len(trail) < 2:
            with pytest.raises(NotFoundError, match="was nowhere before"):
                self.entry(handle, name).rollback(alias)
            self.done["rollback, nowhere"] += 1
        elif trail[-2] not in known.versions:
            with pytest.raises(NotFoundError, match=f"cannot go back to {trail[-2]}"):
                self.entry(handle, name).rollback(alias)
            self.done["rollback, removed"] += 1
        else:
            self.entry(handle, name).rollback(alias)
            trail.pop()
            known.aliases[alias] = trail[-1]
            self.done["rollback"] += 1

    @precondition(lambda self: any(known.aliases for known in self.known.values()))
    @rule(handle=st.integers(0, 1), data=st.data())
    def unalias(self, handle: int, data: st.DataObject) -> None:
        name, alias = self.named(data)
        self.entry(handle, name).unalias(alias)
        del self.known[name].aliases[alias]
        self.known[name].trails[alias].clear()
        with pytest.raises(NotFoundError, match="has no alias"):
            self.entry(handle, name).unalias(alias)
        self.done["unalias"] += 1

    @precondition(lambda self: any(len(known.versions) > 1 for known in self.known.values()))
    @rule(handle=st.integers(0, 1), data=st.data(), keep=st.integers(1, 2))
    def prune(self, handle: int, data: st.DataObject, keep: int) -> None:
        name = data.draw(st.sampled_from(sorted(name for name, known in self.known.items() if len(known.versions) > 1)))
        known = self.known[name]
        held = {*known.aliases.values(), *(trail[-2] for trail in known.trails.values() if len(trail) > 1)}
        going = [number for number in known.versions[:-keep] if number not in held]
        told = self.entry(handle, name).prune(keep, grace=timedelta(0), dry_run=False)
        assert told.going == going
        known.versions = [number for number in known.versions if number not in going]
        self.done["prune" if going else "prune, nothing"] += 1

    @precondition(lambda self: any(known.versions for known in self.known.values()))
    @rule(handle=st.integers(0, 1), data=st.data())
    def remove_version(self, handle: int, data: st.DataObject) -> None:
        name, number = self.drawn(data)
        known = self.known[name]
        if number in known.aliases.values():
            with pytest.raises(ConflictError, match="move the alias"):
                self.entry(handle, name).remove_version(number)
            self.done["remove a version, refused"] += 1
        else:
            self.entry(handle, name).remove_version(number)
            known.versions.remove(number)
            self.done["remove a version"] += 1

    @rule(handle=st.integers(0, 1), name=names)
    def remove(self, handle: int, name: str) -> None:
        if name in self.known:
            self.repo(handle).remove(name)
            del self.known[name]
            self.done["remove"] += 1
        else:
            with pytest.raises(NotFoundError, match="there is no entry"):
                self.repo(handle).remove(name)
            self.done["remove, refused"] += 1

    @precondition(lambda self: len(self.known) > 2)
    @rule(handle=st.integers(0, 1))
    def delete(self, handle: int) -> None:
        self.repo(handle).delete()
        if self.strangers:
            assert {path.name for path in self.root.iterdir()} == self.strangers
            shutil.rmtree(self.root)  # which is no repository, with nothing but theirs in it
            self.strangers.clear()
        else:
            assert not self.root.exists()
        self.done["delete"] += 1
        self.start()

    @rule()
    def reopen(self) -> None:
        self.handles = [qv.ModelRepository(self.root) for _ in range(2)]

    # -- what others do

    @precondition(lambda self: self.known)
    @rule(name=st.sampled_from(["notes", "9.tmp", "-1", "007"]), inside=st.booleans(), data=st.data())
    def leave_a_folder(self, name: str, inside: bool, data: st.DataObject) -> None:
        if inside:
            (self.root / data.draw(st.sampled_from(sorted(self.known))) / name).mkdir(exist_ok=True)
        else:
            (self.root / name).mkdir(exist_ok=True)
            self.strangers.add(name)
        self.done["leave a folder"] += 1

    # -- accidents

    @precondition(lambda self: self.known)
    @rule(data=st.data(), changes=st.integers(0, 15))
    def die(self, data: st.DataObject, changes: int) -> None:
        """In the middle of anything; what is there then is what was, or what was to be."""
        name = data.draw(st.sampled_from(sorted(self.known)))
        known = self.known[name]
        model = self.other if known.dims == (-1, 3) else self.given
        removable = [number for number in known.versions if number not in known.aliases.values()]
        acts: dict[str, Callable[[], object]] = {
            "export": lambda: self.entry(0, name).export_version(model),
            "replace": lambda: self.repo(0).add(name, force=True),
            "edit": lambda: self.entry(0, name).config.add_instance_group(count=1),
        }
        if name != "stays":
            acts["remove"] = lambda: self.repo(0).remove(name)
        if known.versions:
            acts["promote"] = lambda: self.entry(0, name).promote(known.versions[0], ALIASES[0])
            acts["prune"] = lambda: self.entry(0, name).prune(1, grace=timedelta(0), dry_run=False)
        if removable:
            acts["remove a version"] = lambda: self.entry(0, name).remove_version(removable[-1])
        what = data.draw(st.sampled_from(sorted(acts)))
        before = found_in(self.root)
        self.repo(0)
        trap = Trap(changes, Killed)
        with suppress(Killed), DISK.trapped(self.folder, trap):
            acts[what]()
        self.done[f"die: {what}" if trap.sprung else "die, too late"] += 1
        self.handles[0] = qv.ModelRepository.open(self.root)  # the one that died held the lock in this process
        self.take_up(what, name, before)

    def take_up(self, what: str, name: str, before: dict[str, tuple[int, ...]]) -> None:
        """See which of the two came of it, and that it is nothing else."""
        with RepositoryReader(self.root).store.exclusive():  # as the next writer, which ends what was begun
            found = found_in(self.root)
        assert {**found, name: ()} == {**before, name: ()}
        known, now = self.known[name], found.get(name)
        reader = RepositoryReader(self.root)
        if what == "export":
            assert now is not None
            assert now[: len(before[name])] == before[name]
            new = now[len(before[name]) :]
            assert len(new) <= 1
            assert all(number > self.highest.get(name, 0) for number in new)
            if new:
                self.highest[name] = new[0]
                known.versions.append(new[0])
                known.dims = reader.manifest(name, new[0])[0].signature.inputs[0].dims
        elif what in ("promote", "edit"):
            assert now == before[name]
        elif what in ("remove a version", "prune"):
            assert now is not None
            assert not (set(before[name]) - set(now)) & set(known.aliases.values())
            assert what != "prune" or now[-1] == before[name][-1], "the newest stays" if now else "so one does"
            decided = {number for number in reader.state(name)[0].removing if number in now}
            for number in decided:
                with pytest.raises(ConflictError, match="removing it again completes it"):
                    self.entry(1, name).promote(number, ALIASES[0])
                self.entry(1, name).remove_version(number)
            known.versions = [number for number in now if number not in decided]
        elif now is None:
            assert what == "remove"
            del self.known[name]
        elif what == "replace" and now == ():
            config = self.entry(1, name).config
            if known.versions or not config.input:
                self.known[name] = Known()
        if name in self.known:
            groups = self.entry(1, name).config.instance_group
            self.known[name].count = groups[0].count if groups else 0
            self.known[name].aliases = reader.aliases(name)
            state = reader.state(name)[0]
            self.known[name].trails = {alias: state.trail(alias) for alias in ALIASES}

    # -- what always holds

    @invariant()
    def listing_is_the_model(self) -> None:
        found = found_in(self.root)
        assert found == {name: tuple(known.versions) for name, known in self.known.items()}
        reader = RepositoryReader(self.root)
        for name, known in self.known.items():
            assert reader.aliases(name) == known.aliases
            entry = self.entry(1, name)
            assert [group.count for group in entry.config.instance_group][:1] == [known.count] * bool(known.count)
            assert (entry.inputs["x"].dims if entry.inputs else None) == known.dims

    @invariant()
    def nothing_of_ours_is_a_folder(self) -> None:
        assert {path.name for path in self.root.iterdir() if path.is_dir()} == {*self.known, *self.strangers}

    def named(self, data: st.DataObject, *, moved: bool = False) -> tuple[str, str]:
        """An entry's alias; one that was moved, if there is one."""
        found = sorted((name, alias) for name, known in self.known.items() for alias in known.aliases)
        trails = [(name, alias) for name, alias in found if len(self.known[name].trails[alias]) > 1]
        return data.draw(st.sampled_from(trails if moved and trails else found))

    def drawn(self, data: st.DataObject) -> tuple[str, int]:
        return data.draw(
            st.sampled_from(sorted((name, number) for name, known in self.known.items() for number in known.versions))
        )


def test_a_repository_is_its_model(prebuilt: Path, tmp_path: Path, affine: Callable[..., Any]) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(affine(3).SerializeToString())
    RepositoryMachine.given, RepositoryMachine.other = prebuilt, other
    RepositoryMachine.done.clear()
    run_state_machine_as_test(
        RepositoryMachine,
        settings=settings(
            max_examples=EXAMPLES or FEW,
            stateful_step_count=25,
            suppress_health_check=list(HealthCheck),
            derandomize=not EXAMPLES,
            database=None,
            phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate],
        ),
    )
    assert not HAPPEN - set(RepositoryMachine.done), "what never happens is not tried"
