"""A simulated Google: a server on loopback that speaks the Container API's gRPC, with the messages of Google's library.

There is no machine behind it. What it keeps to is the API's behaviour as clients see it: names are unique, what changes
something answers an operation that takes time, a cluster does one such thing at a time, an operation may fail long
after the call, and faults are had by order (:meth:`SimulatedGke.fault`).
"""

import base64
import contextlib
import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import grpc
from google.cloud import container_v1 as container
from google.rpc import code_pb2

from gravswell.serving.triton.ports import held_port

Operation = container.Operation
Status = Operation.Status
PoolStatus = container.NodePool.Status
ClusterStatus = container.Cluster.Status

THROTTLE = "throttle"
QUOTA = "quota"
DENIED = "denied"
AWAY = "away"
LOST = "lost"
SLOW = "slow"
FAILS = "fails"
STOCKOUT = "stockout"
BLOCKED = "blocked"
FORGETS = "forgets"
LATE = "late"
"""What :meth:`SimulatedGke.fault` takes."""

_REFUSALS = {
    THROTTLE: (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "Quota exceeded for quota metric 'Write requests' and limit 'Write requests per minute'",
    ),
    QUOTA: (
        grpc.StatusCode.PERMISSION_DENIED,
        "Insufficient regional quota: resource \"CPUS\": request requires '64.0' and is short '40.0'",
    ),
    DENIED: (
        grpc.StatusCode.PERMISSION_DENIED,
        'Required "container.clusters.create" permission(s) for "projects/demo".',
    ),
    AWAY: (grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable."),
}
_FAILURES = {
    FAILS: (code_pb2.RESOURCE_EXHAUSTED, "Quota 'NVIDIA_T4_GPUS' exceeded. Limit: 1.0 in region us-east4."),
    STOCKOUT: (
        code_pb2.RESOURCE_EXHAUSTED,
        "[GCE_STOCKOUT]: Instance creation failed: The zone does not have enough resources available.",
    ),
    BLOCKED: (code_pb2.FAILED_PRECONDITION, "The instance group is in use by the backend service 'front'."),
}
_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,38}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9_-]{0,63}")


class RefusalError(Exception):
    def __init__(self, code: grpc.StatusCode, words: str) -> None:
        super().__init__(words)
        self.code, self.words = code, words


@dataclass
class _Fault:
    method: str
    kind: str
    times: int
    seconds: float


NodesChanged = Callable[[str, str, int], None]
"""Told the cluster, the node pool and how many nodes it has by now."""


class SimulatedGke:
    """The server. As a context manager; ``url`` is what clients take as their endpoint.

    ``seconds`` is what an operation takes. ``endpoint`` and ``authority`` are the address and the certificate (PEM) of
    an API server that every cluster is said to have. ``on_nodes`` is called when a node pool has other nodes.
    """

    def __init__(
        self,
        *,
        seconds: float = 0.0,
        endpoint: str = "",
        authority: str = "",
        on_nodes: NodesChanged = lambda *_: None,
    ) -> None:
        self.seconds, self._endpoint, self._authority, self._on_nodes = seconds, endpoint, authority, on_nodes
        self.clusters: dict[str, container.Cluster] = {}
        """By their path."""
        self.operations: dict[str, Operation] = {}
        self.calls: Counter[str] = Counter()
        self.made: list[str] = []
        """The paths of all clusters and node pools that were ever begun."""
        self.nodes: dict[str, int] = {}
        """By node pools' paths, how many there are by now."""
        self._faults: list[_Fault] = []
        self._before: dict[str, Callable[[], None]] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._timers: list[threading.Timer] = []
        self._server: grpc.Server | None = None
        # Held while the server is down, or a client of anything else could be given the port meanwhile.
        self._held = contextlib.ExitStack()
        self._port = self._held.enter_context(held_port("127.0.0.1"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._held.close()
        for timer in self._timers:
            timer.cancel()
            timer.join(timeout=30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen; on the port of before, after a :meth:`stop`."""
        server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        handlers = {name: self._handler(name, *kinds) for name, kinds in _METHODS.items()}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("google.container.v1.ClusterManager", handlers),)
        )
        server.add_insecure_port(f"127.0.0.1:{self._port}")
        server.start()
        self._server = server

    def stop(self) -> None:
        """Listen no longer; what there is stays."""
        if self._server is not None:
            self._server.stop(grace=None).wait(timeout=30)
            self._server = None

    def fault(self, method: str, kind: str, times: int = 1, *, seconds: float = 0.0) -> None:
        """The next ``times`` calls of ``method`` (``CreateNodePool``…) have a fault.

        ``throttle``, ``quota``, ``denied`` and ``away`` refuse; ``lost`` does it, and the answer gets lost; ``slow``
        answers after ``seconds``; ``late`` gets lost, and is taken after ``seconds``; of ``fails``, ``stockout`` and
        ``blocked`` the operation fails; ``forgets`` begins an operation that is not known when it is asked for.
        """
        with self._lock:
            self._faults.append(_Fault(method, kind, times, seconds))

    def before(self, method: str, work: Callable[[], None]) -> None:
        """Do this before the next call of ``method`` is answered."""
        with self._lock:
            self._before[method] = work

    def settle(self) -> None:
        """Return when no operation is under way."""
        for timer in self._timers:
            timer.join(timeout=30)

    def mend(self) -> None:
        """No more of the faults that were ordered."""
        with self._lock:
            self._faults.clear()

    def pool(self, path: str) -> container.NodePool:
        """The node pool as it is; KeyError without it."""
        with self._lock:
            cluster, _, name = path.partition("/nodePools/")
            return next(p for p in self.clusters[cluster].node_pools if p.name == name)

    def pools(self) -> list[str]:
        """The paths of all node pools there are."""
        with self._lock:
            return [f"{path}/nodePools/{pool.name}" for path, c in self.clusters.items() for pool in c.node_pools]

    def _handler(self, name: str, request: Any, answer: Any) -> grpc.RpcMethodHandler:
        def call(asked: Any, context: grpc.ServicerContext) -> Any:
            try:
                return self._answer(name, asked)
            except RefusalError as refusal:
                context.abort(refusal.code, refusal.words)

        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=request.deserialize, response_serializer=answer.serialize
        )

    def _answer(self, name: str, asked: Any) -> Any:
        with self._lock:
            self.calls[name] += 1
            fault = next((f for f in self._faults if f.method == name and f.times > 0), None)
            if fault is not None:
                fault.times -= 1
            before = self._before.pop(name, None)
        if before is not None:
            before()
        kind = fault.kind if fault is not None else ""
        if kind in _REFUSALS:
            raise RefusalError(*_REFUSALS[kind])
        if fault is not None and kind == LATE:

            def late() -> None:
                with contextlib.suppress(RefusalError):  # of which nobody is told any more
                    getattr(self, f"_{name}")(asked, "")

            self._after(fault.seconds, late)
            raise RefusalError(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        with self._lock:
            answer = getattr(self, f"_{name}")(asked, kind)
        if fault is not None and kind == SLOW:
            time.sleep(fault.seconds)
        if kind == LOST:
            raise RefusalError(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return answer

    # the verbs ---------------------------------------------------------------------------------------------------

    def _ListClusters(self, asked: container.ListClustersRequest, kind: str) -> container.ListClustersResponse:
        prefix = asked.parent.removesuffix("-")
        found = [c for path, c in self.clusters.items() if path.startswith(prefix)]
        return container.ListClustersResponse(clusters=found)

    def _GetCluster(self, asked: container.GetClusterRequest, kind: str) -> container.Cluster:
        return self._cluster(asked.name)

    def _CreateCluster(self, asked: container.CreateClusterRequest, kind: str) -> Operation:
        cluster = container.Cluster(asked.cluster)
        path = f"{asked.parent}/clusters/{cluster.name}"
        if path in self.clusters:
            _refuse(grpc.StatusCode.ALREADY_EXISTS, f"Already exists: {path}.")
        _check_name(cluster.name)
        _check_labels(dict(cluster.resource_labels))
        if not cluster.node_pools and cluster.initial_node_count < 1:
            _refuse(grpc.StatusCode.INVALID_ARGUMENT, "Cluster.initial_node_count must be greater than zero.")
        cluster.status, cluster.location = ClusterStatus.PROVISIONING, asked.parent.rpartition("/")[2]
        cluster.create_time = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        if not cluster.node_pools:
            cluster.node_pools = [
                container.NodePool(name="default-pool", initial_node_count=cluster.initial_node_count)
            ]
        for pool in cluster.node_pools:
            pool.status = PoolStatus.PROVISIONING
            pool.config.machine_type = pool.config.machine_type or "e2-medium"
        self.clusters[path] = cluster
        self.made.append(path)

        def finish(error: str) -> None:
            cluster.status = ClusterStatus.ERROR if error else ClusterStatus.RUNNING
            cluster.status_message = error
            cluster.endpoint = self._endpoint
            cluster.master_auth.cluster_ca_certificate = base64.b64encode(self._authority.encode()).decode()
            for pool in cluster.node_pools:
                pool.status = PoolStatus.ERROR if error else PoolStatus.RUNNING
                self._have(path, pool.name, 0 if error else pool.initial_node_count)

        return self._begin(Operation.Type.CREATE_CLUSTER, path, kind, finish)

    def _DeleteCluster(self, asked: container.DeleteClusterRequest, kind: str) -> Operation:
        cluster = self._cluster(asked.name)
        self._check_free(asked.name)
        cluster.status = ClusterStatus.STOPPING

        def finish(error: str) -> None:
            for pool in cluster.node_pools:
                self._have(asked.name, pool.name, 0)
            del self.clusters[asked.name]

        return self._begin(Operation.Type.DELETE_CLUSTER, asked.name, kind, finish)

    def _ListNodePools(self, asked: container.ListNodePoolsRequest, kind: str) -> container.ListNodePoolsResponse:
        return container.ListNodePoolsResponse(node_pools=list(self._cluster(asked.parent).node_pools))

    def _GetNodePool(self, asked: container.GetNodePoolRequest, kind: str) -> container.NodePool:
        return self._pool(asked.name)

    def _CreateNodePool(self, asked: container.CreateNodePoolRequest, kind: str) -> Operation:
        cluster = self._cluster(asked.parent)
        pool = container.NodePool(asked.node_pool)
        path = f"{asked.parent}/nodePools/{pool.name}"
        if any(other.name == pool.name for other in cluster.node_pools):
            _refuse(grpc.StatusCode.ALREADY_EXISTS, f"Already exists: {path}.")
        self._check_free(asked.parent)
        _check_name(pool.name)
        _check_labels(dict(pool.config.resource_labels))
        pool.status = PoolStatus.PROVISIONING
        cluster.node_pools.append(pool)
        self.made.append(path)

        def finish(error: str) -> None:
            kept = self._pool(path)
            kept.status, kept.status_message = (PoolStatus.ERROR, error) if error else (PoolStatus.RUNNING, "")
            self._have(asked.parent, pool.name, 0 if error else pool.initial_node_count)

        return self._begin(Operation.Type.CREATE_NODE_POOL, path, kind, finish)

    def _DeleteNodePool(self, asked: container.DeleteNodePoolRequest, kind: str) -> Operation:
        pool = self._pool(asked.name)
        path, _, name = asked.name.partition("/nodePools/")
        self._check_free(path)
        pool.status = PoolStatus.STOPPING

        def finish(error: str) -> None:
            if error:
                pool.status, pool.status_message = PoolStatus.RUNNING_WITH_ERROR, error
                return
            cluster = self.clusters[path]
            cluster.node_pools = [p for p in cluster.node_pools if p.name != name]
            self._have(path, name, 0)

        return self._begin(Operation.Type.DELETE_NODE_POOL, asked.name, kind, finish)

    def _SetNodePoolSize(self, asked: container.SetNodePoolSizeRequest, kind: str) -> Operation:
        path, name = self._reconciling(asked.name)

        def finish(error: str) -> None:
            self._pool(asked.name).status = PoolStatus.RUNNING
            if not error:
                self._have(path, name, asked.node_count)

        return self._begin(Operation.Type.SET_NODE_POOL_SIZE, asked.name, kind, finish)

    def _UpdateNodePool(self, asked: container.UpdateNodePoolRequest, kind: str) -> Operation:
        """Of what there is to change, Google's labels alone."""
        self._reconciling(asked.name)
        _check_labels(dict(asked.resource_labels.labels))

        def finish(error: str) -> None:
            pool = self._pool(asked.name)
            pool.status = PoolStatus.RUNNING
            if not error:
                pool.config.resource_labels = dict(asked.resource_labels.labels)

        return self._begin(Operation.Type.UPDATE_CLUSTER, asked.name, kind, finish)

    def _SetNodePoolAutoscaling(self, asked: container.SetNodePoolAutoscalingRequest, kind: str) -> Operation:
        path, name = self._reconciling(asked.name)

        def finish(error: str) -> None:
            self._pool(asked.name).status = PoolStatus.RUNNING
            if error:
                return
            self._pool(asked.name).autoscaling = asked.autoscaling
            if asked.autoscaling.enabled:
                now = self.nodes.get(asked.name, 0)
                least, most = asked.autoscaling.min_node_count, asked.autoscaling.max_node_count
                self._have(path, name, min(max(now, least), most))

        return self._begin(Operation.Type.UPDATE_CLUSTER, asked.name, kind, finish)

    def _GetOperation(self, asked: container.GetOperationRequest, kind: str) -> Operation:
        name = asked.name.rpartition("/")[2]
        if name not in self.operations:
            _refuse(grpc.StatusCode.NOT_FOUND, f"Not found: {asked.name}.")
        return self.operations[name]

    # the state ---------------------------------------------------------------------------------------------------

    def _cluster(self, path: str) -> container.Cluster:
        if path not in self.clusters:
            _refuse(grpc.StatusCode.NOT_FOUND, f"Not found: {path}.")
        return self.clusters[path]

    def _pool(self, path: str) -> container.NodePool:
        cluster, _, name = path.partition("/nodePools/")
        found = next((p for p in self._cluster(cluster).node_pools if p.name == name), None)
        if found is None:
            _refuse(grpc.StatusCode.NOT_FOUND, f"Not found: {path}.")
        return found

    def _check_free(self, cluster: str) -> None:
        """A cluster does one thing at a time."""
        for operation in self.operations.values():
            if operation.target_link.partition("/nodePools/")[0] == cluster and operation.status != Status.DONE:
                _refuse(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"Cluster is running incompatible operation {operation.name}.",
                )

    def _reconciling(self, path: str) -> tuple[str, str]:
        """The cluster and the name of a node pool that begins to change."""
        pool = self._pool(path)
        cluster, _, name = path.partition("/nodePools/")
        self._check_free(cluster)
        pool.status = PoolStatus.RECONCILING
        return cluster, name

    def _have(self, cluster: str, pool: str, nodes: int) -> None:
        self.nodes[f"{cluster}/nodePools/{pool}"] = nodes
        self._on_nodes(cluster, pool, nodes)

    def _begin(self, kind: Operation.Type, target: str, fault: str, finish: Callable[[str], None]) -> Operation:
        operation = Operation(
            name=f"operation-{next(self._numbers)}", operation_type=kind, status=Status.RUNNING, target_link=target
        )
        kept = operation if fault != FORGETS else Operation(operation)
        self.operations[operation.name] = kept

        def done() -> None:
            code, words = _FAILURES.get(fault, (0, ""))
            finish(words)
            kept.status = Status.DONE
            if code:
                kept.error = {"code": code, "message": words}

        if fault == FORGETS:
            self.operations[f"forgotten-{operation.name}"] = self.operations.pop(operation.name)
        self._after(self.seconds, done)
        return Operation(operation)

    def _after(self, seconds: float, work: Callable[[], object]) -> None:
        def locked() -> None:
            with self._lock:
                work()

        timer = threading.Timer(seconds, locked)
        timer.daemon = True
        self._timers.append(timer)
        timer.start()


_METHODS: dict[str, tuple[Any, Any]] = {
    "ListClusters": (container.ListClustersRequest, container.ListClustersResponse),
    "GetCluster": (container.GetClusterRequest, container.Cluster),
    "CreateCluster": (container.CreateClusterRequest, Operation),
    "DeleteCluster": (container.DeleteClusterRequest, Operation),
    "ListNodePools": (container.ListNodePoolsRequest, container.ListNodePoolsResponse),
    "GetNodePool": (container.GetNodePoolRequest, container.NodePool),
    "CreateNodePool": (container.CreateNodePoolRequest, Operation),
    "DeleteNodePool": (container.DeleteNodePoolRequest, Operation),
    "SetNodePoolSize": (container.SetNodePoolSizeRequest, Operation),
    "SetNodePoolAutoscaling": (container.SetNodePoolAutoscalingRequest, Operation),
    "UpdateNodePool": (container.UpdateNodePoolRequest, Operation),
    "GetOperation": (container.GetOperationRequest, Operation),
}


def _refuse(code: grpc.StatusCode, words: str) -> NoReturn:
    raise RefusalError(code, words)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        _refuse(grpc.StatusCode.INVALID_ARGUMENT, f"Invalid name {name!r}: 1 to 40 of a to z, digits and -.")


def _check_labels(labels: dict[str, str]) -> None:
    for key, value in labels.items():
        if not key or not key[0].islower() or not _LABEL.fullmatch(key) or not _LABEL.fullmatch(value):
            _refuse(grpc.StatusCode.INVALID_ARGUMENT, f"Invalid label {key}={value}.")
