"""Which version of which entry a server shall serve: the one place where ``latest`` and aliases become numbers.

The bucket's state never takes a model away from a server: what was resolved once stays until something else resolves.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from gravswell.placement import arrange
from gravswell.serving.contracts import (
    Desired,
    DesiredModel,
    ListedEntry,
    ListedVersion,
    Listing,
    RankPart,
    Verification,
)
from gravswell.targets import Target
from gravswell_operator.api import InferenceServer, Model
from gravswell_operator.conditions import Reason
from gravswell_operator.desired import devices
from gravswell_operator.desired.outcome import Outcome
from gravswell_operator.desired.ranks import missing_parts, parted
from gravswell_operator.desired.rollouts import fallen_back, staged
from gravswell_operator.desired.targets import stays_too_new, target, too_new
from gravswell_operator.state import PodState, Unreadable

LATEST = "latest"


@dataclass(frozen=True)
class Resolution:
    """What a server shall serve, and what could not be resolved."""

    desired: Desired
    unresolved: dict[str, Outcome]
    """By entry: the outcomes with a reason."""
    listed: bool = True
    """What the repository holds was seen."""
    moved_to: str = ""
    """The repository's url, where ``desired`` is what was served from another one and stays: this one was not listed
    yet, or lacks some of it that is still wished for."""
    missing: tuple[str, ...] = ()
    """Entries of which ``moved_to`` lacks the version that stays."""
    too_new: tuple[str, ...] = ()
    """Why the server's Triton cannot load what is served: it was given an older tag, or one that nobody checked."""
    lost: tuple[str, ...] = ()
    """Entries that are served and of which nothing says any more in which version. ``desired`` would unload them."""

    def outcome(self, entry: str) -> Outcome:
        """What became of the wish for one entry."""
        return self.unresolved.get(entry) or Outcome(told(self.desired).get(entry))


AnyModel = TypeVar("AnyModel", bound=Model | Unreadable)


def age(model: Model | Unreadable) -> tuple[str, str]:
    """Names settle what the clock's seconds do not."""
    if isinstance(model, Unreadable):
        return model.created, model.name
    return model.metadata.creation_timestamp or "", model.metadata.name


def winner(rivals: Iterable[AnyModel]) -> AnyModel:
    """Of the Models for one (server, entry), the one that counts: the oldest, whether or not it can be read."""
    return min(rivals, key=age)


def told(previous: Desired | None) -> dict[str, DesiredModel]:
    """What a server's agents were told last, by entry."""
    return {model.name: model for model in previous.models} if previous is not None else {}


def contenders(models: Iterable[Model | Unreadable], served: Iterable[str]) -> dict[str, list[Model | Unreadable]]:
    """A server's Models by the entry that they are for.

    One whose very entry cannot be read may be for any of those that are ``served``.
    """
    found: dict[str, list[Model | Unreadable]] = {}
    vague: list[Model | Unreadable] = []
    for model in models:
        entry = model.text("entry") if isinstance(model, Unreadable) else model.spec.entry
        (found.setdefault(entry, []) if entry is not None else vague).append(model)
    for entry in served if vague else ():
        found.setdefault(entry, []).extend(vague)
    return found


def resolve_model(  # noqa: PLR0911  an ordered list of facts, one return each
    model: Model,
    rivals: Sequence[Model | Unreadable],
    listing: Listing | None,
    kept: DesiredModel | None,
    repository: str,
    *,
    triton: Target | None = None,
) -> Outcome:
    """What ``model`` stands for, on a server of the release ``triton``; None where that is not known.

    ``rivals`` are all Models of the same server and entry, ``model`` included; ``kept`` is what the server was told of
    this entry last; where that is lost, the Model's own status says it. ``repository`` is the repository's name, for
    messages.
    """
    _, first = age(winner(rivals) if rivals else model)
    if first != model.metadata.name:
        return Outcome(
            None,
            Reason.CONFLICT,
            f"the older Model {first} already says which version of {model.spec.entry} server "
            f"{model.spec.server_ref.name} serves; delete one of the two",
        )
    kept = kept if kept is not None else remembered(model)
    if model.spec.suspend:
        if kept is None:
            return Outcome(None, Reason.SUSPENDED, "suspended before a version was resolved, so none is served")
        return Outcome(kept)
    entry, version = model.spec.entry, model.spec.version
    if listing is None:
        return Outcome(
            kept,
            Reason.NOT_RESOLVED_YET,
            not_listed_yet(repository),
        )
    listed = next((e for e in listing.entries if e.name == entry), None)
    if listed is None or not listed.versions:
        known = ", ".join(e.name for e in listing.entries[:5]) or "nothing"
        return Outcome(
            kept,
            Reason.ENTRY_NOT_FOUND,
            f"ModelRepository {repository} has no published version of {entry}; it holds {known}"
            + ("; not all of it can be read: its own conditions say why" if listing.message else ""),
        )
    found = _find(listed, version)
    if found is None:
        return Outcome(kept, Reason.VERSION_NOT_FOUND, _missing(listed, version, repository))
    if found.digest is None and model.spec.verification is not Verification.NONE:
        return Outcome(
            kept,
            Reason.UNVERIFIED_VERSION,
            f"version {found.number} of {entry} has no manifest, so nothing can be verified; publish it with "
            "gravswell export, or set verification: None to serve it all the same",
        )
    if why := too_new(entry, found, triton):
        return Outcome(kept, Reason.OPSET_TOO_NEW, why)
    return Outcome(
        DesiredModel(
            name=entry,
            version=found.number,
            digest=found.digest,
            verification=model.spec.verification,
            instances=model.spec.placement.instances,
            # Where it is, until all of the server's Models are looked at together.
            gpus=kept.gpus if kept is not None and model.spec.placement.devices is not None else None,
        )
    )


def not_listed_yet(repository: str) -> str:
    """Why nothing of ``repository`` can be resolved, in words."""
    return f"ModelRepository {repository} has not been listed yet; its own conditions say why"


def remembered(model: Model) -> DesiredModel | None:
    """What ``model`` was resolved to last, by its own status."""
    status = model.status
    if status.desired_version is None:
        return None
    return DesiredModel(
        name=model.spec.entry,
        version=status.desired_version,
        digest=status.desired_digest,
        verification=model.spec.verification,
        instances=model.spec.placement.instances,
        gpus=status.placement.devices or None if status.placement is not None else None,
    )


def _find(entry: ListedEntry, version: int | str) -> ListedVersion | None:
    if version == LATEST:
        return max(entry.versions, key=lambda v: v.number)
    number = version if isinstance(version, int) else entry.aliases.get(version)
    return next((v for v in entry.versions if v.number == number), None)


def _missing(entry: ListedEntry, version: int | str, repository: str) -> str:
    numbers = ", ".join(str(v.number) for v in entry.versions[:10])
    if isinstance(version, int) and entry.omitted and version < max(v.number for v in entry.versions):
        return (
            f"version {version} of {entry.name} is not among the {len(entry.versions)} that the listing of "
            f"ModelRepository {repository} has room for: if it is there, give it an alias (gravswell promote), "
            f"which is always listed"
        )
    if isinstance(version, int):
        return f"ModelRepository {repository} has no version {version} of {entry.name}; it has {numbers}"
    aliases = ", ".join(f"{name} ({number})" for name, number in sorted(entry.aliases.items())) or "none"
    return f"entry {entry.name} of ModelRepository {repository} has no alias {version}; its aliases: {aliases}"


def resolve_server(
    server: InferenceServer,
    models: Iterable[Model | Unreadable],
    listing: Listing | None,
    previous: Desired | None,
    *,
    url: str,
    pods: Sequence[PodState] = (),
    verification: Verification = Verification.GOLDEN,
) -> Resolution:
    """What ``server`` shall serve, on which of its ``pods`` where a roll-out is under way.

    ``models`` are those that name this server; where one cannot be read and counts, what was told of its entry stays.
    ``previous`` is what the agents were told last, None where that is not there or cannot be read; ``url`` and
    ``verification`` are the repository's, as its user gave them.
    """
    repository, triton = server.spec.repository_ref.name, target(server)
    kept = told(previous)
    outcomes: dict[str, Outcome] = {}
    winners: dict[str, Model | Unreadable] = {}
    for entry, rivals in contenders(models, kept).items():
        winners[entry] = first = winner(rivals)
        if isinstance(first, Unreadable):
            problem = first.problem()
            outcomes[entry] = Outcome(kept.get(entry), problem.reason, problem.message)
        else:
            outcomes[entry] = resolve_model(first, rivals, listing, kept.get(entry), repository, triton=triton)
    if server.spec.ranks is not None:
        for entry, first in winners.items():
            if isinstance(first, Model):
                outcomes[entry] = fallen_back(first, outcomes[entry])
        oldest_first = sorted(outcomes, key=lambda entry: age(winners[entry]))
        outcomes = parted(server, {entry: outcomes[entry] for entry in oldest_first}, listing, kept)
    outcomes |= _placed(server, winners, outcomes, kept)
    for entry, first in winners.items() if server.spec.ranks is None else ():
        if isinstance(first, Model):
            outcomes[entry] = staged(first, outcomes[entry], kept.get(entry) or remembered(first), pods)
    if server.spec.models == "All":
        if listing is None:
            undeclared = {name: Outcome(model) for name, model in kept.items()}
        else:
            latest = {
                entry.name: _latest(entry, kept.get(entry.name), triton, verification)
                for entry in listing.entries
                if entry.versions
            }
            # Whoever wants a private one served by itself, too, names it in a Model.
            private = listing.private({entry: outcome.numbers for entry, outcome in {**latest, **outcomes}.items()})
            undeclared = {entry: outcome for entry, outcome in latest.items() if entry not in private}
            if is_moved(previous, url) and not any(outcome.desired for outcome in undeclared.values()):
                # Nothing to serve there: sooner a mistyped url than the wish to take everything away at once.
                undeclared = {name: Outcome(model) for name, model in kept.items()} | undeclared
        outcomes = {**undeclared, **outcomes}
    wanted = tuple(o.desired for _, o in sorted(outcomes.items()) if o.desired is not None)
    absent = _absent(outcomes, listing, repository) if is_moved(previous, url) else {}
    outcomes |= absent
    stays = previous if is_moved(previous, url) and (listing is None or absent) else None
    return Resolution(
        desired=stays or Desired(repository=url, models=wanted, gpus=server.spec.gpus if server.spec.ranks else 0),
        unresolved={entry: outcome for entry, outcome in sorted(outcomes.items()) if not outcome.resolved},
        listed=listing is not None,
        moved_to=url if stays is not None else "",
        missing=tuple(sorted(absent)),
        too_new=stays_too_new(outcomes, listing, triton),
        lost=_lost(server, outcomes, listing) if previous is None else (),
    )


def _placed(
    server: InferenceServer,
    winners: Mapping[str, Model | Unreadable],
    outcomes: Mapping[str, Outcome],
    kept: Mapping[str, DesiredModel],
) -> dict[str, Outcome]:
    """What becomes of the Models that ask for devices, the oldest first: each with its own, or why it gets none.

    What stays as it is for another reason stays on its devices.
    """
    wishes, held = [], []
    for entry, model in sorted(winners.items(), key=lambda found: age(found[1])):
        outcome = outcomes[entry]
        if outcome.desired is None:
            continue
        if outcome.resolved and isinstance(model, Model) and not model.spec.suspend:
            wishes += devices.wishes(model, outcome.desired.gpus or ())
        else:
            held += devices.held(server, model, outcome.desired)
    layout = arrange(wishes, server.spec.gpus, held=held)
    found = {}
    for entry in layout.placed:
        desired = outcomes[entry].desired
        assert desired is not None  # who is None asks for nothing
        found[entry] = Outcome(desired.model_copy(update={"gpus": layout.gpus(entry)}))
    for entry in layout.refused:
        model = winners[entry]
        assert isinstance(model, Model)
        before = kept.get(entry) or remembered(model)
        stays = before if before is not None and max(before.gpus or (0,)) < max(server.spec.gpus, 1) else None
        found[entry] = Outcome(stays, Reason.NOT_PLACED, devices.refusal(server, layout, entry))
    return found


def asks_for_devices(models: Iterable[Model | Unreadable]) -> bool:
    """Whether what becomes of one of these Models of one server depends on the others' devices."""
    return any(isinstance(model, Model) and model.spec.placement.devices is not None for model in models)


def is_moved(previous: Desired | None, url: str) -> bool:
    """Whether what the agents were told last came from another url."""
    return previous is not None and previous.repository != url


def stays_behind(server: InferenceServer, resolution: Resolution, kept: DesiredModel | None) -> Outcome:
    """What becomes of a Model that the new url has, where its server cannot move there for the sake of others."""
    return Outcome(
        kept,
        Reason.MODELS_UNRESOLVED,
        f"InferenceServer {server.metadata.name} stays on {resolution.desired.repository} until {resolution.moved_to} "
        f"has what it serves of {', '.join(resolution.missing)}",
    )


def _absent(outcomes: Mapping[str, Outcome], listing: Listing | None, repository: str) -> dict[str, Outcome]:
    """What shall stay as it was and cannot be had from the listing's url: by entry, each with its reason.

    An agent that starts there would not get it, so replicas would be lost, one after the other.
    """
    entries = listing.entries if listing is not None else ()
    there = {(entry.name, version.number, version.digest) for entry in entries for version in entry.versions}
    found = {}
    for entry, outcome in outcomes.items():
        stays = outcome.desired
        if listing is None or stays is None:
            continue
        parts = missing_parts(listing, stays.parts)
        if (entry, stays.version, stays.digest) in there and not parts:
            continue
        lacking: Sequence[DesiredModel | RankPart] = parts or [stays]
        what = " and ".join(f"version {one.version} of {one.name}" for one in lacking)
        message = f"ModelRepository {repository} does not have {what} as it is served"
        found[entry] = Outcome(stays, outcome.reason or Reason.VERSION_NOT_FOUND, outcome.message or message)
    return found


def _lost(server: InferenceServer, outcomes: Mapping[str, Outcome], listing: Listing | None) -> tuple[str, ...]:
    """What is served by the server's status, still wished for, and resolved to nothing."""
    all_of_unknown = server.spec.models == "All" and listing is None
    return tuple(
        model.name
        for model in server.status.models
        if (outcomes[model.name].desired is None if model.name in outcomes else all_of_unknown)
    )


def _latest(
    entry: ListedEntry, kept: DesiredModel | None, triton: Target | None, verification: Verification
) -> Outcome:
    latest = max(entry.versions, key=lambda v: v.number)
    if latest.digest is None and verification is not Verification.NONE:
        return Outcome(
            kept,
            Reason.UNVERIFIED_VERSION,
            f"version {latest.number} of {entry.name} has no manifest, so nothing can be verified; publish it with "
            "gravswell export, or serve it all the same: verification: None in a Model of its own, or in the "
            "ModelRepository for all",
        )
    if why := too_new(entry.name, latest, triton):
        return Outcome(kept, Reason.OPSET_TOO_NEW, why)
    return Outcome(
        DesiredModel(name=entry.name, version=latest.number, digest=latest.digest, verification=verification)
    )
