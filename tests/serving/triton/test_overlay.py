import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gravswell.errors import InvalidInputError, NotFoundError
from gravswell.quiver.config import format_config, parse_config
from gravswell.serving.triton.overlay import Overlay, build_overlay, run_on_cpu


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "instance_group { count: 1 kind: KIND_CPU }"),
        ("instance_group { kind: KIND_GPU }", "instance_group { count: 1 kind: KIND_CPU }"),
        ("instance_group { count: 4 kind: KIND_GPU gpus: [ 0, 1 ] }", "instance_group { count: 4 kind: KIND_CPU }"),
        ("instance_group { count: 3 }", "instance_group { count: 3 kind: KIND_CPU }"),
        ("instance_group { kind: KIND_CPU }", "instance_group { kind: KIND_CPU }"),
        ("instance_group { kind: KIND_MODEL }", "instance_group { kind: KIND_MODEL }"),
        (
            'platform: "ensemble" ensemble_scheduling { step { model_name: "a" model_version: -1 } }',
            'platform: "ensemble" ensemble_scheduling { step { model_name: "a" model_version: -1 } }',
        ),
    ],
)
def test_devices(before: str, after: str) -> None:
    config = parse_config(before)
    run_on_cpu(config)
    assert format_config(config) == format_config(parse_config(after))


def snapshot(root: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_the_overlay_shows_published_versions_and_leaves_the_repository_as_it_is(
    tmp_path: Path, put_entry: Callable[..., Path], scale_config: str
) -> None:
    root, target = tmp_path / "repo", tmp_path / "overlay"
    config = f"# by hand\n{scale_config}instance_group {{ kind: KIND_GPU count: 2 }}\n"
    put_entry(root, "m", b"one", config)
    (put_entry(root, "m", b"two", None, version=2) / ".claim.json").write_text("{}")
    (root / "m" / "labels.txt").write_text("a\nb\n")
    (root / "empty").mkdir()
    before = snapshot(root)

    assert build_overlay(root, target) == Overlay(["m"], complete=True)
    assert sorted(path.name for path in (target / "m").iterdir()) == ["1", "config.pbtxt", "labels.txt"]
    assert (target / "m" / "1" / "model.onnx").read_bytes() == b"one"
    text = (target / "m" / "config.pbtxt").read_text()
    assert "KIND_CPU" in text
    assert "KIND_GPU" not in text
    assert "# by hand" in text
    assert snapshot(root) == before


def test_a_missing_config_is_healed_from_the_newest_version(
    tmp_path: Path, put_entry: Callable[..., Path], scale_config: str
) -> None:
    put_entry(tmp_path / "repo", "m", b"one", None)
    (put_entry(tmp_path / "repo", "m", b"two", None, version=2) / ".config.pbtxt").write_text(scale_config)
    build_overlay(tmp_path / "repo", tmp_path / "overlay")
    assert 'name: "x"' in (tmp_path / "overlay" / "m" / "config.pbtxt").read_text()


def test_chosen_models_bring_the_members_of_their_ensembles(
    tmp_path: Path, put_entry: Callable[..., Path], scale_config: str
) -> None:
    ensemble = 'platform: "ensemble"\nensemble_scheduling { step { model_name: "a" } step { model_name: "b" } }\n'
    for name in ("a", "b", "other"):
        put_entry(tmp_path / "repo", name, b"", scale_config)
    put_entry(tmp_path / "repo", "both", b"", ensemble)
    assert build_overlay(tmp_path / "repo", tmp_path / "overlay", ["both"]).models == ["a", "b", "both"]


@pytest.mark.parametrize("config", ['platform: "onnxruntime_onnx"\n', 'backend: "python"\n', None])
def test_configs_that_leave_something_out_are_known(
    config: str | None, tmp_path: Path, put_entry: Callable[..., Path], scale_config: str
) -> None:
    put_entry(tmp_path / "repo", "full", b"", scale_config)
    put_entry(tmp_path / "repo", "m", b"", config)
    assert not build_overlay(tmp_path / "repo", tmp_path / "overlay").complete


def test_what_is_not_there_is_named(tmp_path: Path, put_entry: Callable[..., Path]) -> None:
    root = tmp_path / "repo"
    with pytest.raises(NotFoundError, match="repo"):
        build_overlay(root, tmp_path / "a")
    (root / "hollow").mkdir(parents=True)
    (root / "hollow" / "config.pbtxt").write_text("")
    with pytest.raises(NotFoundError, match="nothing to serve"):
        build_overlay(root, tmp_path / "b")
    with pytest.raises(NotFoundError, match=r"'hollow' .* has no version"):
        build_overlay(root, tmp_path / "c", ["hollow"])
    with pytest.raises(NotFoundError, match=r"no model 'm' .* hollow"):
        build_overlay(root, tmp_path / "d", ["m"])
    put_entry(root, "broken", b"", "platform: [")
    with pytest.raises(InvalidInputError, match=r"broken/config\.pbtxt"):
        build_overlay(root, tmp_path / "e")


BAD_NAMES = {
    "my model": "letters",
    "größe": "letters",
    "a+b": "letters",
    "a;b": "letters",
    "gravswell-proof-x": "under proof",
    os.fsdecode(b"bad\xff"): "letters",
}


@pytest.mark.parametrize(("name", "why"), BAD_NAMES.items(), ids=map(ascii, BAD_NAMES))
def test_a_name_that_triton_cannot_serve_is_left_out_with_the_reason(
    name: str, why: str, tmp_path: Path, put_entry: Callable[..., Path], scale_config: str
) -> None:
    root = tmp_path / "repo"
    (put_entry(root, "m", b"", scale_config).parent / "labels.txt").write_text("")
    shutil.copytree(root / "m", root / name)
    overlay = build_overlay(root, tmp_path / "overlay")
    assert overlay.models == ["m"]
    assert [name] == list(overlay.refused)
    assert why in overlay.refused[name]
    assert [path.name for path in (tmp_path / "overlay").iterdir()] == ["m"]
    with pytest.raises(InvalidInputError) as caught:
        build_overlay(root, tmp_path / "asked", [name])
    told = str(caught.value)
    assert told.startswith(f"folder {name!a} in {root} cannot be served: ")
    assert told.isascii()
    assert told.endswith("rename it, or name the models to serve (--entry)")


def test_a_hidden_folder_is_no_model(tmp_path: Path, put_entry: Callable[..., Path], scale_config: str) -> None:
    put_entry(tmp_path / "repo", "m", b"", scale_config)
    put_entry(tmp_path / "repo", ".hidden", b"", scale_config)
    (tmp_path / "repo/no version").mkdir()
    assert build_overlay(tmp_path / "repo", tmp_path / "a") == Overlay(["m"], complete=True)
    with pytest.raises(InvalidInputError, match=r"folder '\.hidden' .* hidden folders are no models"):
        build_overlay(tmp_path / "repo", tmp_path / "b", [".hidden"])
