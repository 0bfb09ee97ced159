"""A Go module proxy on disk, so that builds are real, quick and offline."""

import io
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gravswell_operator.devcluster.gobuild import Module, Program

HELLO = """package main

import "fmt"

var version = "unset"

func main() { fmt.Println("hello", version) }
"""

Publish = Callable[..., Program]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """``publish(name, source=..., go=...) -> Program``: a one-command module at v1.0.0, the cache in ``tmp_path``."""
    proxy = tmp_path / "proxy"
    monkeypatch.setenv("GRAVSWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GOPROXY", proxy.as_uri())
    monkeypatch.setenv("GONOSUMDB", "example.test")
    monkeypatch.setenv("GOTOOLCHAIN", "local")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)

    def make(name: str, source: str = HELLO, go: str = "1.21") -> Program:
        path = f"example.test/{name}"
        folder = proxy / path / "@v"
        folder.mkdir(parents=True)
        definition = f"module {path}\n\ngo {go}\n"
        (folder / "list").write_text("v1.0.0\n")
        (folder / "v1.0.0.info").write_text('{"Version": "v1.0.0"}')
        (folder / "v1.0.0.mod").write_text(definition)
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as packed:
            packed.writestr(f"{path}@v1.0.0/go.mod", definition)
            packed.writestr(f"{path}@v1.0.0/main.go", source)
        (folder / "v1.0.0.zip").write_bytes(archive.getvalue())
        return Program(name, Module(name, path, "v1.0.0", ("main.version",)), path, room=1)

    return make


@pytest.fixture
def without_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No ``go`` on the path or beside the interpreter, an empty cache."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("GRAVSWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    assert shutil.which("go") is None
