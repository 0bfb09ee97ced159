"""Which of a server's Models gets which GPUs: the oldest first, and nobody is moved for another."""

from datetime import UTC, datetime

import pytest

from gravswell.serving.contracts import Desired, ListedEntry, ListedVersion, Listing
from gravswell_operator import state
from gravswell_operator.api import InferenceServer, Model
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.models import resolve_server

NAMES = ("a", "b", "c", "d")
DIGEST = "1" * 64
LISTING = Listing(
    repository="file:///r",
    observed_at=datetime.now(UTC),
    accessible=True,
    entries=tuple(ListedEntry(name=name, versions=(ListedVersion(number=1, digest=DIGEST),)) for name in NAMES),
)


def model(entry, devices=None, *, day=None, status=None, **spec):
    """A Model of the entry, made on that day of the year: ``a`` on the first, and so on."""
    placement = {"devices": devices, **spec.pop("placement", {})} if devices is not None else {}
    day = day if day is not None else NAMES.index(entry) + 1
    return Model.model_validate(
        {
            "status": status or {},
            "metadata": {"name": f"m-{entry}", "namespace": "ns", "creationTimestamp": f"2026-01-{day:02}T00:00:00Z"},
            "spec": {"serverRef": {"name": "s"}, "entry": entry, "placement": placement, **spec},
        }
    )


def server(gpus=8, models="Declared"):
    return InferenceServer.model_validate(
        {
            "metadata": {"name": "s", "namespace": "ns"},
            "spec": {
                "repositoryRef": {"name": "r"},
                "nodePoolRef": {"name": "p"},
                "tag": "24.08",
                "replicas": 1,
                "gpus": gpus,
                "models": models,
            },
        }
    )


def resolved(models, previous=None, gpus=8, *, listing=LISTING, mode="Declared"):
    return resolve_server(server(gpus, mode), models, listing, previous, url="file:///r")


def gpus(resolution):
    return {m.name: list(m.gpus) if m.gpus is not None else None for m in resolution.desired.models}


def shared(entry, devices, **more):
    return model(entry, devices, placement={"shared": True, **more})


def started(entry, devices, start):
    return model(entry, devices, placement={"start": start})


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([model("a", 2), model("b", 4)], {"a": [0, 1], "b": [2, 3, 4, 5]}),
        ([model("a", 2, day=9), model("b", 4)], {"a": [4, 5], "b": [0, 1, 2, 3]}),
        ([model("a"), model("b", 8)], {"a": None, "b": [*range(8)]}),
        ([model("a", 6), started("b", 2, 6)], {"a": [*range(6)], "b": [6, 7]}),
        ([model("a", 6), shared("b", 2), shared("c", 1), shared("d", 1)],
         {"a": [*range(6)], "b": [6, 7], "c": [6], "d": [7]}),
    ],
    ids=["in order", "the oldest first", "beside one on every device", "from a start", "shared"],
)  # fmt: skip
def test_models_get_devices_in_a_row(models, expected):
    resolution = resolved(models)
    assert gpus(resolution) == expected
    assert resolution.unresolved == {}
    assert resolved(models[::-1]).desired == resolution.desired
    assert resolved(models, resolution.desired).desired == resolution.desired, "told once, it stays"


def test_nothing_changes_where_nobody_asks_for_devices():
    assert gpus(resolved([model("a")], mode="All")) == dict.fromkeys(NAMES)
    assert gpus(resolved([model("a", 3)], mode="All")) == {"a": [0, 1, 2], "b": None, "c": None, "d": None}


def test_over_commitment_is_refused_with_the_table_and_takes_nothing_away():
    models = [model("a", 5), model("b", 2)]
    before = resolved(models)
    after = resolved([*models, model("c", 2)], before.desired)
    assert after.desired == before.desired
    refused = after.unresolved["c"]
    assert (refused.desired, refused.reason) == (None, Reason.NOT_PLACED)
    assert refused.message.startswith(
        "c asks for 2 devices in a row, and 1 of 8 are free. Who holds what on each replica of InferenceServer s: "
        "0-4 a; 5-6 b; 7 free. Ask for fewer devices"
    )
    assert after.outcome("c") == refused
    assert after.outcome("a").desired == before.desired.models[0]


def test_a_server_without_gpus_has_no_devices_to_give():
    resolution = resolved([model("a", 1), model("b")], gpus=0)
    assert gpus(resolution) == {"b": None}
    assert resolution.unresolved["a"].message == (
        "a asks for devices, and InferenceServer s has none: raise its gpus, or leave placement.devices out"
    )


def test_a_start_that_is_held_names_the_holder():
    message = resolved([model("a", 2), started("b", 2, 1)]).unresolved["b"].message
    assert message.startswith("b asks for devices 1-2, of which a holds some. ")


def test_nobody_moves_into_the_place_of_one_that_went():
    before = resolved([model("a", 2), model("b", 2)])
    after = resolved([model("b", 2), model("c", 2)], before.desired)
    assert gpus(after) == {"b": [2, 3], "c": [0, 1]}


def test_an_edit_that_does_not_fit_leaves_the_model_as_it_is_served():
    before = resolved([model("a", 4), model("b", 4)])
    after = resolved([model("a", 5), model("b", 4)], before.desired)
    assert after.desired == before.desired
    assert after.unresolved["a"].desired == before.desired.models[0]


def test_a_model_that_asks_no_more_runs_on_every_device():
    before = resolved([model("a", 4)])
    assert gpus(resolved([model("a")], before.desired)) == {"a": None}


def test_on_fewer_gpus_what_fits_no_more_is_given_up():
    before = resolved([model("a", 2), model("b", 2), model("c", 4)])
    after = resolved([model("a", 2), model("b", 2), model("c", 4)], before.desired, gpus=4)
    assert gpus(after) == {"a": [0, 1], "b": [2, 3]}
    assert after.unresolved["c"].desired is None


UNREADABLE = state.unreadable(
    "Model", {"metadata": {"name": "m-a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"entry": "a"}}, "?"
)
SHARING = state.unreadable(
    "Model",
    {
        "metadata": {"name": "m-a", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"entry": "a", "placement": {"shared": True}},
    },
    "?",
)


@pytest.mark.parametrize(
    "one",
    [model("a", 4, suspend=True), model("a", 4, version=7), UNREADABLE],
    ids=["suspended", "without its version", "unreadable"],
)
def test_what_stays_as_it_is_stays_on_its_devices(one):
    previous = resolved([model("a", 2)]).desired
    assert gpus(resolved([one, model("b", 2)], previous, gpus=4)) == {"a": [0, 1], "b": [2, 3]}
    refused = resolved([one, shared("b", 2, start=0)], previous, gpus=4).unresolved["b"].message
    assert "of which a holds some" in refused
    assert gpus(resolved([SHARING, shared("b", 2, start=0)], previous, gpus=4)) == {"a": [0, 1], "b": [0, 1]}


def test_where_the_document_is_lost_the_models_status_says_where_it_was():
    status = {"desiredVersion": 1, "desiredDigest": DIGEST, "placement": {"devices": [4, 5]}}
    assert gpus(resolved([model("a", 2, status=status), model("b", 2)])) == {"a": [4, 5], "b": [0, 1]}
    unlisted = resolved([model("a", 2, status=status)], listing=None)
    assert gpus(unlisted) == {"a": [4, 5]}


def test_without_a_listing_all_stays_where_it_is():
    before = resolved([model("a", 2), model("b", 2)], mode="All").desired
    assert resolved([model("a", 2), model("b", 2)], before, listing=None, mode="All").desired == before
    assert isinstance(before, Desired)
