"""A repository in a PersistentVolumeClaim: the lister and the agents read it through a volume of their own."""

import pytest

CLAIM = "shelf"


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
    place.make_claim(CLAIM, place.repository.parent)
    place.until_serving(1)
    return place, said


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
