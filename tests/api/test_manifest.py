"""Manifests that are checked without an API server are refused in its words, and at its fields."""

from pathlib import Path

import pytest
import yaml

from gravswell.errors import InvalidInputError
from gravswell_operator.api import KINDS
from gravswell_operator.api.manifest import parse

CASES = yaml.safe_load((Path(__file__).parent / "manifests.yaml").read_text())
EXAMPLES = Path(__file__).parents[2] / "examples"
OURS = [
    (path, document)
    for path in sorted(EXAMPLES.rglob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
    if document["apiVersion"].startswith("gravswell.dev/")
]


@pytest.mark.parametrize("kind", CASES["good"])
def test_good_manifests_parse(manifest, kind):
    assert parse(manifest(kind)).NAMES.kind == kind


@pytest.mark.parametrize(("path", "document"), OURS, ids=[f"{p.name}-{d['kind']}" for p, d in OURS])
def test_examples_parse(path, document):
    assert parse(document).metadata.name == document["metadata"]["name"]


def test_there_is_an_example_of_every_kind():
    assert {document["kind"] for _, document in OURS} == {kind.NAMES.kind for kind in KINDS}


@pytest.mark.parametrize("case", [c for c in CASES["bad"] if not c.get("update")], ids=lambda c: c["case"])
def test_bad_manifests_are_refused_with_the_rules_message(manifest, case):
    with pytest.raises(InvalidInputError) as refusal:
        parse(manifest(case["kind"], case["change"]))
    assert f"\n  {case['field']}: {case['message']}" in str(refusal.value)


@pytest.mark.parametrize("case", CASES["schema"], ids=lambda c: c["field"])
def test_what_the_schema_forbids_is_refused_at_the_field(manifest, case):
    with pytest.raises(InvalidInputError) as refusal:
        parse(manifest(case["kind"], case["change"]))
    assert f"\n  {case['field']}: " in str(refusal.value)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"apiVersion": "v1", "kind": "Pod"}, "kind 'Pod' is none of gravswell's"),
        ({"apiVersion": "gravswell.dev/v2", "kind": "Model"}, "apiVersion 'gravswell.dev/v2'"),
        (None, "spec, not None"),
        ({"apiVersion": "gravswell.dev/v1alpha1", "kind": "Model"}, "Model without a name is invalid"),
        ({"apiVersion": "gravswell.dev/v1alpha1", "kind": "Model", "metadata": "x", "spec": []}, "metadata: "),
    ],
)
def test_what_is_no_manifest_of_ours_is_named(document, words):
    with pytest.raises(InvalidInputError) as refusal:
        parse(document)
    assert words in str(refusal.value)


def test_a_quantity_may_be_an_integer(manifest):
    server = parse(manifest("InferenceServer", {"spec": {"vcpus": 15}}))
    assert server.spec.vcpus == "15"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"tag": 24.08}, "spec.tag: must be text, and YAML takes it for the number 24.08: put it in quotes"),
        ({"vcpus": 0.5}, "spec.vcpus: must be text, and YAML takes it for the number 0.5: put it in quotes"),
        (
            {"podTemplate": {"env": [{"name": "A", "value": True}]}},
            "spec.podTemplate.env[0].value: must be text, and YAML takes it for true: put it in quotes",
        ),
        ({"tag": ["24.08"]}, "spec.tag: Input should be a valid string"),
    ],
)
def test_what_yaml_takes_for_something_else_is_said_so(manifest, change, line):
    with pytest.raises(InvalidInputError) as refusal:
        parse(manifest("InferenceServer", {"spec": change}))
    assert str(refusal.value).split("\n  ")[1:] == [line]


@pytest.mark.parametrize(
    "image",
    [
        "triton",
        "a:b",
        "localhost:5000/triton",
        "registry.example.com/team/triton_x:24.08-custom",
        "nvcr.io/nvidia/tritonserver:24.08-py3@sha256:" + "0a" * 32,
    ],
)
def test_images_by_name_tag_and_digest(manifest, image):
    spec = parse(manifest("InferenceServer", {"spec": {"tag": None, "image": image}})).spec
    assert spec.image == image
    assert parse(manifest("GPUNodePool", {"spec": {"drivers": {"image": image}}})).spec.drivers.image == image


def test_an_annotations_prefix_may_have_capitals(manifest):
    annotations = {"Example.com/team": "a", "plain": "b", "n" * 63: "c"}
    server = parse(manifest("InferenceServer", {"spec": {"service": {"annotations": annotations}}}))
    assert server.spec.service.annotations == annotations


@pytest.mark.parametrize(
    ("kind", "metadata", "line"),
    [
        ("Model", {"name": "Bad_Name"}, "metadata.name: 'Bad_Name' must be at most 253 lower-case letters"),
        ("Model", {"name": "a" * 254}, "metadata.name: 'aaa"),
        ("Model", {"namespace": "a.b"}, "metadata.namespace: 'a.b' must be at most 63 lower-case letters"),
        ("InferenceServer", {"name": "Bad_Name"}, "metadata.name: the name of an InferenceServer must be at most 50"),
    ],
)
def test_a_name_that_no_object_can_have_is_one_line(manifest, kind, metadata, line):
    with pytest.raises(InvalidInputError) as refusal:
        parse(manifest(kind, {"metadata": metadata}))
    (found,) = str(refusal.value).split("\n  ")[1:]
    assert found.startswith(line)


def test_the_name_of_a_model_may_have_dots(manifest):
    assert parse(manifest("Model", {"metadata": {"name": "digits.v2"}})).metadata.name == "digits.v2"
