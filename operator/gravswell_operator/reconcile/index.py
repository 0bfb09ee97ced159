"""Who depends on whom: which keys an observed change wakes, and which children and pods belong to an object."""

from collections import defaultdict

from gravswell.serving.contracts import LISTING_KEY
from gravswell_operator import conditions, names
from gravswell_operator.api import InferenceServer, Model
from gravswell_operator.api.rollout import RolloutState, Strategy
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Change, Key, Record
from gravswell_operator.desired.autoscaling import sleeps
from gravswell_operator.desired.placement import peak_replicas
from gravswell_operator.state import Unreadable

_OWNER_KINDS = (
    (names.LABEL_SERVER, resources.INFERENCE_SERVER),
    (names.LABEL_REPOSITORY, resources.MODEL_REPOSITORY),
    (names.LABEL_POOL, resources.GPU_NODE_POOL),
)


def owner_key(record: Record) -> Key | None:
    """The object that a child names by its label."""
    for label, resource in _OWNER_KINDS:
        if name := record.labels.get(label):
            return Key(resource, record.key.namespace if resource.namespaced else "", name)
    return None


def repository_key(server: InferenceServer) -> Key:
    """The ModelRepository that the server serves."""
    return Key(resources.MODEL_REPOSITORY, server.metadata.namespace, server.spec.repository_ref.name)


def pool_key(server: InferenceServer) -> Key | None:
    """The GPUNodePool that the server runs on, if it names one."""
    reference = server.spec.node_pool_ref
    return Key(resources.GPU_NODE_POOL, "", reference.name) if reference is not None else None


def server_key(model: Model) -> Key:
    """The InferenceServer that the Model names."""
    return Key(resources.INFERENCE_SERVER, model.metadata.namespace, model.spec.server_ref.name)


class Index:
    """References between objects, kept up to date change by change. Used from one event loop only."""

    def __init__(self) -> None:
        self._children: defaultdict[Key, set[Key]] = defaultdict(set)
        self._referrers: defaultdict[Key, set[Key]] = defaultdict(set)
        self._pools: set[Key] = set()

    def children(self, owner: Key) -> set[Key]:
        """Everything that names ``owner`` by its label: its children, and their pods."""
        return set(self._children.get(owner, ()))

    def referrers(self, target: Key) -> set[Key]:
        """The objects of ours that reference ``target``: the servers of a repository or a pool, a server's Models."""
        return set(self._referrers.get(target, ()))

    @property
    def pools(self) -> set[Key]:
        """Every GPUNodePool."""
        return set(self._pools)

    def apply(self, change: Change) -> set[Key]:
        """Take a change into account; the keys to reconcile because of it."""
        for record in (change.old, change.new):
            if record is not None:
                self._link(record, present=record is change.new)
        if change.key.resource in resources.OWN:
            return self._own_changed(change)
        if change.key.resource in (resources.NODE, resources.CLUSTER_POLICY):
            return set() if _same_view(change) else set(self._pools)
        return self._child_changed(change)

    def _link(self, record: Record, *, present: bool) -> None:
        table, targets = self._referrers, _references(record)
        if record.key.resource is resources.GPU_NODE_POOL:
            (self._pools.add if present else self._pools.discard)(record.key)
        if record.key.resource not in resources.OWN and (owner := owner_key(record)) is not None:
            table, targets = self._children, [owner]
        for target in targets:
            if present:
                table[target].add(record.key)
            elif target in table:
                table[target].discard(record.key)
                if not table[target]:
                    del table[target]

    def _own_changed(self, change: Change) -> set[Key]:
        woken = {change.key}
        if not _meaning_changed(change):
            return woken
        woken |= self.referrers(change.key)
        if change.key.resource is resources.MODEL_REPOSITORY:
            # Models are resolved by what is listed of its url.
            for server in self.referrers(change.key):
                woken |= self.referrers(server)
        for record in (change.old, change.new):
            if record is None:
                continue
            targets = _references(record)
            if record.key.resource is resources.MODEL:
                # The server's desired state, and who of two rivals wins.
                woken |= set(targets)
                for target in targets:
                    woken |= self.referrers(target)
            elif record.key.resource is resources.INFERENCE_SERVER:
                # Whether a pool is used depends on its servers.
                woken |= {target for target in targets if target.resource is resources.GPU_NODE_POOL}
        # What is spare on a pool depends on all its servers.
        for pool in _taken(change.old).items() ^ _taken(change.new).items():
            woken |= self.referrers(pool[0])
        return woken

    def _child_changed(self, change: Change) -> set[Key]:
        # The owner that a child's label no longer names must mend the label, so both are woken.
        owners = {key for record in (change.old, change.new) if record is not None and (key := owner_key(record))}
        if len(owners) == 1 and _same_view(change) and (change.key.resource is resources.POD or _same_content(change)):
            return set()
        woken = set(owners)
        if change.key.resource is resources.CONFIG_MAP and _same_listing(change):
            return woken  # the operator itself told the lister what is served
        if change.key.resource in (resources.POD, resources.CONFIG_MAP, *resources.ROUTES):
            # Reports and pods are what Models are judged by, and routes what gives them weight; listings, what they are
            # resolved by.
            for owner in owners:
                for referrer in self.referrers(owner):
                    woken.add(referrer)
                    woken |= self.referrers(referrer)
        return woken


def _same_view(change: Change) -> bool:
    return change.old is not None and change.new is not None and bool(change.old.view == change.new.view)


def _same_content(change: Change) -> bool:
    return change.old is not None and change.new is not None and change.new.same_content(change.old)


def _same_listing(change: Change) -> bool:
    """Whether this is the ConfigMap of a lister, and what it says of its repository is the same as before."""
    if change.old is None or change.new is None or owner_key(change.new) != owner_key(change.old):
        return False
    texts = [record.view.data.get(LISTING_KEY) for record in (change.old, change.new)]
    return texts[0] is not None and texts[0] == texts[1]


def _references(record: Record) -> list[Key]:
    view = record.view
    if isinstance(view, InferenceServer):
        pool = pool_key(view)
        return [repository_key(view), *([pool] if pool is not None else [])]
    if isinstance(view, Model):
        return [server_key(view)]
    if isinstance(view, Unreadable) and record.key.resource is resources.MODEL:
        server = view.reference("serverRef")
        return [Key(resources.INFERENCE_SERVER, record.key.namespace, server)] if server is not None else []
    if isinstance(view, Unreadable) and record.key.resource is resources.INFERENCE_SERVER:
        name = view.reference("nodePoolRef")  # its pods may run there
        return [Key(resources.GPU_NODE_POOL, "", name)] if name is not None else []
    return []


def _taken(record: Record | None) -> dict[Key, int]:
    """How many GPUs of its pool a server takes by its spec; nothing where it takes none."""
    view = record.view if record is not None else None
    if not isinstance(view, InferenceServer) or (pool := pool_key(view)) is None:
        return {}
    gpus = view.spec.gpus * peak_replicas(view)
    return {pool: gpus} if gpus else {}


def spec_changed(change: Change) -> bool:
    """Whether an object of ours is another one than before, or is asked for something else."""
    old, new = change.old, change.new
    if old is None or new is None or old.uid != new.uid:
        return True
    if isinstance(old.view, Unreadable) or isinstance(new.view, Unreadable):
        return bool(old.view != new.view)
    before, after = old.view.metadata, new.view.metadata
    return bool(before.generation != after.generation or before.deletion_timestamp != after.deletion_timestamp)


def _meaning_changed(change: Change) -> bool:
    """Whether others must know: not for a status that only the object's own reconcile reads."""
    if spec_changed(change):
        return True
    assert change.old is not None
    assert change.new is not None
    if change.key.resource is resources.MODEL:
        return _rollout(change.old) != _rollout(change.new)
    if change.key.resource is resources.INFERENCE_SERVER:
        return _sleeps(change.old) != _sleeps(change.new)
    if change.key.resource is not resources.GPU_NODE_POOL:
        return False
    return _offer(change.old) != _offer(change.new)


def _sleeps(server: Record) -> bool:
    """Its pool is used by one that does not."""
    return not isinstance(server.view, Unreadable) and sleeps(server.view)


def _rollout(model: Record) -> tuple[object, ...] | None:
    """What the agents are told by: of a canary, and of what ranks went back from."""
    found = model.view.status.rollout if not isinstance(model.view, Unreadable) else None
    if found is None or (found.strategy is not Strategy.CANARY and found.state is not RolloutState.ROLLED_BACK):
        return None
    return found.to, found.to_digest, found.started, found.state, found.step


def _offer(pool: Record) -> tuple[int, int, tuple[str, ...]] | None:
    """What servers on the pool decide by, and what they say of it."""
    if isinstance(pool.view, Unreadable):
        return None
    status = pool.view.status
    said = tuple(c.message for c in status.conditions if c.type == conditions.READY)
    return status.allocatable_gpus, status.ready_nodes, said
