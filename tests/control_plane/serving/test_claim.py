"""A repository in a PersistentVolumeClaim: the lister and the agents read it through a volume of their own."""

import pytest

from gravswell_operator.devcluster.controlplane import NODE_NAME

CLAIM = "shelf"


def make_claim(place):
    """A volume of the local node that holds the folder above the repository, and a claim for it."""
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NODE_NAME]}
    size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
    volume = {
        "capacity": size,
        "accessModes": modes,
        "persistentVolumeReclaimPolicy": "Retain",
        "storageClassName": "",
        "local": {"path": str(place.repository.parent)},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
    }
    claim = {
        "accessModes": modes,
        "resources": {"requests": size},
        "storageClassName": "",
        "volumeName": place.namespace,
    }
    place.create("v1", "PersistentVolume", place.namespace, spec=volume)
    place.create("v1", "PersistentVolumeClaim", CLAIM, spec=claim)


@pytest.fixture(scope="module")
def serving(place):
    """A server whose claim appears after everything else, all Ready; and what was said before it appeared."""
    place.make_repository(url=f"pvc://{CLAIM}/zoo")
    place.make_server()
    place.make_model()
    said = [
        place.condition(kind, name, status="False", reason="PodUnschedulable")
        for kind, name in (("modelrepository", "models"), ("inferenceserver", "server"))
    ]
    make_claim(place)
    place.until_serving(1)
    yield place, said
    place.cluster.kubectl("delete", "persistentvolume", place.namespace, "--wait=false")


def test_a_missing_claim_is_named_and_repaired_when_it_appears(serving):
    _, said = serving
    for condition in said:
        assert f'persistentvolumeclaim "{CLAIM}" not found' in condition["message"]


def test_the_pod_answers_from_the_claim(serving):
    place, _ = serving
    assert place.answer() == 1.0
    status = place.get("modelrepository", "models")["status"]
    assert [(entry["name"], entry["latest"]) for entry in status["models"]] == [("scale", 1)]


def test_who_reads_the_repository_mounts_it_and_nobody_else(serving):
    place, _ = serving
    for role in ("triton", "lister"):
        spec = place.pod(role)["spec"]
        (claim,) = (v["persistentVolumeClaim"] for v in spec["volumes"] if v["name"] == "repository")
        assert claim == {"claimName": CLAIM, "readOnly": True}
        mounts = {
            container["name"]: mount.get("readOnly")
            for container in (*spec.get("initContainers", ()), *spec["containers"])
            for mount in container.get("volumeMounts", ())
            if mount["name"] == "repository"
        }
        assert mounts == {"agent" if role == "triton" else "lister": True}


def test_what_is_published_into_the_claim_arrives(serving):
    place, _ = serving
    pod = place.pod()["metadata"]["uid"]
    place.publish(2)
    place.until_serving(2)
    assert place.answer() == 2.0
    assert place.pod()["metadata"]["uid"] == pod


def test_a_folder_that_is_not_in_the_claim_is_named(serving):
    place, _ = serving
    url = f"pvc://{CLAIM}/nothing-here"
    place.make_repository("other", url=url)
    ready = place.condition("modelrepository", "other", status="False", reason="RepositoryNotFound")
    assert url in ready["message"]
