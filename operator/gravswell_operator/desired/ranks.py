"""Partitions on servers with ranks: what each rank serves of a version, and when ranks may be told of another one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gravswell.serving.contracts import Desired, DesiredModel, ListedVersion, Listing, RankPart
from gravswell_operator.api import InferenceServer
from gravswell_operator.conditions import Reason, count
from gravswell_operator.desired.outcome import Outcome
from gravswell_operator.state import PodState, Problem, WorkloadState


def parted(
    server: InferenceServer, outcomes: Mapping[str, Outcome], listing: Listing | None, kept: Mapping[str, DesiredModel]
) -> dict[str, Outcome]:
    """What becomes of the wishes of a server with ranks, by entry and the oldest Model's first: each with its parts.

    Where a version cannot be served so, what was told of the entry before (``kept``) stays, and it is said why.
    """
    made: dict[str, Outcome] = {}
    taken: dict[str, str] = {}
    for entry, outcome in outcomes.items():
        made[entry] = _parted(server, outcome, listing, kept.get(entry), taken)
        if (desired := made[entry].desired) is not None:
            taken |= dict.fromkeys((part.name for part in desired.parts), entry)
    return made


def _parted(
    server: InferenceServer,
    outcome: Outcome,
    listing: Listing | None,
    kept: DesiredModel | None,
    taken: Mapping[str, str],
) -> Outcome:
    """``taken`` are the entries that other partitions of the server are made of, each with that partition's."""
    desired = outcome.desired
    if desired is None or desired.parts:
        return outcome
    version = _listed(listing, desired)
    problem = _problem(server, desired, version, listing, taken)
    if problem is None:
        assert version is not None
        return replace(outcome, desired=desired.model_copy(update={"parts": version.parts}))
    before = kept if kept is not None and kept.parts else None
    if outcome.reason is Reason.ROLLED_BACK:  # and there is no way back
        return Outcome(before, outcome.reason, f"{outcome.message}; {problem.message}")
    return Outcome(before, outcome.reason or problem.reason, outcome.message or problem.message)


def _listed(listing: Listing | None, desired: DesiredModel) -> ListedVersion | None:
    entries = listing.entries if listing is not None else ()
    versions = (version for entry in entries if entry.name == desired.name for version in entry.versions)
    return next((v for v in versions if (v.number, v.digest) == (desired.version, desired.digest)), None)


def _problem(
    server: InferenceServer,
    desired: DesiredModel,
    version: ListedVersion | None,
    listing: Listing | None,
    taken: Mapping[str, str],
) -> Problem | None:
    """Why the ranks cannot serve it."""
    what, name = f"version {desired.version} of {desired.name}", server.metadata.name
    repository = server.spec.repository_ref.name
    if version is None or listing is None:
        message = f"the parts of {what} are not known before ModelRepository {repository} is listed"
        return Problem(Reason.NOT_RESOLVED_YET, message)
    if not version.parts:
        return Problem(
            Reason.NOT_A_PARTITION,
            f"{what} is no partition, and server {name} has ranks: publish one (gravswell partition … --ranks "
            f"{server.spec.ranks} --repository …), or serve it on a server with replicas. Partitions that were "
            "published before servers had ranks must be published again",
        )
    ranks = max(part.rank for part in version.parts) + 1
    if ranks != server.spec.ranks:
        return Problem(
            Reason.OTHER_RANKS,
            f"{what} is a partition for {count(ranks, 'rank')}, and server {name} has {server.spec.ranks}: partition "
            f"the model for {server.spec.ranks} (--ranks), or serve it on a server with ranks: {ranks}",
        )
    if missing := missing_parts(listing, version.parts):
        told = ", ".join(f"version {part.version} of {part.name} (rank {part.rank})" for part in missing)
        return Problem(
            Reason.PARTS_MISSING,
            f"ModelRepository {repository} does not have {told} as {what} was published with: copy the whole partition "
            "there (gravswell copy), or publish it again",
        )
    if rivals := sorted({taken[part.name] for part in version.parts if part.name in taken}):
        return Problem(
            Reason.CONFLICT,
            f"{what} is made of entries that {', '.join(rivals)} is made of too, and a rank serves one version of an "
            "entry: give it a server of its own",
        )
    return None


def missing_parts(listing: Listing, parts: Sequence[RankPart]) -> list[RankPart]:
    """Those that the listed repository lacks."""
    return [part for part in parts if not _is_there(listing, part)]


def _is_there(listing: Listing, part: RankPart) -> bool:
    entry = next((entry for entry in listing.entries if entry.name == part.name), None)
    if entry is None:
        return False
    if entry.omitted and part.version < max(version.number for version in entry.versions):
        return True  # one of those that the listing has no room for, as far as can be told
    return any((version.number, version.digest) == (part.version, part.digest) for version in entry.versions)


def rolling(previous: Desired | None, wanted: Desired) -> list[str]:
    """The entries whose parts are to be replaced by those of another version."""
    before = {model.name: model.parts for model in previous.models} if previous is not None else {}
    return [m.name for m in wanted.models if (told := before.get(m.name)) and {*told} != {*m.parts}]


def may_be_told(previous: Desired | None, wanted: Desired, pods: Sequence[PodState]) -> bool:
    """Whether the ranks may be told of ``wanted``: not of other parts, as long as one of them takes traffic, or may.

    So no client that is sent to the group while it goes over finds parts of two versions there.
    """
    return not rolling(previous, wanted) or not any(pod.ready or _is_open(pod) for pod in pods)


def _is_open(pod: PodState) -> bool:
    """Whether the kubelet makes the pod ready as soon as it looks: its gate is open."""
    return pod.active and pod.rank is not None and pod.rank.open


def is_stopping(workload: WorkloadState | None, pods: Sequence[PodState]) -> bool:
    """Whether all ranks are to stop: some pod was made from an earlier template.

    While the StatefulSet's controller has not looked, nothing is known of its templates, and it stays as it is.
    """
    if workload is None:
        return False
    if not (workload.generation_seen and workload.revision):
        return workload.desired == 0
    return any(pod.rank is not None and pod.rank.revision != workload.revision for pod in pods)
