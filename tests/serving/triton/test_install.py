import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gravswell.errors import UnavailableError, UnsupportedError
from gravswell.serving.triton import ensure_triton, install, packages
from gravswell.serving.triton.support import Machine


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own that has the downloads already (as links) and no server folder."""
    installed = ensure_triton().folder.parent
    fresh = tmp_path / "cache" / "triton"
    fresh.mkdir(parents=True)
    for folder in installed.iterdir():
        if folder.name.startswith(("wheel-", "stub-")):
            (fresh / folder.name).symlink_to(folder)
    monkeypatch.setenv("GRAVSWELL_CACHE", str(fresh.parent))
    return fresh


@pytest.fixture
def no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing is to be downloaded here")

    monkeypatch.setattr(install, "install_packages", fail)


def test_the_program_is_nvidias_whatever_the_folder_it_is_called_from(tmp_path: Path) -> None:
    installation = ensure_triton()
    path = f"{installation.shim_dir}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", "tritonserver --help"],
        cwd=tmp_path,
        env={"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--http-restricted-api" in done.stdout + done.stderr
    assert installation.version == "2.51.0"


def test_the_shim_becomes_the_server() -> None:
    """The process id stays, so that signals and exit statuses are the server's own."""
    program = ensure_triton().program
    with subprocess.Popen([program, "--model-repository=/nowhere", "--model-control-mode=explicit"]) as process:
        assert process.wait(60) == 1


@pytest.mark.usefixtures("no_downloads")
def test_what_is_installed_is_found_again_without_a_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ensure_triton()
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    assert ensure_triton() == first


@pytest.mark.usefixtures("no_downloads")
def test_an_upgrade_of_our_files_writes_only_these(
    fresh_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ensure_triton()
    ours = tmp_path / "backends"
    shutil.copytree(install.OURS, ours)
    model = ours / "onnxruntime" / "model.py"
    model.write_text(model.read_text() + "# newer\n")
    monkeypatch.setattr(install, "OURS", ours)
    after = ensure_triton()
    assert after.folder != before.folder
    assert (after.folder / "backends" / "onnxruntime" / "model.py").read_text().endswith("# newer\n")
    assert before.program.is_file()  # a server that runs from it is not disturbed
    assert not [path for path in after.folder.rglob("*") if path.is_symlink()]


def test_a_killed_installation_is_taken_up_again(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (wheel,) = fresh_cache.glob("wheel-*")
    real = wheel.resolve()
    wheel.unlink()
    stage = wheel.with_name(f".{wheel.name}.staging")
    stage.mkdir()
    (stage / "half").write_text("written")

    def broken(*_: Any, **__: Any) -> None:
        raise UnavailableError("the network is down")

    monkeypatch.setattr(install, "install_packages", broken)
    with pytest.raises(UnavailableError, match="network"):
        ensure_triton()
    assert not wheel.exists()

    def copy(_requirements: Any, target: Path, *_: Any, **__: Any) -> None:
        assert not (target / "half").exists()
        shutil.copytree(real, target, dirs_exist_ok=True, symlinks=True)

    monkeypatch.setattr(install, "install_packages", copy)
    assert ensure_triton().program.is_file()
    assert not list(fresh_cache.glob(".*.staging"))


def test_a_full_disk_is_told_before_anything_is_downloaded(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    next(fresh_cache.glob("wheel-*")).unlink()
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(UnavailableError, match=r"needs 288 MB and its disk has 1 MB free.*GRAVSWELL_CACHE"):
        ensure_triton()


def test_an_unsupported_machine_downloads_nothing(fresh_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "this", classmethod(lambda cls: cls("Darwin", "arm64", None, (3, 13))))
    with pytest.raises(UnsupportedError, match="Darwin"):
        ensure_triton()


def test_missing_shared_libraries_are_named() -> None:
    folder = ensure_triton().folder
    with pytest.raises(UnavailableError, match="libcudart"):
        packages.require_libraries([folder / "backends" / "python" / "triton_python_backend_stub"], [])


def test_the_installers_last_words_are_shown(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "stage"
    with pytest.raises(UnavailableError, match=r"absent\.whl could not be installed: .*absent"):
        packages.install_packages(["./absent.whl"], target, 10, lambda _step, done, total: seen.append((done, total)))
    assert {total for _, total in seen} <= {10}


@pytest.mark.parametrize(("pip", "uv", "first"), [(True, True, "-m"), (False, True, "pip")])
def test_the_installer_is_whichever_is_there(pip: bool, uv: bool, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda _: object() if pip else None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if uv else None)
    assert packages._installer()[1] == first


def test_without_an_installer_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(UnavailableError, match="-m ensurepip"):
        packages._installer()
