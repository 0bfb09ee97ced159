import base64

import pytest

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell_operator.devcluster.node.environment import Sources, expand, field_of, referenced, variables

POD = {
    "metadata": {
        "name": "p",
        "namespace": "ns",
        "uid": "u",
        "labels": {"b": "2", "a": 'say "hi"'},
        "annotations": {"k/x": "v"},
    },
    "spec": {"nodeName": "n", "serviceAccountName": "sa", "containers": []},
    "status": {"podIP": "127.64.0.1", "hostIP": "127.0.0.1"},
}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)z", "x1y2z"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$", "$$"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(cat /run/key)", "$(cat /run/key)"),
        ("$(A", "$(A"),
    ],
)
def test_references_expand_as_kubernetes_expands_them(text, wanted):
    assert expand(text, {"A": "1", "B": "2"}) == wanted


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("metadata.name", "p"),
        ("metadata.uid", "u"),
        ("metadata.labels['b']", "2"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['k/x']", "v"),
        ("metadata.labels", 'a="say \\"hi\\""\nb="2"'),
        ("spec.serviceAccountName", "sa"),
        ("status.podIP", "127.64.0.1"),
    ],
)
def test_fields_of_the_pod(path, wanted):
    assert field_of(path, POD) == wanted


def test_a_field_that_is_not_offered_names_those_that_are():
    with pytest.raises(InvalidInputError, match=r"spec\.hostname.*metadata\.name"):
        field_of("spec.hostname", POD)


def test_later_entries_see_and_win_over_earlier_ones():
    container = {
        "name": "c",
        "envFrom": [{"configMapRef": {"name": "m"}}, {"secretRef": {"name": "s"}}],
        "env": [{"name": "A", "value": "own"}, {"name": "D", "value": "$(A)-$(B)-$(P)"}, {"name": "EMPTY"}],
    }
    maps = {"m": {"kind": "ConfigMap", "data": {"A": "map", "B": "map"}}}
    secrets = {"s": {"kind": "Secret", "data": {"B": base64.b64encode(b"secret").decode()}}}
    got = variables(Sources(POD, container, maps, secrets), {"P": "inherited"})
    assert got == {"A": "own", "B": "secret", "D": "own-secret-inherited", "EMPTY": "", "P": "inherited"}
    assert referenced(container) == ({"m"}, {"s"})


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        ({"configMapKeyRef": {"name": "m", "key": "k"}}, 'configmap "m" has no key "k"'),
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
    ],
)
def test_what_is_missing_is_named(reference, message):
    container = {"name": "c", "env": [{"name": "A", "valueFrom": reference}]}
    with pytest.raises(NotFoundError, match=message):
        variables(Sources(POD, container, {"m": {"kind": "ConfigMap", "data": {}}}), {})


@pytest.mark.parametrize(
    ("resources", "reference", "wanted"),
    [
        ({"limits": {"cpu": "1500m"}}, {"resource": "limits.cpu"}, "2"),
        ({"limits": {"cpu": "1500m"}}, {"resource": "limits.cpu", "divisor": "1m"}, "1500"),
        ({"limits": {"memory": "1Gi"}}, {"resource": "requests.memory", "divisor": "1Mi"}, "1024"),
        ({}, {"resource": "limits.cpu"}, "64"),
        ({}, {"resource": "requests.cpu"}, "0"),
    ],
)
def test_resources_in_units(resources, reference, wanted):
    container = {
        "name": "c",
        "resources": resources,
        "env": [{"name": "A", "valueFrom": {"resourceFieldRef": reference}}],
    }
    pod = {**POD, "spec": {**POD["spec"], "containers": [container]}}
    assert variables(Sources(pod, container, allocatable={"cpu": "64"}), {}) == {"A": wanted}
