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
                            "resources": {"requests": {"cpu": "1", "memory": "2Gi"}},
                        }
                    ],
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
    ],
    ids=["same", "defaulted", "cpu", "size", "injected", "label", "owner"],
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
