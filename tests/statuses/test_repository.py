"""What a ModelRepository says of what its lister saw."""

from datetime import UTC, datetime, timedelta

import pytest

from gravswell.serving.contracts import ListedEntry, ListedVersion, Listing
from gravswell_operator.conditions import Reason
from gravswell_operator.state import Problem
from gravswell_operator.statuses.repository import RepositoryView, fields, findings

SEEN = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def listing(*, accessible=True, seen=SEEN, entries=None, **other):
    digits = ListedEntry(
        name="digits",
        versions=(ListedVersion(number=2, digest="2" * 64), ListedVersion(number=1, digest="1" * 64)),
        omitted=3,
    )
    return Listing(
        repository="file:///r",
        observed_at=seen,
        accessible=accessible,
        entries=entries if entries is not None else (digits,),
        **other,
    )


def said(*parts, **named):
    return {finding.type: finding for finding in findings(RepositoryView(*parts, **named))}


def test_listed(resource, workload):
    found = said(resource("ModelRepository"), listing(), lister=workload())
    assert (found["Ready"].status, found["Accessible"].status) == (True, True)
    assert found["Ready"].message == "1 model, 5 versions in pvc://claim/folder"


def test_entries_that_cannot_be_read_are_named(resource, workload):
    found = said(resource("ModelRepository"), listing(message="fraud: its state is damaged"), lister=workload())
    assert found["Accessible"].status is True
    assert (found["Ready"].status, found["Ready"].reason) == (False, Reason.PARTLY_LISTED)
    assert found["Ready"].message == "1 model, 5 versions in pvc://claim/folder; not read: fraud: its state is damaged"


def test_before_the_first_listing(resource):
    found = said(resource("ModelRepository"))
    assert (found["Accessible"].status, found["Accessible"].reason) == (None, Reason.NOT_LISTED_YET)
    assert found["Ready"].status is False


def test_what_the_lister_cannot_read_is_told_in_its_words(resource, workload):
    broken = listing(accessible=False, reason="RepositoryUnavailable", message="permission denied")
    found = said(resource("ModelRepository"), broken, lister=workload())
    assert (found["Accessible"].status, found["Accessible"].reason) == (False, "RepositoryUnavailable")
    # The lister knows the claim's folder only by where its own pod has it.
    where = "pvc://claim/folder, which is file:///repository/folder in the pods"
    assert found["Ready"].message == f"{where}: permission denied"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"credentialsSecretRef": {"name": "keys"}},
            "the Secret keys of credentialsSecretRef does not open gs://bucket/zoo: it needs credentials.json",
        ),
        ({"serviceAccountName": "reader"}, "the ServiceAccount reader of serviceAccountName does not open gs://bucket"),
        ({}, "gs://bucket/zoo is not open to the nodes' own identity: name a Secret in credentialsSecretRef"),
    ],
)
def test_a_bucket_that_refuses_names_who_asked_and_where_that_is_said(resource, workload, spec, words):
    refused = listing(
        accessible=False, reason="AccessDenied", message="gs://bucket/zoo was refused to these credentials"
    )
    found = said(resource("ModelRepository", {"spec": {"url": "gs://bucket/zoo", **spec}}), refused, lister=workload())
    for type_ in ("Accessible", "Ready"):
        assert (found[type_].status, found[type_].reason) == (False, "AccessDenied")
        assert found[type_].message.startswith(words)
        assert found[type_].message.endswith(": gs://bucket/zoo was refused to these credentials")


@pytest.mark.parametrize("reason", ["RepositoryNotFound", "RepositoryUnavailable", "NotARepository"])
def test_a_bucket_that_cannot_be_had_is_told_in_the_lister_s_words(resource, workload, reason):
    away = listing(accessible=False, reason=reason, message="gs://bucket cannot be reached (refused)")
    found = said(resource("ModelRepository", {"spec": {"url": "gs://bucket"}}), away, lister=workload())
    assert (found["Ready"].reason, found["Ready"].message) == (reason, "gs://bucket cannot be reached (refused)")


@pytest.mark.parametrize("reason", ["not a word", "Word\n", ""])
def test_a_reason_that_is_no_reason_becomes_one(resource, workload, reason):
    found = said(resource("ModelRepository"), listing(accessible=False, reason=reason), lister=workload())
    assert found["Accessible"].reason is Reason.NOT_ACCESSIBLE


def test_a_secret_that_is_not_there_is_named(resource, pod):
    repository = resource("ModelRepository", {"spec": {"credentialsSecretRef": {"name": "keys"}}})
    stuck = pod(ready=False, problem=Problem(Reason.CONTAINER_CONFIG_ERROR, 'secret "keys" not found'))
    found = said(repository, pods=[stuck])
    assert found["Accessible"].reason is Reason.CREDENTIALS_NOT_FOUND
    assert found["Ready"].message.startswith("the Secret keys of credentialsSecretRef cannot be used")


def test_a_lister_that_died_leaves_what_it_saw_but_is_not_ready(resource, workload):
    found = said(resource("ModelRepository"), listing(), lister=workload(1, 0))
    assert found["Accessible"].status is True
    assert (found["Ready"].status, found["Ready"].reason) == (False, Reason.LISTER_NOT_READY)


def test_a_document_that_cannot_be_read(resource, workload):
    found = said(resource("ModelRepository"), None, "accessible: Field required", lister=workload())
    assert found["Accessible"].reason is Reason.LISTING_UNREADABLE
    assert "models-listing" in found["Accessible"].message


def test_fields(resource):
    made = fields(resource("ModelRepository"), listing())
    assert made["entries"] == 1
    assert made["versions"] == 5
    assert made["models"] == [{"name": "digits", "latest": 2, "versions": 5, "digest": "2" * 64}]
    assert made["lastSync"] == "2026-01-01T12:00:00Z"


@pytest.mark.parametrize(("later", "moves"), [(timedelta(minutes=1), False), (timedelta(minutes=6), True)])
def test_the_last_sync_moves_in_steps(resource, later, moves):
    """Or every listing of every repository would be a write to the API server."""
    repository = resource("ModelRepository")
    old = repository.model_copy(
        update={"status": type(repository.status).model_validate(fields(repository, listing()))}
    )
    made = fields(old, listing(seen=SEEN + later))
    assert (made["lastSync"] != "2026-01-01T12:00:00Z") is moves
    published = fields(old, listing(seen=SEEN + later, entries=()))
    assert published["lastSync"] != "2026-01-01T12:00:00Z"


def test_without_a_listing_what_was_seen_stays(resource):
    repository = resource("ModelRepository")
    old = repository.model_copy(
        update={"status": type(repository.status).model_validate(fields(repository, listing()))}
    )
    assert fields(old, None) == fields(repository, listing())


def test_a_large_repository_is_shown_in_part(resource):
    many = tuple(ListedEntry(name=f"m{i:03}", versions=(ListedVersion(number=1),)) for i in range(150))
    made = fields(resource("ModelRepository"), listing(entries=many))
    assert made["entries"] == 150
    assert [m["name"] for m in made["models"]][-1] == "m099"
