"""The children of a ``ModelRepository``: the lister, its account, and the ConfigMap that it writes."""

from collections import defaultdict
from collections.abc import Iterable

from gravswell.serving.contracts import SERVED_KEY, Desired, Report, Served
from gravswell_operator import names
from gravswell_operator.api import ModelRepository
from gravswell_operator.desired.agent import agent_container
from gravswell_operator.desired.network import lister_policy
from gravswell_operator.desired.objects import (
    Manifest,
    Options,
    account,
    child,
    configmap_access,
    labels,
    pod_security,
    scratch_volume,
    token_volume,
)
from gravswell_operator.desired.source import source


def what_is_served(url: str, servers: Iterable[tuple[Desired | None, Iterable[Report]]]) -> Served:
    """What a repository's servers serve or shall serve, by what each was told last and what its agents say.

    What a server was told of another ``url`` is of no version here. What is loaded may be, for a while; it counts.
    """
    found: defaultdict[str, set[int]] = defaultdict(set)
    for desired, reports in servers:
        if desired is not None and desired.repository == url:
            for model in desired.models:
                found[model.name].add(model.version)
                for part in model.parts:
                    found[part.name].add(part.version)
            for entry, canary in desired.canaries.items():
                found[entry].add(canary.version)
        for loaded in (model for report in reports for model in report.models):
            found[loaded.name] |= {loaded.loaded_version} if loaded.loaded_version is not None else set()
    entries = {name: tuple(sorted(numbers)) for name, numbers in sorted(found.items()) if numbers}
    return Served(repository=url, entries=entries)


def children(
    repository: ModelRepository,
    options: Options,
    served: Served | None = None,
    accounts_in_use: Iterable[str] = (),
) -> list[Manifest]:
    """Everything that a repository needs in its namespace, in the order in which it is applied.

    ``served`` is what its lister shall pin: nothing, before any server is known. ``accounts_in_use`` are the
    ServiceAccounts that pods of its lister run as, whatever is wanted now: they keep their rights.
    """
    name = repository.metadata.name
    own = names.lister(name)
    service_account = repository.spec.service_account_name or own
    accounts = list(dict.fromkeys([service_account, *accounts_in_use]))
    listing = names.listing_configmap(name)
    role = names.ROLE_LISTER
    served = served or Served(repository=repository.spec.url)
    made = [child(repository, "v1", "ConfigMap", listing, role=role, data={SERVED_KEY: served.to_json()})]
    if own in accounts:
        made.append(account(repository, own, options, role=role))
    made += configmap_access(repository, own, accounts, role=role, write=[listing])
    made.append(_deployment(repository, service_account, options))
    made += lister_policy(repository, options)
    return made


def _deployment(repository: ModelRepository, service_account: str, options: Options) -> Manifest:
    name = repository.metadata.name
    where = source(repository)
    arguments = [
        "list",
        # A claim's url is not what the pod sees; and two claims look the same from inside.
        "--known-as",
        repository.spec.url,
        "--listing",
        names.listing_configmap(name),
        "--interval",
        repository.spec.sync_interval,
        "--listen",
        f"$(POD_IP):{names.PORT_AGENT}",
    ]
    container = {
        **agent_container("lister", arguments, where, options),
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    }
    selector = names.lister_selector(name)
    pod: Manifest = {
        "serviceAccountName": service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": 10,
        "containers": [container],
        "volumes": [token_volume(), scratch_volume(), *where.volumes],
    }
    if where.node_selector:
        pod["nodeSelector"] = where.node_selector
    spec = {
        "replicas": 1,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": selector},
        # Two listers at once would write the same ConfigMap in turns.
        "strategy": {"type": "Recreate"},
        "template": {"metadata": {"labels": {**where.labels, **labels(repository, names.ROLE_LISTER)}}, "spec": pod},
    }
    return child(repository, "apps/v1", "Deployment", names.lister(name), role=names.ROLE_LISTER, spec=spec)
