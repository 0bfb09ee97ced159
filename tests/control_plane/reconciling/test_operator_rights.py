"""Least privilege: what the chart grants the operator is what it asks for, no more and no less.

The operator counts its requests by verb and kind, kopf's watches among them; a refusal is a count of 403.
"""

import json

from gravswell.kube import resources as kube
from gravswell_operator.cluster import resources
from gravswell_operator.cluster.lease import LEASE_NAME, LEASE_NAMESPACE

from ...exposition import scrape
from ..operating import ACCOUNT
from .test_forgeries import THEIRS

RULED = (*resources.WATCHED, *resources.OPTIONAL, resources.EVENT, kube.LEASE, kube.NAMESPACE)
ELSEWHERE = {r.group for r in resources.OPTIONAL}
"""Groups of others that are not installed here: tests where they are say the same of their rights (Karpenter's in
``pools``, KEDA's in ``autoscaling``, the GPU Operator's in ``clouds``, as of the rules that ``gke.enabled`` adds)."""
WITH_REAL_PODS = {("patch", "/pods/status")}
"""Used when all ranks of a group are ready, which test_ranks shows."""


def used(operator) -> dict[tuple[str, str], set[str]]:
    """The codes of all requests, by verb and resource (``GROUP/PLURAL[/SUBRESOURCE]``)."""
    places = {r.kind: f"{r.group}/{r.plural}" for r in RULED}
    found: dict[tuple[str, str], set[str]] = {}
    for family in scrape(operator.address):
        for sample in family.samples:
            if sample.name == "gravswell_api_requests_total":
                kind, _, below = sample.labels["kind"].partition("/")
                place = "/".join(part for part in (places.get(kind, kind), below) if part)
                found.setdefault((sample.labels["verb"], place), set()).add(sample.labels["code"])
    return found


def granted(cluster) -> set[tuple[str, str]]:
    """Verb and resource of every rule that is bound to the operator's account, wherever it holds."""
    lists = cluster.kubectl("get", "clusterroles,roles,clusterrolebindings,rolebindings", "-A", "-o", "json")
    items = json.loads(lists)["items"]
    rules = {(b["kind"], b["metadata"].get("namespace", ""), b["metadata"]["name"]): b.get("rules") for b in items}
    found = set()
    for binding in items:
        subjects = binding.get("subjects") or ()
        if any(f"system:serviceaccount:{s.get('namespace')}:{s['name']}" == ACCOUNT for s in subjects):
            kind, namespace = binding["roleRef"]["kind"], binding["metadata"].get("namespace", "")
            key = (kind, "" if kind == "ClusterRole" else namespace, binding["roleRef"]["name"])
            for rule in rules[key] or ():
                places = [f"{group}/{plural}" for group in rule["apiGroups"] for plural in rule["resources"]]
                found |= {(verb, place) for verb in rule["verbs"] for place in places}
    return found


_BESIDES = ("create", "get")


def implied(asked: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """What applying a child needs besides: to create it, and to see whose it is where the name is taken, which
    test_forgeries shows of nearly every kind."""
    children = {f"{r.group}/{r.plural}" for r in resources.CHILDREN}
    return {(verb, place) for _, place in asked & {("patch", c) for c in children} for verb in _BESIDES}


def leave_of_an_earlier_release(world) -> None:
    """Children of the server that nobody wants, of each kind that it has."""
    owner = world.get("inferenceserver", "server")
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": "server", "controller": True}
    metadata = {
        "name": "left",
        "labels": {"app.kubernetes.io/managed-by": "gravswell", "gravswell.dev/server": "server"},
        "ownerReferences": [{**reference, "uid": owner["metadata"]["uid"]}],
    }
    contents = {kind: (version, content) for version, kind, _, content in THEIRS}
    version, deployment = contents["Deployment"]
    contents["StatefulSet"] = version, {"spec": {**deployment["spec"], "serviceName": "left"}}
    for kind, (version, content) in contents.items():
        world._api.apply(world.namespace, {"apiVersion": version, "kind": kind, "metadata": metadata, **content})


def test_every_right_is_used_and_none_is_missing(world, operator, cluster):
    # In a namespace of an earlier test, on its way out, the API server refuses new objects to everybody, with 403 too.
    phases = ("get", "namespaces", "-o", "jsonpath={.items[*].status.phase}")
    world.until(lambda: "Terminating" not in cluster.kubectl(*phases))
    operator.restart()
    world.make_pool(drivers={"install": True})
    world.make_repository()
    world.make_server(autoscaling={"minReplicas": 1, "maxReplicas": 2})
    world.apply("InferenceServer", "ranked", repositoryRef={"name": "models"}, tag="24.08", vcpus="100m", ranks=2)
    world.publish(1)
    world.make_model()
    world.report("gone", 1)  # whether this pod is there is asked of the API server
    expected = {("patch", f"{r.group}/{r.plural}") for r in resources.CHILDREN}
    expected.add(("get", "/pods"))
    left = set(expected)

    def done() -> bool:
        left.intersection_update(expected - used(operator).keys())
        return not left

    try:
        world.until(done)
    except AssertionError:
        raise AssertionError(f"never asked for: {left}") from None
    world.patch("inferenceserver", "server", {"spec": {"autoscaling": None, "replicas": 1}})
    world.make_pool()
    leave_of_an_earlier_release(world)
    deleted = {("delete", f"{r.group}/{r.plural}") for r in resources.CHILDREN}
    world.until(lambda: deleted <= used(operator).keys())
    world.until(lambda: ("create", "events.k8s.io/events") in used(operator))

    cluster.kubectl("delete", "lease", LEASE_NAME, "-n", LEASE_NAMESPACE)  # else only the first operator makes it
    world.until(lambda: ("create", "coordination.k8s.io/leases") in used(operator))

    asked = used(operator)
    refused = sorted(request for request, codes in asked.items() if "403" in codes)
    assert not refused, f"asked for, and not granted by the chart's role: {refused}"
    needed = asked.keys() | implied(set(asked)) | WITH_REAL_PODS
    unused = {(verb, place) for verb, place in granted(cluster) - needed if place.split("/")[0] not in ELSEWHERE}
    assert not unused, f"granted by the chart's role, and never used: {sorted(unused)}"
