"""Pipelines in an overlay: their members under names of the server's own, and what cannot be served said before."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from gravswell import quiver as qv
from gravswell.errors import UnavailableError
from gravswell.quiver.config import parse_config
from gravswell.quiver.layout import CONFIG
from gravswell.serving.members import member_name
from gravswell.serving.triton.overlay import Overlay, build_overlay
from gravswell.serving.triton.pipelines import ENVIRONMENT, serve_also

from .conftest import scale


@qv.pipeline(output_names=["z"])
def four(x, *, double):
    return double(double(x))


@qv.pipeline(inputs={"x": ("FP32", (None, 4))}, output_names=["z"])
def same(x, *, double):
    return double(x) if x.max() > 0 else x * 2


def only(x, *, m):
    return m(x)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pipelines of one member; one of them needs a package."""
    root = tmp_path_factory.mktemp("published") / "r"
    repository = qv.ModelRepository(root)
    repository.add("double").export_version(scale())
    repository.add("four", qv.Platform.PIPELINE).export_version(four)
    repository.add("same", qv.Platform.PIPELINE).export_version(same)
    (root / "same/1/requirements.txt").write_text("easy==1.0\n")
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(published, tmp_path / "r"))


def built(root: Path, models: list[str] | None = None, key: str = "k") -> tuple[Overlay, Path]:
    target = root.parent / f"overlay-{len(list(root.parent.iterdir()))}"
    return build_overlay(root, target, models, key=key), target


def config_of(target: Path, name: str) -> object:
    return parse_config((target / name / CONFIG).read_text())


def test_configs_call_members_by_the_names_of_the_server(root: Path) -> None:
    digest = hashlib.sha256((root / "double/1/.manifest.json").read_bytes()).hexdigest()
    overlay, target = built(root)
    name = member_name("double", digest, "k")
    assert overlay == Overlay(
        ["four", "same"], True, members={name: "double/1"}, users={"four": {name}, "same": {name}}
    )
    assert sorted(path.name for path in target.iterdir()) == sorted(["four", "same", name])
    steps = config_of(target, "four").ensemble_scheduling.step
    assert [(step.model_name, step.model_version) for step in steps] == [(name, 1)] * 2
    assert config_of(target, "same").parameters["gravswell.member.double"].string_value == f"{name}:1"
    member = config_of(target, name)
    assert (member.name, list(member.version_policy.specific.versions)) == (name, [1])
    assert (target / name / "1/model.onnx").read_bytes() == (root / "double/1/model.onnx").read_bytes()
    assert set(built(root, key="other")[0].members) != {name}, "another server calls it otherwise"


def test_an_older_version_is_served_as_it_was_published_and_the_newest_as_the_entry_says(root: Path) -> None:
    double = qv.ModelRepository(root).models["double"]
    double.config.add_instance_group(count=2)
    overlay, target = built(root)
    (name,) = overlay.members
    assert config_of(target, name).instance_group[0].count == 2
    double.export_version(scale(3.0))
    overlay, target = built(root)
    assert (list(overlay.members), config_of(target, name).instance_group[0].count) == ([name], 1)


def test_the_packages_of_a_version_are_installed_and_their_folder_is_told(root: Path, tmp_path: Path) -> None:
    asked = []

    def environment(requirements: str, whose: str) -> Path:
        asked.append((requirements, whose))
        return tmp_path / "packages"

    target = tmp_path / "overlay"
    build_overlay(root, target, environment=environment)
    assert asked == [("easy==1.0\n", "pipeline 'same/1'")]
    assert config_of(target, "same").parameters[ENVIRONMENT].string_value == str(tmp_path / "packages")
    assert ENVIRONMENT not in config_of(target, "four").parameters


def test_a_member_that_is_not_there_is_told_and_the_others_are_served(root: Path) -> None:
    (root / "double/1/.manifest.json").unlink()
    (root / "double/1/model.onnx").unlink()
    (root / "double/1").rename(root / "double/7")
    with pytest.raises(
        UnavailableError, match=r"pipeline 'four/1' needs its member double/1, which is not in .*export"
    ):
        built(root)
    qv.ModelRepository(root).add("other").export_version(scale())
    overlay, target = built(root)
    assert overlay.models == ["other"]
    assert overlay.broken.keys() == {"four", "same"}
    assert not (target / "four").exists()


def test_a_member_that_was_replaced_is_not_the_one_that_was_proved(root: Path) -> None:
    path = root / "double/1/.manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"framework": "another"}))
    with pytest.raises(UnavailableError, match=r"as it was when the pipeline was proved, and its manifest is another"):
        built(root)


def test_what_is_named_brings_no_private_member_to_clients(root: Path) -> None:
    assert built(root, ["four"])[0].models == ["four"]
    assert built(root, ["four", "double"])[0].models == ["double", "four"]


def test_a_public_pipeline_without_its_member_is_told_and_the_others_are_served(root: Path) -> None:
    repository = qv.ModelRepository(root)
    repository.add("triple").export_version(scale(3.0))
    public = qv.Pipeline(only, output_names=["z"], members={"m": "triple"}, access="public")
    repository.add("opened", qv.Platform.PIPELINE).export_version(public)
    shutil.rmtree(root / "triple/1")
    told = "pipeline 'opened/1' needs its member triple/1, which is not in "
    for _ in ("the version is gone", "the whole entry is gone"):
        for models in (None, ["four", "opened"]):
            overlay, _target = built(root, models)
            assert "four" in overlay.models
            assert "opened" not in overlay.models
            assert overlay.broken["opened"].startswith(told)
        with pytest.raises(UnavailableError, match=told):
            built(root, ["opened"])
        shutil.rmtree(root / "triple", ignore_errors=True)


def test_what_is_hidden_is_what_the_served_version_keeps_private(root: Path) -> None:
    """A policy holds the pipeline at a version; the newest has another member, and opens it."""
    repository = qv.ModelRepository(root)
    repository.add("triple").export_version(scale(3.0))
    held = repository.add("held", qv.Platform.PIPELINE)
    held.export_version(qv.Pipeline(only, output_names=["z"], members={"m": "double"}))
    held.export_version(qv.Pipeline(only, output_names=["z"], members={"m": "triple"}, access="public"))
    held.config.version_policy.specific.versions[:] = [1]
    overlay, target = built(root, ["held"])
    assert (overlay.models, list(overlay.members.values())) == (["held"], ["double/1"])
    assert (target / "held/1").exists()
    assert not (target / "held/2").exists()
    assert built(root)[0].models == ["four", "held", "same", "triple"]
    held.config.version_policy.specific.versions[:] = [2]
    assert built(root, ["held"])[0].models == ["held", "triple"]


def test_what_a_pipeline_that_cannot_be_read_keeps_private_is_not_opened(root: Path) -> None:
    (root / "four/1/.config.pbtxt").write_text("platform: [")
    shutil.rmtree(root / "same")
    qv.ModelRepository(root).add("other").export_version(scale())
    overlay, _target = built(root)
    assert overlay.models == ["other"]
    assert "four/1" in overlay.broken["four"]


@pytest.mark.parametrize(
    ("policy", "pinned", "after"),
    [
        ("", {3}, ""),
        ("", {1}, "specific { versions: [ 1, 3 ] }"),
        ("latest { num_versions: 2 }", {2}, "latest { num_versions: 2 }"),
        ("latest { num_versions: 2 }", {1}, "specific { versions: [ 1, 2, 3 ] }"),
        ("all {}", {1}, "all {}"),
        ("specific { versions: [ 2 ] }", {1}, "specific { versions: [ 1, 2 ] }"),
    ],
)
def test_an_opened_entry_serves_what_is_pinned_too(policy: str, pinned: set[int], after: str) -> None:
    config = parse_config(f"version_policy {{ {policy} }}" if policy else "")
    serve_also(config, {1, 2, 3}, pinned)
    assert config == parse_config(f"version_policy {{ {after} }}" if after else "")
