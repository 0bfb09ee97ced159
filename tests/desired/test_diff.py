"""Drift: what counts as a difference, and what is only the API server's way of writing."""

import copy

import pytest

from gravswell_operator.desired.diff import difference
from gravswell_operator.desired.objects import stamp

WANTED = stamp(
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"a": "b"}, "ownerReferences": [{"uid": "1", "kind": "X"}]},
        "spec": {
            "template": {
                "spec": {
                    "containers": [
                        {
                            "name": "triton",
                            "args": ["one", "two"],
                            "env": [{"name": "A", "value": "1"}],
                            "ports": [{"name": "http", "containerPort": 8000, "protocol": "TCP"}],
                            "volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}],
                            "resources": {"requests": {"cpu": "1", "memory": "2Gi"}},
                        }
                    ],
                    "nodeSelector": {"memory": "high"},
                    "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}],
                    "tolerations": [{"key": "a"}],
                }
            }
        },
    }
)


def live(change=None):
    body = copy.deepcopy(WANTED)
    if change is not None:
        change(body)
    return body


def pod(body):
    return body["spec"]["template"]["spec"]


def container(body):
    return pod(body)["containers"][0]


@pytest.mark.parametrize(
    "change",
    [
        None,
        lambda b: container(b).update(imagePullPolicy="IfNotPresent"),
        lambda b: container(b)["resources"]["requests"].update(cpu="1000m", memory="2048Mi"),
        lambda b: pod(b)["volumes"][0]["emptyDir"].update(sizeLimit="1024Mi"),
        lambda b: pod(b)["containers"].insert(0, {"name": "injected"}),
        lambda b: b["metadata"]["labels"].update(other="label"),
        lambda b: b["metadata"]["ownerReferences"].insert(0, {"uid": "2"}),
        lambda b: container(b)["env"].insert(0, {"name": "B"}),
        lambda b: container(b)["ports"].insert(0, {"containerPort": 9000, "protocol": "TCP"}),
        lambda b: container(b)["volumeMounts"].insert(0, {"name": "v", "mountPath": "/c"}),
        lambda b: pod(b)["volumes"].insert(0, {"name": "token"}),
    ],
    ids=["same", "defaulted", "cpu", "size", "injected", "label", "owner", "env", "port", "mount", "volume"],
)
def test_no_difference(change):
    assert difference(WANTED, live(change)) is None


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda b: container(b).update(args=["one"]), ".spec.template.spec.containers[triton].args"),
        (lambda b: container(b).update(args=["one", "2"]), ".spec.template.spec.containers[triton].args[1]"),
        (lambda b: pod(b)["containers"].clear(), ".spec.template.spec.containers[triton]"),
        (
            lambda b: container(b)["resources"]["requests"].update(cpu="2"),
            ".spec.template.spec.containers[triton].resources.requests.cpu",
        ),
        (lambda b: pod(b)["tolerations"].append({"key": "b"}), ".spec.template.spec.tolerations"),
        (
            lambda b: container(b)["volumeMounts"][1].update(name="w"),
            ".spec.template.spec.containers[triton].volumeMounts[v].name",
        ),
        (
            lambda b: container(b)["ports"][0].update(containerPort=9000),
            ".spec.template.spec.containers[triton].ports[http]",
        ),
        (lambda b: pod(b)["nodeSelector"].update(disk="ssd"), ".spec.template.spec.nodeSelector"),
        (lambda b: b["metadata"]["labels"].clear(), ".metadata.labels.a"),
        (lambda b: b["metadata"]["annotations"].clear(), "digest"),
    ],
)
def test_difference(change, where):
    assert difference(WANTED, live(change)) == where


def test_what_is_absent_differs():
    assert difference(WANTED, None) == "absent"


def test_a_field_that_is_wanted_no_more_is_found_by_the_digest():
    less = copy.deepcopy(WANTED)
    del less["metadata"]["annotations"]
    del less["spec"]["template"]["spec"]["tolerations"]
    assert difference(stamp(less), live()) == "digest"


BINDING = stamp(
    {
        "kind": "RoleBinding",
        "metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "b"},
        "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": "ns"}],
    }
)


def test_a_list_that_is_not_shared_is_compared_as_a_whole_though_its_items_have_names():
    bound = copy.deepcopy(BINDING)
    assert difference(BINDING, bound) is None
    bound["subjects"].append({"kind": "ServiceAccount", "name": "intruder", "namespace": "ns"})
    assert difference(BINDING, bound) == ".subjects"


def test_a_selector_is_compared_as_a_whole():
    service = stamp({"kind": "Service", "metadata": {"name": "s"}, "spec": {"selector": {"a": "b"}}})
    selecting = copy.deepcopy(service)
    selecting["spec"]["selector"]["nobody"] = "has this"
    assert difference(service, selecting) == ".spec.selector"
