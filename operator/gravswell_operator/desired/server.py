"""The children of an ``InferenceServer``: what its agents read and write, the Deployment, and how clients reach it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gravswell.serving.contracts import DESIRED_KEY, Desired
from gravswell_operator import names
from gravswell_operator.api import GPUNodePool, InferenceServer, ModelRepository
from gravswell_operator.desired import gateway
from gravswell_operator.desired.autoscaling import autoscaler
from gravswell_operator.desired.network import server_policy
from gravswell_operator.desired.objects import Manifest, Options, account, child, configmap_access
from gravswell_operator.desired.pod import server_pod
from gravswell_operator.desired.weights import Split
from gravswell_operator.quantities import parse
from gravswell_operator.state import PodState

START_BUDGET_SECONDS = 900
"""Of the progress deadline: for the image, the node and Triton's start."""
DOWNLOAD_BYTES_PER_SECOND = 50 * 1024 * 1024
"""Of the progress deadline: how fast the declared model storage must be filled at least."""


@dataclass(frozen=True)
class ServerPlan:
    """Everything that the children of one server follow from."""

    server: InferenceServer
    repository: ModelRepository
    pool: GPUNodePool | None
    desired: Desired
    surge: bool
    """A roll-out may start a new replica before an old one stops."""
    options: Options
    accounts_in_use: tuple[str, ...] = ()
    """The ServiceAccounts that pods of the server run as, whatever is wanted now: they keep their rights."""
    stopping: bool = False
    """Of a server with ranks: pods of an earlier template are there still, and all of them stop before any starts."""
    pods: Sequence[PodState] = ()
    """Those that there are."""
    split: Split | None = None
    """How a Gateway's requests are divided between them; None: each gets the same."""
    apart: bool = False
    """The Services that told them apart are still in use."""


def children(plan: ServerPlan) -> list[Manifest]:
    """Everything that a server needs in its namespace, in the order in which it is applied.

    The ConfigMaps and the access come before the pods that need them, the autoscaler after what it scales.
    """
    server = plan.server
    name = server.metadata.name
    role = names.ROLE_TRITON
    desired, reports = names.desired_configmap(name), names.report_configmaps(name, plan.desired.reports)
    own = names.agent_account(name)
    service_account = plan.repository.spec.service_account_name or own
    accounts = list(dict.fromkeys([service_account, *plan.accounts_in_use]))
    made = [
        child(server, "v1", "ConfigMap", desired, role=role, data={DESIRED_KEY: plan.desired.to_json()}),
        *(child(server, "v1", "ConfigMap", report, role=role) for report in reports),
    ]
    if own in accounts:
        made.append(account(server, own, plan.options, role=role))
    made += configmap_access(server, own, accounts, role=role, read=[desired], write=reports)
    if server.spec.ranks is None:
        made.append(_service(server))
    made += [_headless(server), _disruption_budget(server)]
    made += gateway.children(server, plan.split, plan.pods, apart=plan.apart)
    made.append((_deployment if server.spec.ranks is None else _stateful_set)(plan, service_account))
    made += autoscaler(server, plan.options)
    made += server_policy(server, plan.options)
    return made


def _ports() -> list[Manifest]:
    ports = (("http", names.PORT_HTTP), ("grpc", names.PORT_GRPC), ("metrics", names.PORT_METRICS))
    return [{"name": name, "port": port, "targetPort": name, "protocol": "TCP"} for name, port in ports]


def _service(server: InferenceServer) -> Manifest:
    service = server.spec.service
    chosen = service.node_ports.model_dump(exclude_none=True) if service.node_ports is not None else {}
    spec = {
        "type": service.type,
        "selector": names.server_selector(server.metadata.name),
        "ports": [{**port, "nodePort": chosen[port["name"]]} if port["name"] in chosen else port for port in _ports()],
    }
    annotations = service.annotations
    return child(
        server,
        "v1",
        "Service",
        server.metadata.name,
        role=names.ROLE_TRITON,
        annotations=annotations,
        spec=spec,
    )


def _headless(server: InferenceServer) -> Manifest:
    spec = {
        "type": "ClusterIP",
        "clusterIP": "None",
        # Not-ready addresses stay unpublished, as is the default: who balances must only see replicas that serve, and a
        # rank has its name only while all ranks are in service.
        "selector": names.server_selector(server.metadata.name),
        "ports": _ports(),
    }
    name = names.headless(server.metadata.name)
    return child(server, "v1", "Service", name, role=names.ROLE_TRITON, spec=spec)


def _disruption_budget(server: InferenceServer) -> Manifest:
    spec = {
        # Of a group of ranks, too: with the first one that goes, the others take no traffic and may go with it.
        "maxUnavailable": 1,
        "selector": {"matchLabels": names.server_selector(server.metadata.name)},
        # A replica that is not ready takes no traffic. By the default it could not be evicted before it is ready, and
        # a model that never loads would hold up every drain of its node.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    name = server.metadata.name
    return child(server, "policy/v1", "PodDisruptionBudget", name, role=names.ROLE_TRITON, spec=spec)


def start_seconds(server: InferenceServer) -> int:
    """How long its replicas may take to start, with the download of as much as they have room for."""
    return START_BUDGET_SECONDS + int(parse(server.spec.model_storage) / DOWNLOAD_BYTES_PER_SECOND)


def _deployment(plan: ServerPlan, service_account: str) -> Manifest:
    server = plan.server
    surge = {"maxSurge": 1, "maxUnavailable": 0} if plan.surge else {"maxSurge": 0, "maxUnavailable": 1}
    spec: dict[str, Any] = {
        "selector": {"matchLabels": names.server_selector(server.metadata.name)},
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": start_seconds(server),
        "strategy": {"type": "RollingUpdate", "rollingUpdate": surge},
        "template": server_pod(server, plan.repository, plan.pool, service_account, plan.options),
    }
    # Left alone while an autoscaler owns it: what we never send, we never take back.
    if server.spec.autoscaling is None:
        spec["replicas"] = server.spec.replicas
    return child(server, "apps/v1", "Deployment", server.metadata.name, role=names.ROLE_TRITON, spec=spec)


def _stateful_set(plan: ServerPlan, service_account: str) -> Manifest:
    """The ranks. They start side by side, and a change of the template stops all of them before it starts any.

    A rolling update would replace one, and wait until it is ready: with a gate that opens for all at once that would be
    an interruption for each rank, and never go on where those that are still to be replaced are what is broken.
    """
    server = plan.server
    name = server.metadata.name
    spec = {
        "replicas": 0 if plan.stopping else server.spec.ranks,
        "serviceName": names.headless(name),
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": names.server_selector(name)},
        "revisionHistoryLimit": 3,
        "updateStrategy": {"type": "OnDelete"},
        "template": server_pod(server, plan.repository, plan.pool, service_account, plan.options),
    }
    return child(server, "apps/v1", "StatefulSet", name, role=names.ROLE_TRITON, spec=spec)
