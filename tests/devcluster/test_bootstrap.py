"""Where the packages of a root file system come from: the machine's own sources, whichever way they are written."""

import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gravswell_operator.devcluster.bootstrap import bootstrapping, sources

ONE_LINE = """\
# the mirror of the house
deb [arch=amd64,arm64 signed-by=/keys/house.gpg] http://house.test/debian trixie main contrib # near
deb-src http://house.test/debian trixie main
deb http://house.test/debian trixie-updates main
deb http://house.test/debian trixie-backports main
deb http://tools.test/apt stable main
"""
DEB822 = """\
# Generated
Types: deb deb-src
# as of last month
uris: http://mirror.test/debian http://spare.test/debian
Suites: trixie trixie-updates trixie-backports
Components: main non-free-firmware
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 AAAA
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://mirror.test/debian-security
Suites: trixie-security
Components: main

Enabled: no
Types: deb
URIs: http://old.test/debian
Suites: trixie
Components: main
"""

Machine = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """``machine(files, system=..., release=...)``: the folder of its apt's configuration."""

    def make(files: dict[str, str], system: str = "debian", release: str = "trixie") -> Path:
        monkeypatch.setattr(
            platform, "freedesktop_os_release", lambda: {"ID": system, "VERSION_CODENAME": release} if system else {}
        )
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return make


def test_lines_are_taken_with_their_options_for_the_release_that_is_wanted(machine: Machine) -> None:
    assert sources("bookworm", machine({"sources.list": ONE_LINE})) == (
        "Types: deb\nURIs: http://house.test/debian\nSuites: bookworm\nComponents: main\n"
        "Architectures: amd64 arm64\nsigned-by: /keys/house.gpg\n\n"
        "Types: deb\nURIs: http://house.test/debian\nSuites: bookworm-updates\nComponents: main\n"
    )


def test_paragraphs_are_taken_with_the_key_that_stands_in_them(machine: Machine) -> None:
    first, second = sources("bookworm", machine({"sources.list.d/debian.sources": DEB822})).split("\n\n")
    assert "URIs: http://mirror.test/debian http://spare.test/debian\nSuites: bookworm bookworm-updates\n" in first
    assert first.endswith("-----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n AAAA\n -----END PGP PUBLIC KEY BLOCK-----")
    assert (
        second == "Types: deb\nURIs: http://mirror.test/debian-security\nSuites: bookworm-security\nComponents: main\n"
    )


@pytest.mark.parametrize(
    ("system", "text"),
    [("ubuntu", ONE_LINE), ("", ONE_LINE), ("debian", ""), ("debian", ONE_LINE.replace(" trixie main", " sid main"))],
    ids=["another system", "none that says what it is", "no source", "updates alone"],
)
def test_without_debians_own_release_there_they_are_debians(machine: Machine, system: str, text: str) -> None:
    assert sources("bookworm", machine({"sources.list": text}, system=system)) == ""


def test_apt_reads_them_as_they_were_meant(machine: Machine, tmp_path: Path) -> None:
    folder = machine({"sources.list": ONE_LINE, "sources.list.d/debian.sources": DEB822})
    for name in ("parts", "lists/partial"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "parts/machine.sources").write_text(sources("bookworm", folder))
    settings = {
        "Etc::SourceList": "/dev/null",
        "Etc::SourceParts": tmp_path / "parts",
        "State::Lists": tmp_path / "lists",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"Dir::{name}={value}")]
    done = subprocess.run(
        ["apt-get", *options, "update", "--print-uris"], capture_output=True, text=True, check=True, timeout=60
    )
    found = {line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("'")}
    assert {uri for uri in found if uri.endswith("/InRelease")} == {
        "http://house.test/debian/dists/bookworm/InRelease",
        "http://house.test/debian/dists/bookworm-updates/InRelease",
        "http://mirror.test/debian/dists/bookworm/InRelease",
        "http://mirror.test/debian/dists/bookworm-updates/InRelease",
        "http://mirror.test/debian-security/dists/bookworm-security/InRelease",
        "http://spare.test/debian/dists/bookworm/InRelease",
        "http://spare.test/debian/dists/bookworm-updates/InRelease",
    }


def test_the_proxy_of_apt_is_mmdebstraps_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apt.conf").write_text(
        'Acquire::http::Proxy "http://proxy.test:3142";\nAcquire::https::Proxy "DIRECT";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    command, environment = bootstrapping("bookworm", tmp_path / "root.tar", ["--variant=essential"], tmp_path)
    assert environment["http_proxy"] == "http://proxy.test:3142"
    assert "https_proxy" not in environment
    assert command[:3] == ["mmdebstrap", "--quiet", "--variant=essential"]
    monkeypatch.setenv("http_proxy", "http://of-the-user.test")
    assert bootstrapping("bookworm", tmp_path / "root.tar", [], tmp_path)[1]["http_proxy"] == "http://of-the-user.test"
