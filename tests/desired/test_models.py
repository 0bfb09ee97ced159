"""Resolution as a table: wishes and a listing in, numbers and digests out."""

import json
from datetime import UTC, datetime

import pytest

from gravswell.serving.contracts import Desired, DesiredModel, ListedEntry, ListedVersion, Listing, Verification
from gravswell_operator import state
from gravswell_operator.api import InferenceServer, Model
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.models import resolve_model, resolve_server

DIGESTS = {number: f"{number:064x}" for number in range(1, 10)}


def version(number, *, verified=True):
    return ListedVersion(number=number, digest=DIGESTS[number] if verified else None)


def calling(number, *members, opens=False):
    return version(number).model_copy(update={"members": members, "opens_members": opens})


def listing(*entries):
    return Listing(repository="file:///r", observed_at=datetime.now(UTC), accessible=True, entries=entries)


DIGITS = ListedEntry(name="digits", versions=(version(3), version(2), version(1)), aliases={"champion": 2})
FOREIGN = ListedEntry(name="foreign", versions=(version(1, verified=False),))
LISTING = listing(DIGITS, FOREIGN)
PARTLY_READ = listing(FOREIGN).model_copy(update={"message": "digits: its manifest is damaged"})
TRIMMED = listing(ListedEntry(name="digits", versions=(version(3),), omitted=2))


def model(name="m", entry="digits", *, version="latest", created="2026-01-01T00:00:00Z", status=None, **spec):
    return Model.model_validate(
        {
            "status": status or {},
            "metadata": {"name": name, "namespace": "ns", "creationTimestamp": created},
            "spec": {"serverRef": {"name": "s"}, "entry": entry, "version": version, **spec},
        }
    )


def unreadable(name="m", *, created="2026-01-01T00:00:00Z", **spec):
    body = {"metadata": {"name": name, "namespace": "ns", "creationTimestamp": created}, "spec": spec}
    return state.unreadable("Model", body, "spec.rollout: Extra inputs are not permitted")


def server(models="Declared", *served):
    return InferenceServer.model_validate(
        {
            "status": {"models": [{"name": name, "version": 1} for name in served]},
            "metadata": {"name": "s", "namespace": "ns"},
            "spec": {"repositoryRef": {"name": "r"}, "tag": "24.08", "replicas": 1, "models": models},
        }
    )


def wanted(name, number):
    return DesiredModel(name=name, version=number, digest=DIGESTS[number])


def resolve(one, known=LISTING, kept=None):
    return resolve_model(one, [one], known, kept, "r")


@pytest.mark.parametrize(("asked", "number"), [("latest", 3), (1, 1), (3, 3), ("champion", 2)])
def test_a_version_becomes_a_number_and_a_digest(asked, number):
    outcome = resolve(model(version=asked))
    assert outcome.resolved
    assert outcome.desired == wanted("digits", number)


@pytest.mark.parametrize(
    ("one", "known", "reason", "says"),
    [
        (model(version=7), LISTING, Reason.VERSION_NOT_FOUND, "it has 3, 2, 1"),
        (model(version="canary"), LISTING, Reason.VERSION_NOT_FOUND, "champion (2)"),
        (model(entry="other"), LISTING, Reason.ENTRY_NOT_FOUND, "it holds digits, foreign"),
        (model(), listing(), Reason.ENTRY_NOT_FOUND, "it holds nothing"),
        (model(), PARTLY_READ, Reason.ENTRY_NOT_FOUND, "not all of it can be read: its own conditions say why"),
        (model(version=1), TRIMMED, Reason.VERSION_NOT_FOUND, "not among the 1 that the listing"),
        (model(version=4), TRIMMED, Reason.VERSION_NOT_FOUND, "has no version 4"),
        (model(), None, Reason.NOT_RESOLVED_YET, "has not been listed yet"),
        (model(entry="foreign"), LISTING, Reason.UNVERIFIED_VERSION, "verification: None"),
    ],
)
def test_what_cannot_be_resolved_says_why_and_keeps_what_was(one, known, reason, says):
    kept = DesiredModel(name=one.spec.entry, version=2, digest=DIGESTS[2])
    outcome = resolve(one, known, kept)
    assert (outcome.reason, outcome.desired) == (reason, kept)
    assert says in outcome.message
    assert resolve(one, known).desired is None


def test_a_foreign_version_needs_that_verification_is_off():
    outcome = resolve(model(entry="foreign", verification="None"))
    assert outcome.desired == DesiredModel(name="foreign", version=1, digest=None, verification=Verification.NONE)


def test_the_oldest_of_two_wins_and_the_other_is_told():
    old, new = model("z-old", version=1), model("a-new", version=3, created="2026-01-02T00:00:00Z")
    assert resolve_model(old, [new, old], LISTING, None, "r").desired == wanted("digits", 1)
    outcome = resolve_model(new, [new, old], LISTING, wanted("digits", 1), "r")
    assert outcome.reason is Reason.CONFLICT
    assert "z-old" in outcome.message
    assert outcome.desired is None


def test_a_suspended_model_stays_where_it_was_and_resolves_nothing_new():
    kept = wanted("digits", 1)
    assert resolve(model(suspend=True), kept=kept).desired == kept
    assert resolve(model(suspend=True)).reason is Reason.SUSPENDED


def resolved(one, models, known=LISTING, previous=None, **repository):
    return resolve_server(one, models, known, previous, url="file:///r", **repository)


def test_declared_serves_what_models_name_and_nothing_else():
    assert resolved(server(), []).desired.models == ()
    assert resolved(server(), [model(version=2)]).desired.models == (wanted("digits", 2),)


def test_all_serves_every_entry_at_its_latest_and_models_override():
    assert resolved(server("All"), []).desired.models == (wanted("digits", 3),)
    assert resolved(server("All"), [model(version=1)]).desired.models == (wanted("digits", 1),)
    assert list(resolved(server("All"), []).unresolved) == ["foreign"]


def test_what_is_verified_where_no_model_says_it_is_the_repositorys_to_say():
    off = resolved(server("All"), [model(version=1)], verification=Verification.NONE)
    foreign = DesiredModel(name="foreign", version=1, digest=None, verification=Verification.NONE)
    assert off.desired.models == (wanted("digits", 1), foreign)
    hashes = resolved(server("All"), [], verification=Verification.HASHES)
    assert [one.verification for one in hashes.desired.models] == [Verification.HASHES]
    assert "in the ModelRepository for all" in hashes.unresolved["foreign"].message


def test_all_leaves_out_what_only_pipelines_call_unless_a_model_names_it():
    chain = ListedEntry(name="chain", versions=(calling(1, "digits"),))
    known = listing(chain, DIGITS)
    assert resolved(server("All"), [], known).desired.models == (wanted("chain", 1),)
    both = (wanted("chain", 1), wanted("digits", 2))
    assert resolved(server("All"), [model(version=2)], known).desired.models == both
    opened = listing(ListedEntry(name="chain", versions=(calling(1, "digits", opens=True),)), DIGITS)
    assert resolved(server("All"), [], opened).desired.models == (wanted("chain", 1), wanted("digits", 3))


@pytest.mark.parametrize("opens", [False, True])
def test_all_leaves_out_what_pipelines_call_as_a_lister_of_an_earlier_release_tells_it(opens):
    chain = {"name": "chain", "versions": [{"number": 2, "digest": DIGESTS[2]}, {"number": 1}], "members": ["digits"]}
    document = json.loads(listing(DIGITS).to_json())
    document["entries"].append({**chain, "opensMembers": opens})
    known = Listing.model_validate_json(json.dumps(document))
    found = [one.name for one in resolved(server("All"), [], known).desired.models]
    assert found == (["chain", "digits"] if opens else ["chain"])


def test_all_leaves_out_what_the_served_versions_of_pipelines_call():
    chain = ListedEntry(name="chain", versions=(calling(2, "other"), calling(1, "digits")))
    other = ListedEntry(name="other", versions=(version(4),))
    known = listing(chain, DIGITS, other)
    assert resolved(server("All"), [], known).desired.models == (wanted("chain", 2), wanted("digits", 3))
    pinned = model(entry="chain", version=1)
    assert resolved(server("All"), [pinned], known).desired.models == (wanted("chain", 1), wanted("other", 4))
    began = "2026-01-01T00:00:00Z"
    under_way = {"strategy": "Canary", "state": "Progressing", "to": 2, "toDigest": DIGESTS[2], "step": 1, "steps": 1}
    under_way |= {"started": began, "since": began}
    rolling = model(entry="chain", rollout={"strategy": "Canary"}, status={"rollout": under_way})
    first = resolved(server("All"), [pinned], known).desired
    pods = [state.PodState(f"s-{k}", ready=True, terminating=False, finished=False, problem=None) for k in range(2)]
    both = resolve_server(server("All"), [rolling], known, first, url="file:///r", pods=pods).desired
    assert both.canaries.keys() == {"chain"}
    assert [one.name for one in both.models] == ["chain"], "one version keeps each from clients"


@pytest.mark.parametrize("mode", ["Declared", "All"])
def test_a_repository_that_cannot_be_listed_takes_nothing_away(mode):
    previous = Desired(repository="file:///r", models=(wanted("digits", 2),))
    assert resolved(server(mode), [model()], None, previous).desired.models == previous.models


MOVED = Desired(repository="file:///old", models=(wanted("digits", 2),))
REPLACED = ListedEntry(name="digits", versions=(ListedVersion(number=2, digest=DIGESTS[9]),))
UNVERIFIED = ListedEntry(name="digits", versions=(version(2, verified=False),))
OTHER = listing(ListedEntry(name="other", versions=(version(1),)))


@pytest.mark.parametrize(
    ("mode", "models", "known", "reason", "says"),
    [
        ("Declared", [model()], listing(FOREIGN), Reason.ENTRY_NOT_FOUND, "it holds foreign"),
        ("Declared", [model(version=2)], listing(ListedEntry(name="digits", versions=(version(1),))),
         Reason.VERSION_NOT_FOUND, "it has 1"),
        ("Declared", [model()], listing(UNVERIFIED), Reason.UNVERIFIED_VERSION, "no manifest"),
        ("Declared", [model(suspend=True)], listing(REPLACED), Reason.VERSION_NOT_FOUND, "version 2 of digits as"),
        ("Declared", [unreadable(entry="digits")], listing(REPLACED), Reason.INVALID_SPEC, "cannot read Model m"),
        ("All", [model()], listing(FOREIGN), Reason.ENTRY_NOT_FOUND, "it holds foreign"),
        ("All", [], listing(UNVERIFIED), Reason.UNVERIFIED_VERSION, "no manifest"),
        ("All", [], listing(FOREIGN), Reason.VERSION_NOT_FOUND, "version 2 of digits as it is served"),
        ("All", [], listing(), Reason.VERSION_NOT_FOUND, "version 2 of digits as it is served"),
    ],
    ids=["no entry", "no version", "unverified", "suspended", "unreadable", "all, a Model's", "all, unverified",
         "all, none verified", "all, empty"],
)  # fmt: skip
def test_a_new_url_that_lacks_what_is_served_and_wanted_changes_nothing(mode, models, known, reason, says):
    resolution = resolved(server(mode), models, known, MOVED)
    assert resolution.desired == MOVED
    assert (resolution.moved_to, resolution.missing) == ("file:///r", ("digits",))
    assert resolution.unresolved["digits"].reason is reason
    assert says in resolution.unresolved["digits"].message


@pytest.mark.parametrize(
    ("mode", "models", "known", "serves"),
    [
        ("Declared", [model()], LISTING, (wanted("digits", 3),)),
        ("Declared", [model(version="gone")], LISTING, (wanted("digits", 2),)),
        ("Declared", [model(suspend=True)], LISTING, (wanted("digits", 2),)),
        ("Declared", [], listing(FOREIGN), ()),
        ("Declared", [model(), model("n", "never-served")], LISTING, (wanted("digits", 3),)),
        ("All", [], LISTING, (wanted("digits", 3),)),
        ("All", [], OTHER, (wanted("other", 1),)),
    ],
    ids=["there", "kept there", "suspended there", "not wanted", "beside a new one", "all", "all, others"],
)  # fmt: skip
def test_a_new_url_with_all_that_is_wanted_is_taken(mode, models, known, serves):
    resolution = resolved(server(mode), models, known, MOVED)
    assert resolution.desired == Desired(repository="file:///r", models=serves)
    assert (resolution.moved_to, resolution.missing) == ("", ())


def test_a_new_url_that_was_not_listed_changes_nothing():
    resolution = resolved(server(), [model()], None, MOVED)
    assert (resolution.desired, resolution.moved_to, resolution.missing) == (MOVED, "file:///r", ())


def test_a_model_that_is_deleted_is_served_no_more():
    previous = Desired(repository="file:///r", models=(wanted("digits", 2),))
    assert resolved(server(), [], LISTING, previous).desired.models == ()


def test_the_order_of_models_does_not_change_the_document():
    one, two = model("a", "digits"), model("b", "foreign", verification="None")
    assert resolved(server(), [one, two]).desired.to_json() == resolved(server(), [two, one]).desired.to_json()


TWO = {"desiredVersion": 2, "desiredDigest": DIGESTS[2]}


@pytest.mark.parametrize(
    ("one", "known"),
    [
        (model(status=TWO, suspend=True), LISTING),
        (model(status=TWO), None),
        (model(status=TWO, version=7), LISTING),
    ],
    ids=["suspended", "not listed", "no such version"],
)
def test_where_the_desired_state_is_lost_the_models_own_status_says_what_was_served(one, known):
    resolution = resolved(server("Declared", "digits"), [one], known, None)
    assert resolution.desired.models == (wanted("digits", 2),)
    assert resolution.lost == ()


@pytest.mark.parametrize(
    ("mode", "models", "known", "lost"),
    [
        ("All", [], None, ("digits",)),
        ("All", [], LISTING, ()),
        ("All", [model(status=TWO)], None, ()),
        ("Declared", [model()], None, ("digits",)),
        ("Declared", [], None, ()),
    ],
    ids=["all, not listed", "all, listed", "all, remembered", "declared, never resolved", "wanted no more"],
)
def test_what_is_served_and_wanted_and_known_by_nobody_is_lost(mode, models, known, lost):
    assert resolved(server(mode, "digits"), models, known, None).lost == lost
    assert resolved(server(mode), models, known, None).lost == ()  # a new server has nothing to lose
    empty = Desired(repository="file:///r")
    assert resolved(server(mode, "digits"), models, known, empty).lost == ()


@pytest.mark.parametrize(
    ("models", "number"),
    [
        ([unreadable(entry="digits")], 1),
        ([unreadable()], 1),
        ([unreadable(entry="digits"), model("young", created="2026-01-02T00:00:00Z")], 1),
        ([unreadable(entry="digits", created="2026-01-02T00:00:00Z"), model("old")], 3),
        ([unreadable(entry="other"), model()], 3),
    ],
    ids=["alone", "entry unknown", "younger rival", "older rival", "another entry"],
)
def test_a_model_that_cannot_be_read_holds_its_entry_where_it_was(models, number):
    previous = Desired(repository="file:///r", models=(wanted("digits", 1),))
    resolution = resolved(server(), models, LISTING, previous)
    assert resolution.desired.models == (wanted("digits", number),)
    reasons = {entry: outcome.reason for entry, outcome in resolution.unresolved.items()}
    assert reasons.get("digits") == (Reason.INVALID_SPEC if number == 1 else None)


def test_a_model_that_never_could_be_read_is_not_served_and_told():
    resolution = resolved(server(), [unreadable(entry="digits")], LISTING, Desired(repository="file:///r"))
    assert resolution.desired.models == ()
    assert "cannot read Model m" in resolution.unresolved["digits"].message
