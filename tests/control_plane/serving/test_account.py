"""``serviceAccountName``: pods run as an account of the user's, which gets the ConfigMaps of its pods and no more."""

import json

import pytest

from .conftest import ENTRY

ACCOUNT = "reader"
RIGHTS = {
    "server-desired": ["get", "list", "watch"],
    "server-report": ["get", "patch"],
    "models-listing": ["get", "patch"],
}


@pytest.fixture(scope="module")
def serving(place):
    """A server whose account appears after everything else, all Ready; and what was said before it appeared."""
    place.make_repository(serviceAccountName=ACCOUNT)
    place.make_server()
    place.make_model()
    said = [
        place.condition(kind, name, status="False", reason="PodsRefused")
        for kind, name in (("modelrepository", "models"), ("inferenceserver", "server"))
    ]
    place.create("v1", "ServiceAccount", ACCOUNT)
    place.until_serving(1)
    return place, said


def test_a_missing_account_is_named_and_repaired_when_it_appears(serving):
    place, said = serving
    for condition in said:
        assert f'serviceaccount "{ACCOUNT}" not found' in condition["message"]
    assert place.answer() == 1.0


@pytest.mark.parametrize("role", ["triton", "lister"])
def test_the_projected_token_is_the_accounts(serving, role):
    place, _ = serving
    pod = place.pod(role)
    assert pod["spec"]["serviceAccountName"] == ACCOUNT
    user = review(place, place.token(pod))
    assert user["username"] == f"system:serviceaccount:{place.namespace}:{ACCOUNT}"
    assert user["extra"]["authentication.kubernetes.io/pod-name"] == [pod["metadata"]["name"]]


def review(place, token):
    document = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    status = json.loads(place.kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(document)))["status"]
    assert status["authenticated"]
    return status["user"]


def rights(place, account):
    """What an account may do with the objects of its namespace, beyond what everybody may."""
    document = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": place.namespace},
    }
    # Not validated by kubectl, which would ask for more than the account may.
    ask = ("create", "-f", "-", "-o", "json", "--validate=false")
    user = f"--as=system:serviceaccount:{place.namespace}:{account}"
    answer = json.loads(place.kubectl(*ask, user, stdin=json.dumps(document)))
    everybodys = {"authorization.k8s.io", "authentication.k8s.io"}
    return [rule for rule in answer["status"]["resourceRules"] if not everybodys & set(rule["apiGroups"])]


def test_the_account_gets_the_config_maps_of_its_pods_and_nothing_else(serving):
    place, _ = serving
    found = rights(place, ACCOUNT)
    assert all((rule["apiGroups"], rule["resources"]) == ([""], ["configmaps"]) for rule in found)
    assert {name: sorted(rule["verbs"]) for rule in found for name in rule["resourceNames"]} == RIGHTS


def test_it_stays_the_users(serving):
    place, _ = serving
    theirs = place.get("serviceaccount", ACCOUNT)
    assert "ownerReferences" not in theirs["metadata"]
    assert "labels" not in theirs["metadata"]
    assert place.get("serviceaccount", "server-agent") is None
    assert place.get("serviceaccount", "models-lister") is None


def test_without_it_the_pods_get_accounts_of_their_own_and_it_loses_its_rights(serving):
    place, _ = serving
    before = [place.pod(role)["metadata"]["uid"] for role in ("triton", "lister")]
    place.make_repository()
    place.until(lambda: place.replaced(*before))
    place.until_serving(1)
    assert place.pod()["spec"]["serviceAccountName"] == "server-agent"
    assert place.pod("lister")["spec"]["serviceAccountName"] == "models-lister"
    place.until(lambda: rights(place, ACCOUNT) == [])  # with the last pod that ran as it
    assert place.get("serviceaccount", ACCOUNT) is not None


def test_an_account_that_is_not_there_takes_nothing_from_the_replica_that_serves(serving):
    place, _ = serving
    place.publish(2)
    place.until_serving(2)
    pod = place.pod()["metadata"]
    place.make_repository(serviceAccountName="typo")
    place.condition("inferenceserver", "server", status="False", reason="PodsRefused")
    # What is said to it arrives, and so does what it says.
    place.make_model(version=1)
    place.until(lambda: place.get("model", ENTRY)["status"].get("loadedVersion") == 1)
    place.condition("model", ENTRY, status="True")
    assert place.answer() == 1.0
    assert place.pod()["metadata"]["uid"] == pod["uid"]
    log = place.kubectl("logs", pod["name"], "-c", "agent")
    assert "version 1 serves" in log
    assert "refuses this ServiceAccount" not in log


def test_its_own_account_goes_when_another_one_has_replaced_it(serving):
    place, _ = serving
    before = place.pod()["metadata"]["uid"]
    place.make_repository(serviceAccountName=ACCOUNT)
    place.until(lambda: place.replaced(before))
    place.until_serving(1)
    place.until(lambda: place.get("serviceaccount", "server-agent") is None)
    place.until(lambda: place.get("serviceaccount", "models-lister") is None)
    assert [s["name"] for s in place.get("rolebinding", "server-agent")["subjects"]] == [ACCOUNT]
