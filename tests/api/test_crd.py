"""The generated definitions: structural, bounded, described, and the same as the files in the checkout."""

import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import yaml
from pydantic import Field

from gravswell_operator.api import KINDS, generate
from gravswell_operator.api.common import ApiModel, Column, Names, Resource
from gravswell_operator.api.crd import crd, crds, schema
from gravswell_operator.api.rules import Rule, matching

ROOT = Path(__file__).parents[2]
BAD = yaml.safe_load((Path(__file__).parent / "manifests.yaml").read_text())["bad"]
FORBIDDEN = {"$ref", "$defs", "const", "title", "propertyNames", "discriminator", "oneOf", "allOf", "examples"}


def walk(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below ``node``, with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from walk(node["additionalProperties"], f"{path}{{}}")


NODES = [(kind.NAMES.kind + path, node) for kind in KINDS for path, node in walk(schema(kind))]


def test_only_structural_keywords_remain():
    for path, node in NODES:
        assert not FORBIDDEN & node.keys(), path
        assert node.get("additionalProperties") is not False, path
        assert not isinstance(node.get("exclusiveMinimum", True), int) or node.get("exclusiveMinimum", True) is True
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert "null" not in str(node.get("anyOf", "")), path


def test_every_field_is_described():
    for path, node in NODES:
        if path.endswith(("[]", "{}", ".metadata", ".metadata.name", ".metadata.generateName")):
            continue
        assert len(node.get("description", "").split()) >= 3, path
        assert "``" not in node["description"], path


def test_everything_in_a_spec_is_bounded():
    """Unbounded strings and lists make rules on them too costly for the API server to admit."""
    for path, node in NODES:
        if ".spec" not in path or "enum" in node:
            continue
        bound = {"string": "maxLength", "array": "maxItems", "integer": "maximum"}.get(node.get("type"))
        if node.get("x-kubernetes-int-or-string"):
            bound = "maxLength"
        if "additionalProperties" in node:
            bound = "maxProperties"
        assert bound is None or bound in node, path


def test_every_list_says_how_it_merges():
    for path, node in NODES:
        if node.get("type") == "array":
            assert node["x-kubernetes-list-type"] in ("atomic", "set", "map"), path


def test_no_status_has_a_default():
    assert not [path for path, node in NODES if ".status" in path and "default" in node]


def test_every_rule_has_a_bad_manifest():
    rules = {
        (path.partition(".")[0], rule["message"])
        for path, node in NODES
        for rule in node.get("x-kubernetes-validations", ())
    }
    assert rules
    untested = {
        rule
        for rule in rules
        if not any(rule[0] == case["kind"] and rule[1].startswith(case["message"]) for case in BAD)
    }
    assert not untested


def test_a_rule_without_a_python_twin_compares_with_the_earlier_object():
    for path, node in NODES:
        for rule in node.get("x-kubernetes-validations", ()):
            assert ("oldSelf" in rule["rule"]) == any(
                case.get("update", False) for case in BAD if rule["message"].startswith(case["message"])
            ), path


def test_defaults_below_are_not_said_twice():
    nodes = dict(NODES)
    assert nodes["InferenceServer.spec.service"]["default"] == {}
    assert nodes["InferenceServer.spec.service.type"]["default"] == "ClusterIP"
    assert nodes["GPUNodePool.spec.taints"]["default"] == [{"key": "nvidia.com/gpu"}]
    assert "default" not in nodes["InferenceServer.spec.podTemplate"]
    assert "default" not in nodes["InferenceServer.spec.replicas"]


def test_what_is_easily_written_wrong_is_explained():
    nodes = dict(NODES)
    assert 'in quotes, such as "24.08"' in nodes["InferenceServer.spec.tag"]["description"]
    assert 'in quotes, "1.5"' in nodes["InferenceServer.spec.vcpus"]["description"]
    assert "absent: nvidia.com/gpu" in nodes["GPUNodePool.spec.taints"]["description"]


class Colour(StrEnum):
    """What it looks like."""

    RED = "red"
    BLUE = "blue"


class Part(ApiModel):
    """A part of a thing."""

    RULES: ClassVar[tuple[Rule, ...]] = (Rule("self.weight > 1", "too light", lambda part: part.weight > 1),)

    weight: Annotated[int, Field(gt=0, lt=10)]
    """Weight of ``it``,
    in grams.

    Second paragraph."""
    colour: Colour = Colour.RED
    only: Literal["this"] = "this"
    """The one choice."""


class ThingSpec(ApiModel):
    """What the thing shall be."""

    part: Part | None = None
    """The optional part."""
    parts: dict[str, Part] = Field(default_factory=dict)
    """Parts by name."""
    text: Annotated[str, Field(max_length=9), matching("a+", "text must be of the letter a")] | None = None
    """A text."""


class ThingStatus(ApiModel):
    """What the thing is."""

    count: int = 0
    """How many."""


class Thing(Resource):
    """A thing."""

    NAMES: ClassVar[Names] = Names(
        kind="Thing", plural="things", short=("th",), scope="Namespaced", columns=(Column("Part", ".spec.part"),)
    )
    spec: ThingSpec
    status: ThingStatus = ThingStatus()


def test_the_rewriting_of_each_construct():
    spec = schema(Thing)["properties"]["spec"]["properties"]
    assert spec["part"] == {
        "description": "The optional part.",
        "type": "object",
        "x-kubernetes-validations": [{"rule": "self.weight > 1", "message": "too light"}],
        "required": ["weight"],
        "properties": {
            "weight": {
                "description": "Weight of it, in grams.\n\nSecond paragraph.",
                "type": "integer",
                "minimum": 0,
                "maximum": 10,
                "exclusiveMinimum": True,
                "exclusiveMaximum": True,
            },
            "colour": {
                "description": "What it looks like. Default: red.",
                "type": "string",
                "enum": ["red", "blue"],
                "default": "red",
            },
            "only": {
                "description": "The one choice. Default: this.",
                "type": "string",
                "enum": ["this"],
                "default": "this",
            },
        },
    }
    assert spec["parts"]["additionalProperties"]["properties"] == spec["part"]["properties"]
    assert spec["text"]["x-kubernetes-validations"] == [
        {"rule": "self.matches('^(a+)$')", "message": "text must be of the letter a"}
    ]
    assert "default" not in spec["parts"]
    assert schema(Thing)["properties"]["status"]["properties"]["count"] == {
        "description": "How many.",
        "type": "integer",
    }
    assert crd(Thing)["spec"]["versions"][0]["subresources"] == {"status": {}}


def test_a_union_that_no_structural_schema_has_is_refused():
    class Unclear(ApiModel):
        """Two things at once."""

        value: int | str = 1

    class UnclearThing(Thing):
        """A thing."""

        spec: Unclear

    with pytest.raises(TypeError, match="no unions"):
        schema(UnclearThing)


def test_a_pattern_that_cel_would_read_otherwise_is_refused():
    with pytest.raises(ValueError, match="write a class instead"):
        matching(r"a\.b", "never shown")


def test_names_and_subresources():
    documents = {document["spec"]["names"]["kind"]: document for document in crds()}
    assert {kind: d["spec"]["names"]["shortNames"] for kind, d in documents.items()} == {
        "GPUNodePool": ["gnp"],
        "ModelRepository": ["mr"],
        "InferenceServer": ["isrv"],
        "Model": ["mdl"],
    }
    assert all(document["spec"]["names"]["categories"] == ["gravswell"] for document in documents.values())
    scaled = {kind for kind, d in documents.items() if "scale" in d["spec"]["versions"][0]["subresources"]}
    assert scaled == {"GPUNodePool", "InferenceServer"}


def test_columns_point_at_fields_that_exist():
    paths = {path for path, _ in NODES}
    for kind in KINDS:
        for column in kind.NAMES.columns:
            field = column.path.partition("[")[0]
            assert field == ".metadata.creationTimestamp" or kind.NAMES.kind + field in paths, column


def test_the_files_in_the_checkout_are_up_to_date():
    done = subprocess.run(
        [sys.executable, "-m", "gravswell_operator.api.generate", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_generating_writes_what_is_missing_changed_or_stale(tmp_path, capsys):
    (tmp_path / "charts/gravswell").mkdir(parents=True)
    (tmp_path / "charts/gravswell/Chart.yaml").touch()
    assert generate.main(["--root", str(tmp_path), "--check"]) == 1
    assert generate.main(["--root", str(tmp_path)]) == 0
    stale = tmp_path / "crds/gravswell.dev_olds.yaml"
    stale.touch()
    (tmp_path / "crds/gravswell.dev_models.yaml").write_text("edited by hand")
    assert generate.main(["--root", str(tmp_path), "--check"]) == 1
    assert "gravswell.dev_models.yaml is out of date" in capsys.readouterr().err
    assert generate.main(["--root", str(tmp_path)]) == 0
    assert not stale.exists()
    assert generate.main(["--root", str(tmp_path), "--check"]) == 0


def test_generating_outside_a_checkout_is_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit):
        generate.main(["--root", str(tmp_path)])
    assert "is not a checkout" in capsys.readouterr().err


def test_chart_templates_are_the_same_documents():
    for path, text in generate.files():
        if path.parent == generate.PLAIN:
            continue
        document = yaml.safe_load("\n".join(line for line in text.splitlines() if "{{" not in line))
        assert document["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert document in crds()
