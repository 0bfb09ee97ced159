"""The packages of pipelines, from wheels that are made here: no network, and versions as they are needed."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from gravswell.errors import UnavailableError
from gravswell.serving.triton.environments import ensure_environment


def wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}/__init__.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All that can be had; and a cache of its own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    wheel(folder, "numpy", "1.26.4")
    wheel(folder, "numpy", "2.1.0")
    wheel(folder, "modern", "1.0", requires="numpy>=2")
    wheel(folder, "easy", "1.0", requires="numpy>=1.20")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("GRAVSWELL_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.mark.usefixtures("index")
def test_packages_come_without_numpy_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    folder = ensure_environment(
        "# what it imports\neasy==1.0\n", "pipeline 'p/1'", lambda step, done, total: told.append((step, done <= total))
    )
    assert (folder / "easy/__init__.py").read_text() == "__version__ = '1.0'\n"
    assert not list(folder.glob("numpy*"))
    assert told[-1] == ("installing easy==1.0", True)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    assert ensure_environment("easy==1.0", "pipeline 'q/7'") == folder, "the same requirements of another"


def test_what_is_no_comment_stays(index: Path) -> None:
    url = (index / "easy-1.0-py3-none-any.whl").as_uri()
    folder = ensure_environment(f"easy @ {url}#egg=easy # from there\n", "pipeline 'p/1'")
    assert (folder / "easy/__init__.py").is_file()


@pytest.mark.usefixtures("index")
def test_a_line_that_names_no_package_is_told() -> None:
    with pytest.raises(UnavailableError, match=r"of pipeline 'p/1' .*: '--index-url http://x' names no package"):
        ensure_environment("easy==1.0\n--index-url http://x\n", "pipeline 'p/1'")


@pytest.mark.usefixtures("index")
def test_what_asks_for_numpy_2_is_installed_too() -> None:
    """Compiled packages that do run on older ones; what does not says so when it is imported."""
    folder = ensure_environment("modern==1.0\n", "pipeline 'p/1'")
    assert (folder / "modern").is_dir()
    assert not list(folder.glob("numpy*"))


@pytest.mark.usefixtures("index")
def test_what_cannot_be_had_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    told = r"the packages of pipeline 'p/1' \(absent==3\.1\) cannot be installed for Python 3\.\d+: .*absent==3\.1"
    with pytest.raises(UnavailableError, match=told):
        ensure_environment("absent==3.1\n", "pipeline 'p/1'")
    assert [path.name for path in (tmp_path / "cache/environments").iterdir() if path.is_dir()] == []


@pytest.mark.usefixtures("index")
def test_without_a_network_it_is_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(UnavailableError, match=r"pipeline 'p/1' .*check the network and the package index"):
        ensure_environment("absent==3.1\n", "pipeline 'p/1'")
