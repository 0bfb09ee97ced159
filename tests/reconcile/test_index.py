"""Whom a change wakes."""

import copy

import pytest

from gravswell_operator import names
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.cache import Cache, Key
from gravswell_operator.reconcile.index import Index

VERSION = iter(range(1, 10**6))


@pytest.fixture
def world(manifest):
    return World(manifest)


class World:
    """A cache and its index; each observation says which keys it woke, by kind and name."""

    def __init__(self, manifest) -> None:
        self.cache, self.index, self.manifest = Cache(), Index(), manifest

    def own(self, resource, name, change=None, *, generation=1, deleted=False):
        body = self.manifest(resource.kind, {"metadata": {"name": name}, **(change or {})})
        return self._observe(resource, body, deleted=deleted, generation=generation)

    def child(self, resource, name, labels, *, deleted=False, **content):
        labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, **labels}
        body = {"kind": resource.kind, "metadata": {"name": name, "labels": labels}, **content}
        return self._observe(resource, body, deleted=deleted)

    def node(self, name, **content):
        return self._observe(resources.NODE, {"metadata": {"name": name}, **content})

    def _observe(self, resource, body, *, deleted=False, generation=1):
        namespace = {"namespace": "ns"} if resource.namespaced else {}
        body = copy.deepcopy(body)  # the manifests are shared
        body["metadata"] |= {"uid": body["metadata"]["name"], "resourceVersion": str(next(VERSION))} | namespace
        body["metadata"]["generation"] = generation
        change = self.cache.observe(resource, body, deleted=deleted)
        return {str(key).split(" ")[0] + " " + key.name for key in self.index.apply(change)}


def test_an_object_wakes_itself_and_who_refers_to_it(world):
    assert world.own(resources.INFERENCE_SERVER, "server") == {"InferenceServer server", "GPUNodePool pool"}
    assert world.own(resources.MODEL, "m") == {"Model m", "InferenceServer server"}
    assert world.own(resources.MODEL_REPOSITORY, "models") == {
        "ModelRepository models",
        "InferenceServer server",
        "Model m",  # what it resolves to is of the repository's url
    }
    assert world.own(resources.GPU_NODE_POOL, "pool") == {"GPUNodePool pool", "InferenceServer server"}
    woken = {"InferenceServer server", "GPUNodePool pool", "Model m"}
    assert world.own(resources.INFERENCE_SERVER, "server", generation=2) == woken


def test_a_status_wakes_nobody_else(world):
    world.own(resources.MODEL, "m")
    world.own(resources.INFERENCE_SERVER, "server")
    assert world.own(resources.INFERENCE_SERVER, "server") == {"InferenceServer server"}


def test_what_a_pool_offers_wakes_its_servers(world):
    world.own(resources.INFERENCE_SERVER, "server")
    world.own(resources.GPU_NODE_POOL, "pool")
    woken = world.own(resources.GPU_NODE_POOL, "pool", {"status": {"allocatableGPUs": 4, "readyNodes": 1}})
    assert woken == {"GPUNodePool pool", "InferenceServer server"}


def test_servers_of_one_pool_share_what_is_spare(world):
    world.own(resources.INFERENCE_SERVER, "server")
    both = {"InferenceServer server", "InferenceServer other", "GPUNodePool pool"}
    assert world.own(resources.INFERENCE_SERVER, "other") == both
    assert world.own(resources.INFERENCE_SERVER, "other", {"spec": {"replicas": 9}}, generation=2) == both


def test_a_server_that_takes_as_much_of_its_pool_as_before_wakes_no_other(world):
    """Else each of a thousand servers that are made is the work of a thousand."""
    world.own(resources.INFERENCE_SERVER, "server")
    on_cpu = {"spec": {"gpus": 0}}
    alone = {"InferenceServer other", "GPUNodePool pool"}
    assert world.own(resources.INFERENCE_SERVER, "other", on_cpu) == alone
    assert world.own(resources.INFERENCE_SERVER, "other", on_cpu, generation=2) == alone


def test_rivals_wake_each_other(world):
    world.own(resources.MODEL, "old")
    world.own(resources.MODEL, "new")
    assert world.own(resources.MODEL, "old", deleted=True) == {"Model old", "Model new", "InferenceServer server"}


@pytest.mark.parametrize("resource", resources.CHILDREN, ids=str)
def test_a_child_wakes_its_owner(world, resource):
    label = {names.LABEL_POOL: "pool"} if resource is resources.DAEMON_SET else {names.LABEL_SERVER: "server"}
    owner = "GPUNodePool pool" if resource is resources.DAEMON_SET else "InferenceServer server"
    assert world.child(resource, "c", label) == {owner}
    assert world.child(resource, "c", label, deleted=True) == {owner}


@pytest.mark.parametrize("resource", resources.CHILDREN, ids=str)
def test_a_child_of_which_nothing_changes_that_is_read_wakes_nobody(world, resource):
    """Its controller counts what we do not: a PodDisruptionBudget's status, or when a Deployment looked last."""
    label = {names.LABEL_SERVER: "server"}
    world.child(resource, "c", label)
    assert world.child(resource, "c", label, status={"disruptionsAllowed": 1, "lastLook": "now"}) == set()
    assert world.child(resource, "c", label, data={"k": "v"}, other={}) == {"InferenceServer server"}


def test_a_child_whose_label_changes_wakes_whom_it_named_and_whom_it_names(world):
    world.child(resources.SERVICE, "c", {names.LABEL_SERVER: "server"})
    assert world.child(resources.SERVICE, "c", {names.LABEL_SERVER: "other"}) == {
        "InferenceServer server",
        "InferenceServer other",
    }
    assert world.child(resources.SERVICE, "c", {}) == {"InferenceServer other"}


def test_a_pod_that_moves_to_another_server_wakes_both_and_their_models(world):
    world.own(resources.MODEL, "m")
    world.child(resources.POD, "p", {names.LABEL_SERVER: "other"})
    woken = world.child(resources.POD, "p", {names.LABEL_SERVER: "server"})
    assert woken == {"InferenceServer other", "InferenceServer server", "Model m"}


def test_a_report_wakes_the_server_and_its_models(world):
    world.own(resources.MODEL, "m")
    woken = world.child(resources.CONFIG_MAP, "server-report", {names.LABEL_SERVER: "server"}, data={"p": "{}"})
    assert woken == {"InferenceServer server", "Model m"}


def test_a_listing_wakes_everything_that_is_resolved_by_it(world):
    world.own(resources.INFERENCE_SERVER, "server")
    world.own(resources.MODEL, "m")
    woken = world.child(resources.CONFIG_MAP, "models-listing", {names.LABEL_REPOSITORY: "models"})
    assert woken == {"ModelRepository models", "InferenceServer server", "Model m"}


def test_what_a_lister_is_told_to_pin_concerns_nobody_else(world):
    world.own(resources.INFERENCE_SERVER, "server")
    label = {names.LABEL_REPOSITORY: "models"}
    world.child(resources.CONFIG_MAP, "models-listing", label, data={"listing.json": "a"})
    woken = world.child(resources.CONFIG_MAP, "models-listing", label, data={"listing.json": "a", "served.json": "b"})
    assert woken == {"ModelRepository models"}
    woken = world.child(resources.CONFIG_MAP, "models-listing", label, data={"listing.json": "c", "served.json": "b"})
    assert woken == {"ModelRepository models", "InferenceServer server"}


def test_a_pod_that_says_nothing_new_wakes_nobody(world):
    labels = {names.LABEL_SERVER: "server"}
    assert world.child(resources.POD, "p", labels) == {"InferenceServer server"}
    assert world.child(resources.POD, "p", labels, status={"podIP": "10.0.0.1"}) == set()
    assert world.child(resources.POD, "p", labels, spec={"nodeName": "n"}) == set()
    restarted = {"containerStatuses": [{"name": "c", "restartCount": 1, "state": {"running": {}}}]}
    assert world.child(resources.POD, "p", labels, status=restarted) == set()
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    assert world.child(resources.POD, "p", labels, status=ready) == {"InferenceServer server"}


def test_a_node_wakes_the_pools_unless_it_is_a_heartbeat(world):
    world.own(resources.GPU_NODE_POOL, "pool")
    assert world.node("n") == {"GPUNodePool pool"}
    assert world.node("n", status={"conditions": [{"type": "Ready", "status": "False"}]}) == set()
    assert world.node("n", status={"conditions": [{"type": "Ready", "status": "True"}]}) == {"GPUNodePool pool"}


def test_a_reference_that_moves_is_forgotten(world):
    world.own(resources.INFERENCE_SERVER, "server")
    world.own(resources.INFERENCE_SERVER, "server", {"spec": {"repositoryRef": {"name": "other"}}}, generation=2)
    assert world.own(resources.MODEL_REPOSITORY, "models") == {"ModelRepository models"}
    assert world.own(resources.MODEL_REPOSITORY, "other") == {"ModelRepository other", "InferenceServer server"}


def test_what_is_gone_leaves_nothing_behind(world):
    world.own(resources.INFERENCE_SERVER, "server")
    world.child(resources.POD, "p", {names.LABEL_SERVER: "server"})
    key = Key(resources.INFERENCE_SERVER, "ns", "server")
    assert {k.name for k in world.index.children(key)} == {"p"}
    world.child(resources.POD, "p", {names.LABEL_SERVER: "server"}, deleted=True)
    world.own(resources.INFERENCE_SERVER, "server", deleted=True)
    assert world.index.children(key) == set()
    assert world.index.referrers(Key(resources.GPU_NODE_POOL, "", "pool")) == set()
