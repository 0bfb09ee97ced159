"""The pod of a server's replica: a key that only its own containers know, Triton, and the agent beside it."""

from typing import Any

from gravswell.serving.triton.flags import pod_command
from gravswell_operator import names
from gravswell_operator.api import GPUNodePool, InferenceServer, ModelRepository
from gravswell_operator.api.inferenceserver import ClaimCache
from gravswell_operator.desired.agent import agent_container
from gravswell_operator.desired.objects import (
    CACHE_FOLDER,
    KEY_FILE,
    KEY_FOLDER,
    MODELS_FOLDER,
    Manifest,
    Options,
    container_security,
    field_env,
    http_probe,
    labels,
    no_gpus_env,
    own_container_security,
    pod_security,
    scratch_volume,
    token_volume,
)
from gravswell_operator.desired.placement import merged_selector, pool_node_selector, tolerations
from gravswell_operator.desired.source import Source, source
from gravswell_operator.quantities import parse

DRAIN_SECONDS = 5
"""Pause before a replica stops, for load balancers and clients to see that it goes."""
EXIT_SECONDS = 30
"""How long Triton finishes what it has begun."""
GRACE_SECONDS = 60
"""Above the two together, so that nothing is killed that is still answering."""
SHARED_MEMORY = "1Gi"
TEMPORARY = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108  a mount path, not a temporary file of ours
"""What Triton may write to where its root file system is read-only, beside its shared memory."""
TEMPORARY_SIZE = "1Gi"


def server_pod(
    server: InferenceServer,
    repository: ModelRepository,
    pool: GPUNodePool | None,
    service_account: str,
    options: Options,
) -> Manifest:
    """The pod template of a server's Deployment, or of the StatefulSet of its ranks.

    Raises :class:`ValueError` where the node labels contradict one another.
    """
    template = server.spec.pod_template
    where = source(repository)
    pod: Manifest = {
        "serviceAccountName": service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "initContainers": [_key_container(options)],
        "containers": [_triton(server, pool, options), _agent(server, where, options)],
        "volumes": _volumes(server, where),
    }
    if server.spec.ranks is not None:
        pod["readinessGates"] = [{"conditionType": names.GATE}]
    selector = merged_selector(
        where.node_selector, pool_node_selector(pool) if pool is not None else {}, template.node_selector
    )
    if server.spec.cache is not None:
        # The kubelet would else change the group of every file of the cache, again for each pod that starts.
        pod["securityContext"]["fsGroupChangePolicy"] = "OnRootMismatch"
    if selector:
        pod["nodeSelector"] = selector
    if tolerated := tolerations(server, pool):
        pod["tolerations"] = tolerated
    if template.topology_spread_constraints:
        replicas = {"matchLabels": {names.LABEL_SERVER: server.metadata.name, names.LABEL_ROLE: names.ROLE_TRITON}}
        pod["topologySpreadConstraints"] = [
            {**constraint.to_dict(), "labelSelector": replicas} for constraint in template.topology_spread_constraints
        ]
    if template.priority_class_name is not None:
        pod["priorityClassName"] = template.priority_class_name
    if template.image_pull_secrets:
        # A pod with secrets of its own gets none of its account's, so the installation's are named again.
        secrets = dict.fromkeys([*options.image_pull_secrets, *(s.name for s in template.image_pull_secrets)])
        pod["imagePullSecrets"] = [{"name": secret} for secret in secrets]
    metadata: Manifest = {"labels": {**template.labels, **where.labels, **labels(server, names.ROLE_TRITON)}}
    # As with labels, ours come last: by them Triton, whose image is the user's, is kept from the repository's identity.
    if annotations := {**template.annotations, **where.annotations}:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": pod}


def _key_container(options: Options) -> Manifest:
    return {
        "name": "key",
        "image": options.image,
        "command": ["gravswell", "agent", "init"],
        "args": ["--key-file", KEY_FILE],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": own_container_security(),
        "volumeMounts": [{"name": "run", "mountPath": KEY_FOLDER}],
    }


def _triton(server: InferenceServer, pool: GPUNodePool | None, options: Options) -> Manifest:
    spec = server.spec
    requests: dict[str, Any] = {"cpu": spec.vcpus, "memory": spec.memory}
    limits: dict[str, Any] = {"memory": spec.memory}
    env = [field_env("POD_IP", "status.podIP")]
    if spec.gpus and pool is not None:
        resource = pool.spec.accelerator.resource_name
        requests[resource] = limits[resource] = str(spec.gpus)
    else:
        env.append(no_gpus_env())
    for variable in spec.pod_template.env:
        # The API server drops an empty value, so it must not be wanted either.
        env.append({"name": variable.name, **({"value": variable.value} if variable.value else {})})
    return {
        "name": "triton",
        "image": spec.image or f"{options.triton_image}:{spec.tag}-py3",
        "command": ["/bin/sh", "-c"],
        "args": [
            pod_command(
                model_repository=MODELS_FOLDER,
                key_file=KEY_FILE,
                also_closed=spec.restricted_apis,
                exit_timeout_seconds=EXIT_SECONDS,
            ),
        ],
        "env": env,
        "ports": [
            {"name": "http", "containerPort": names.PORT_HTTP, "protocol": "TCP"},
            {"name": "grpc", "containerPort": names.PORT_GRPC, "protocol": "TCP"},
            {"name": "metrics", "containerPort": names.PORT_METRICS, "protocol": "TCP"},
        ],
        "resources": {"requests": requests, "limits": limits},
        "securityContext": own_container_security() if spec.read_only_root_filesystem else container_security(),
        "lifecycle": _drain(),
        # Both are about a process that never answers, not about a slow one: readiness is the agent's to say.
        "startupProbe": http_probe("/v2/health/live", "http", period=1, timeout=10, failures=600),
        # Asked here too: of a Triton that was started again the kubelet then forgets what was true of the one before.
        "readinessProbe": http_probe("/readyz", names.PORT_AGENT, period=1, timeout=5, failures=10),
        "livenessProbe": http_probe("/v2/health/live", "http", period=30, timeout=30, failures=10),
        "volumeMounts": [
            {"name": "models", "mountPath": MODELS_FOLDER, "readOnly": True},
            {"name": "run", "mountPath": KEY_FOLDER, "readOnly": True},
            {"name": "dshm", "mountPath": "/dev/shm"},  # noqa: S108  a mount path, not a temporary file of ours
            *([TEMPORARY] if spec.read_only_root_filesystem else []),
        ],
    }


def _agent(server: InferenceServer, where: Source, options: Options) -> Manifest:
    name = server.metadata.name
    arguments = [
        "run",
        "--models",
        MODELS_FOLDER,
        # The kubelet enforces both, by evicting the pod and killing Triton; the agent cannot see them from inside.
        "--storage-limit",
        str(int(parse(server.spec.model_storage))),
        "--memory-limit",
        str(int(parse(server.spec.memory))),
        "--desired",
        names.desired_configmap(name),
        "--report",
        names.report_configmap(name),
        "--listen",
        f"$(POD_IP):{names.PORT_AGENT}",
        "--triton-http",
        f"$(POD_IP):{names.PORT_HTTP}",
        "--triton-grpc",
        f"$(POD_IP):{names.PORT_GRPC}",
        "--key-file",
        KEY_FILE,
    ]
    if server.spec.gpus == 0:
        arguments += ["--device", "cpu"]
    else:
        arguments += ["--triton-metrics", f"$(POD_IP):{names.PORT_METRICS}"]
    env: list[Manifest] = []
    if server.spec.ranks is not None:
        arguments += ["--rank", "$(POD_RANK)"]
        env += [field_env("POD_RANK", f"metadata.labels['{names.LABEL_RANK}']"), field_env("POD_UID", "metadata.uid")]
    mounts: list[Manifest] = [
        {"name": "models", "mountPath": MODELS_FOLDER},
        {"name": "run", "mountPath": KEY_FOLDER, "readOnly": True},
    ]
    # Not for Triton: Python of a model runs there, and what one pod writes into the cache others would find.
    if (claim := _cache_claim(server)) is not None:
        arguments += ["--cache", CACHE_FOLDER]
        if claim.size_limit is not None:
            arguments += ["--cache-limit", str(int(parse(claim.size_limit)))]
        mounts.append({"name": "cache", "mountPath": CACHE_FOLDER})
    container = agent_container("agent", arguments, where, options, mounts)
    return {
        **container,
        "env": [*env, *container["env"]],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "lifecycle": _drain(),
    }


def _cache_claim(server: InferenceServer) -> ClaimCache | None:
    return None if server.spec.cache is None else server.spec.cache.persistent_volume_claim


def _drain() -> Manifest:
    return {"preStop": {"sleep": {"seconds": DRAIN_SECONDS}}}


def _volumes(server: InferenceServer, where: Source) -> list[Manifest]:
    claim = _cache_claim(server)
    cache = [] if claim is None else [{"name": "cache", "persistentVolumeClaim": {"claimName": claim.claim_name}}]
    temporary = {"name": TEMPORARY["name"], "emptyDir": {"sizeLimit": TEMPORARY_SIZE}}
    return [
        {"name": "models", "emptyDir": {"sizeLimit": server.spec.model_storage}},
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": SHARED_MEMORY}},
        token_volume(),
        scratch_volume(),
        *([temporary] if server.spec.read_only_root_filesystem else []),
        *cache,
        *where.volumes,
    ]
