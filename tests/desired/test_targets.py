"""A version whose graph the server's Triton cannot load is refused with both numbers, and costs nothing that serves."""

from datetime import UTC, datetime

import pytest

from gravswell.serving.contracts import Desired, DesiredModel, ListedEntry, ListedVersion, Listing
from gravswell_operator.api import InferenceServer, Model
from gravswell_operator.conditions import Reason
from gravswell_operator.desired.models import resolve_server
from gravswell_operator.statuses.references import forgotten

DIGESTS = {number: f"{number:064x}" for number in range(1, 4)}
URL = "file:///r"


def listed(number, **needs):
    return ListedVersion(number=number, digest=DIGESTS[number], **needs)


OLD, NEW = listed(1, opset=17, ir_version=9), listed(2, opset=23, ir_version=11)
NEW_IR = listed(2, opset=17, ir_version=11)


def resolution(*versions, serves=None, models="Declared", **spec):
    listing = Listing(
        repository=URL,
        observed_at=datetime.now(UTC),
        accessible=True,
        entries=(ListedEntry(name="digits", versions=tuple(sorted(versions, key=lambda v: -v.number))),),
    )
    where = {"repositoryRef": {"name": "r"}, "replicas": 1, "models": models}
    server = InferenceServer.model_validate(
        {"metadata": {"name": "s", "namespace": "n"}, "spec": {**where, **({"tag": "24.08"} | spec)}}
    )
    model = Model.model_validate(
        {"metadata": {"name": "m", "namespace": "n"}, "spec": {"serverRef": {"name": "s"}, "entry": "digits"}}
    )
    told = DesiredModel(name="digits", version=serves, digest=DIGESTS[serves]) if serves is not None else None
    previous = Desired(repository=URL, models=(told,)) if told is not None else None
    found = resolve_server(server, [model] if models == "Declared" else [], listing, previous, url=URL)
    return server, found


@pytest.mark.parametrize("models", ["Declared", "All"])
@pytest.mark.parametrize(
    ("version", "words"),
    [
        (NEW, "version 2 of digits is of opset 23, and Triton 24.08 (ONNX Runtime 1.18.1) takes up to opset 21"),
        (
            NEW_IR,
            "version 2 of digits is of IR version 11, and Triton 24.08 (ONNX Runtime 1.18.1) takes up to IR version 10",
        ),
    ],
)
def test_a_version_that_is_too_new_leaves_the_one_before(models, version, words):
    server, found = resolution(OLD, version, serves=1, models=models)
    outcome = found.outcome("digits")
    assert (outcome.reason, outcome.desired.version) == (Reason.OPSET_TOO_NEW, 1)
    assert words in outcome.message
    assert "export the model with --target 24.08" in outcome.message
    assert forgotten(server, found) is None


def test_without_one_before_nothing_is_served():
    _, found = resolution(NEW)
    assert found.desired.models == ()


@pytest.mark.parametrize(
    "spec",
    [
        {"tag": "25.08"},
        {"tag": "99.01"},
        {"tag": None, "image": "nvcr.io/nvidia/tritonserver:25.08-py3"},
        {"tag": None, "image": "registry.example/mine:24.08"},
        {"tag": None, "image": "registry.example/tritonserver:24.08-own-runtime"},
        {"tag": None, "image": "registry.example/tritonserver:24.13"},
    ],
    ids=str,
)
def test_what_is_new_enough_or_unknown_is_served(spec):
    server, found = resolution(OLD, NEW, **spec)
    assert [model.version for model in found.desired.models] == [2]
    assert forgotten(server, found) is None


def test_an_image_says_its_release_too():
    _, found = resolution(NEW, tag=None, image="registry.example/nvidia/tritonserver:24.08-py3")
    assert found.outcome("digits").reason is Reason.OPSET_TOO_NEW


def test_a_version_of_which_nothing_is_known_is_left_to_triton():
    _, found = resolution(listed(3))
    assert [model.version for model in found.desired.models] == [3]


@pytest.mark.parametrize("models", ["Declared", "All"])
def test_a_server_that_gets_a_tag_too_old_for_what_it_serves_stays_as_it_is(models):
    """Else its replicas would be replaced one by one by such that serve nothing."""
    server, found = resolution(OLD, NEW, serves=2, models=models)
    problem = forgotten(server, found)
    assert problem.reason is Reason.OPSET_TOO_NEW
    assert "is of opset 23, and Triton 24.08 (ONNX Runtime 1.18.1) takes up to opset 21" in problem.message
    assert [model.version for model in found.desired.models] == [2]
