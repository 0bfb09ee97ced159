"""The status of a ``ModelRepository``: what its lister saw, and why it sees nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gravswell.serving.contracts import Listing
from gravswell.serving.contracts import Reason as ListersReason
from gravswell_operator import conditions, names
from gravswell_operator.api import ModelRepository
from gravswell_operator.api.modelrepository import EntryStatus, ModelRepositorySpec
from gravswell_operator.conditions import Finding, Reason, count
from gravswell_operator.desired.source import SECRET_KEYS, source
from gravswell_operator.state import PodState, Problem, WorkloadState
from gravswell_operator.statuses.pods import agent_reason, first_problem, refused

SHOWN_ENTRIES = 100
SYNC_STEP = timedelta(minutes=5)
"""``lastSync`` moves in steps of this, or every listing of every repository would be a write to the API server."""


@dataclass(frozen=True)
class RepositoryView:
    """Everything that a repository's status follows from."""

    repository: ModelRepository
    listing: Listing | None = None
    unreadable: str = ""
    """Why the ConfigMap holds no listing that can be parsed, if it holds something."""
    lister: WorkloadState | None = None
    pods: Sequence[PodState] = ()
    """The lister's."""
    problem: Problem | None = None
    """Why the children could not be applied, if they could not."""


def findings(view: RepositoryView) -> list[Finding]:
    """The repository's conditions."""
    repository, lister = view.repository, view.lister
    problem = view.problem or _named_credentials(repository, first_problem(view.pods))
    if problem is None and lister is not None and lister.failure_message:
        problem = Problem(Reason.PODS_REFUSED, f"the lister's {refused(lister.failure_message)}")
    accessible = _accessible(repository, view.listing, view.unreadable, problem)
    return [_ready(view, accessible, problem), accessible]


def _named_credentials(repository: ModelRepository, problem: Problem | None) -> Problem | None:
    secret = repository.spec.credentials_secret_ref
    if problem is None or secret is None or problem.reason is not Reason.CONTAINER_CONFIG_ERROR:
        return problem
    return Problem(
        Reason.CREDENTIALS_NOT_FOUND,
        f"the Secret {secret.name} of credentialsSecretRef cannot be used: {problem.message}",
    )


def _accessible(
    repository: ModelRepository, listing: Listing | None, unreadable: str, problem: Problem | None
) -> Finding:
    if listing is None:
        if problem is not None:
            return Finding(conditions.ACCESSIBLE, False, problem.reason, problem.message)
        if unreadable:
            return Finding(
                conditions.ACCESSIBLE,
                False,
                Reason.LISTING_UNREADABLE,
                f"ConfigMap {names.listing_configmap(repository.metadata.name)} does not hold a listing: {unreadable}; "
                "delete it, and the lister writes it anew",
            )
        return Finding(
            conditions.ACCESSIBLE, None, Reason.NOT_LISTED_YET, f"the lister has not listed {repository.spec.url} yet"
        )
    if not listing.accessible:
        return Finding(
            conditions.ACCESSIBLE,
            False,
            agent_reason(listing.reason, Reason.NOT_ACCESSIBLE),
            _inaccessible(repository, listing),
        )
    return Finding(
        conditions.ACCESSIBLE,
        True,
        Reason.LISTED,
        f"{count(len(listing.entries), 'model')}, {count(_versions(listing), 'version')} in {repository.spec.url}",
    )


def _inaccessible(repository: ModelRepository, listing: Listing) -> str:
    """Why it cannot be listed, in the lister's words; of a claim, those know only where the pods see it."""
    url, seen = repository.spec.url, source(repository).url
    if not listing.message:
        return f"{url} cannot be read"
    if repository.spec.bucket is not None and listing.reason == ListersReason.ACCESS_DENIED:
        return f"{_who_asks(repository.spec, repository.spec.bucket)}: {listing.message}"
    return listing.message if url == seen else f"{url}, which is {seen} in the pods: {listing.message}"


def _who_asks(spec: ModelRepositorySpec, kind: str) -> str:
    """As whom the pods ask, and where that is changed: the lister's words are for a person with a shell."""
    if spec.credentials_secret_ref is not None:
        return (
            f"the Secret {spec.credentials_secret_ref.name} of credentialsSecretRef does not open {spec.url}: it needs "
            f"{SECRET_KEYS[kind]}, of an account that may read there; mend it, and restart the lister and the servers"
        )
    if spec.service_account_name is not None:
        return (
            f"the ServiceAccount {spec.service_account_name} of serviceAccountName does not open {spec.url}: bind it "
            f"to an identity of the cloud that may read there"
        )
    return (
        f"{spec.url} is not open to the nodes' own identity: name a Secret in credentialsSecretRef, or a "
        f"ServiceAccount with an identity of the cloud in serviceAccountName"
    )


def _ready(view: RepositoryView, accessible: Finding, problem: Problem | None) -> Finding:
    if accessible.status is not True:
        return Finding(conditions.READY, False, accessible.reason, accessible.message)
    if problem is not None:
        return Finding(conditions.READY, False, problem.reason, f"new versions are not seen: {problem.message}")
    if view.lister is None or not view.lister.ready:
        return Finding(
            conditions.READY,
            False,
            Reason.LISTER_NOT_READY,
            f"new versions are not seen: Deployment {names.lister(view.repository.metadata.name)} has no ready pod",
        )
    if view.listing is not None and view.listing.message:  # of one that is accessible: what it could not read in it
        return Finding(
            conditions.READY, False, Reason.PARTLY_LISTED, f"{accessible.message}; not read: {view.listing.message}"
        )
    return Finding(conditions.READY, True, Reason.LISTED, accessible.message)


def fields(repository: ModelRepository, listing: Listing | None) -> dict[str, object]:
    """The status beside the conditions, by the names of the API. Without a listing, what was seen last stays."""
    old = repository.status
    if listing is None:
        kept = {"entries", "versions", "digest", "last_sync", "models"}
        return old.model_dump(mode="json", by_alias=True, exclude_none=True, include=kept)
    shown = [
        EntryStatus(
            name=entry.name,
            latest=max(v.number for v in entry.versions),
            versions=len(entry.versions) + entry.omitted,
            digest=max(entry.versions, key=lambda v: v.number).digest,
        ).to_dict()
        for entry in sorted(listing.entries, key=lambda e: e.name)
        if entry.versions
    ]
    made: dict[str, object] = {
        "entries": len(listing.entries),
        "versions": _versions(listing),
        "digest": listing.digest,
        "models": shown[:SHOWN_ENTRIES],
    }
    synced = _last_sync(repository, listing)
    if synced is not None:
        made["lastSync"] = synced
    return made


def _versions(listing: Listing) -> int:
    return sum(len(e.versions) + e.omitted for e in listing.entries)


def _last_sync(repository: ModelRepository, listing: Listing) -> str | None:
    old = repository.status.last_sync
    if not listing.accessible:
        return old
    seen = listing.observed_at
    if old is not None and listing.digest == repository.status.digest and _since(old, seen) < SYNC_STEP:
        return old
    return conditions.stamp(seen)


def _since(old: str, seen: datetime) -> timedelta:
    return seen - datetime.fromisoformat(old)
