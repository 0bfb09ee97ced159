"""Templates: every value has its place, and none of them can become another field."""

from pathlib import Path

import pytest

from gravswell.cloudbreak import manifests
from gravswell.cloudbreak.google.cluster import TEMPLATES

PLAIN = """
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ name }}}
data: {tag: "v{{ tag }}-py3", whole: {{ .Values.tag }}}
"""


def test_values_keep_their_types_and_join_texts() -> None:
    (document,) = manifests.render(PLAIN, "plain.yaml", {"name": "a", "tag": 20.11})
    assert document["data"] == {"tag": "v20.11-py3", "whole": 20.11}


def test_a_value_cannot_become_another_field() -> None:
    (document,) = manifests.render(PLAIN, "plain.yaml", {"name": "a\nkind: Secret", "tag": "}, x: {"})
    assert document["kind"] == "ConfigMap"
    assert document["data"]["whole"] == "}, x: {"
    assert document["metadata"]["name"] == "a\nkind: Secret"  # for the API server to refuse


@pytest.mark.parametrize(
    ("text", "values", "words"),
    [
        (PLAIN, {"name": "a"}, "plain.yaml needs a value for tag"),
        (PLAIN, {"name": "a", "tag": 1, "gpus": 2}, "plain.yaml has no place for gpus; it takes name, tag"),
        ("a: b: c", {}, "plain.yaml is no YAML"),
        ("[1]", {}, "without apiVersion and kind"),
        ("{apiVersion: v1, kind: Pod}", {}, "a Pod has no metadata.name"),
    ],
)
def test_what_cannot_be_filled_is_a_value_error(text: str, values: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        manifests.render(text, "plain.yaml", values)


def test_a_file_of_the_users_goes_before_the_librarys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "tritonserver" in manifests.read("triton.yaml", TEMPLATES)[0]
    (tmp_path / "triton.yaml").write_text(PLAIN)
    assert manifests.read("triton.yaml", TEMPLATES)[0] == PLAIN
    with pytest.raises(manifests.NotFoundError, match=r"templates: gpu-drivers.yaml, triton.yaml"):
        manifests.read("nothing.yaml", TEMPLATES)
