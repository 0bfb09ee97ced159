"""Copies between repositories, on any two stores: only what differs moves. Its law: a version is its digest.

Everything is compared and every conflict told before anything moves. A version goes through a stage of its own, every
hash checked on the way, and appears at the destination as every version does: whole, or not at all. What is interrupted
is simply begun again: what arrived is there with its digest, and is not moved twice.

A version that gets another name gets another digest too, for its config and its manifest hold the name. Its manifest
then names the version that it was copied from (``source``); its files, times and proof are that one's.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver.layout import check_name
from gravswell.quiver.reader import RepositoryReader
from gravswell.quiver.repository import ModelRepository
from gravswell.quiver.stores import Progress
from gravswell.quiver.transfer.deleting import delete_agreed
from gravswell.quiver.transfer.moving import begin_entry, move_version, settle_config
from gravswell.quiver.transfer.planning import Plan, Step, Wanted, plan_transfer
from gravswell.quiver.transfer.remembered import AliasMove, carry

__all__ = ["AliasMove", "Plan", "Step", "Transfer"]

OnStep = Callable[[Step, str], None]
"""Called with a step and what is done for it: ``fetching``, ``publishing``, ``deleting``."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """From the repository at ``source`` to the one at ``destination``, which is made if it is a folder not there yet.

    :meth:`plan` says what would be done and raises what is in the way; :meth:`run` does it.
    """

    source: str | Path
    destination: str | Path
    wanted: Mapping[str, Collection[int] | None] | None = None
    """Entries, and the versions of each, None for all of them; None for all entries."""
    rename: str | None = None
    """The one wanted entry's name in the destination."""
    delete: bool = False
    """Remove what is in the destination and not in the source: versions of the wanted entries, and where all are
    wanted whole entries too. Refused where the source has no entry: that is a wrong name, or a volume that is away."""
    state: bool = False
    """Take along, with their history, the aliases of those wanted versions that are copied or are there already, and
    for whole entries the number that the next export gets."""

    def plan(self) -> Plan:
        """What :meth:`run` would do now.

        NotFoundError for an entry or version that the source does not have, ConflictError naming every version of the
        destination that is in the way, and every entry of other tensors; InvalidInputError for a name that cannot be,
        and for a source that is no repository.
        """
        source = RepositoryReader(self.source)
        wanted = self._wanted(source)
        try:
            destination = RepositoryReader(self.destination)
        except NotFoundError:
            destination = None
        if destination is not None and source.url == destination.url and self.rename is None:
            raise InvalidInputError(f"{source.store.location('')} is both source and destination: name two, or --as")
        rename = dict.fromkeys(wanted, check_name(self.rename)) if self.rename is not None else {}
        if self.rename in wanted and destination is not None and source.url == destination.url:
            raise InvalidInputError(f"{self.rename!r} is the entry's own name: give the copy another one")
        return plan_transfer(
            source,
            destination,
            wanted=wanted,
            rename=rename,
            delete=self.delete,
            delete_entries=self.delete and self.wanted is None,
            state=self.state,
        )

    def run(
        self,
        plan: Plan | None = None,
        *,
        on_step: OnStep = lambda _step, _what: None,
        progress: Progress | None = None,
    ) -> Plan:
        """Do it, and return what was done. Raises as :meth:`plan` does, before anything moves; later also
        VerificationError for a version of the source that is damaged, and UnavailableError where a store fails. What
        was moved until then stays, and the next run goes on behind it.

        :param plan: do just this, which somebody has seen and agreed to. What became another version since is not
            deleted but skipped, and so is an entry into which one came; an alias that somebody has moved stays.
            Default: what :meth:`plan` says now.
        """
        plan = self.plan() if plan is None else plan
        source = RepositoryReader(self.source)
        repository = ModelRepository(self.destination)
        destination = RepositoryReader(self.destination)
        entries = [step for step in plan.steps if not step.number and step.action in ("copy", "same")]
        for step in entries:
            if step.action == "copy":
                begin_entry(source, destination, step)
        settles = [settle_config(source, destination, step) for step in entries]
        for step in plan.of("copy"):
            if step.number:
                move_version(source, destination, step, on_step=on_step, progress=progress)
        for settle in settles:
            settle()
        remembered = tuple(carry(destination, planned) for planned in plan.remembered)
        stay: dict[Step, str] = {}
        for step in plan.of("delete"):
            on_step(step, "deleting")
            if reason := delete_agreed(repository, destination, step):
                stay[step] = reason
        steps = (replace(step, action="skip", reason=stay[step]) if step in stay else step for step in plan.steps)
        return Plan(tuple(steps), remembered)

    def _wanted(self, source: RepositoryReader) -> Wanted:
        if self.rename is not None and (self.wanted is None or len(self.wanted) != 1):
            raise InvalidInputError("a new name is for one entry: name the one that gets it")
        if self.wanted is not None:
            return self.wanted
        entries = source.entries()
        if not entries:
            ModelRepository.open(self.source)  # says so of a folder that holds other things
        if self.delete and not entries:
            raise NotFoundError(
                f"{source.store.location('')} holds no entry, and everything in the destination would be deleted: is "
                f"its name right, and its volume mounted? `gravswell rm` removes what is to go"
            )
        return dict.fromkeys(entries)
