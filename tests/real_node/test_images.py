"""What the images are: small, of a user without rights, with nothing to build with, and all that is in them listed."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from gravswell_operator.devcluster.bootstrap import bootstrapping
from gravswell_operator.devcluster.debian import ensure_packages

from .operating import ROOT
from .outside import mounts_in, processes_of, until

MEGABYTE = 1_000_000
LARGEST = {"gravswell": 650 * MEGABYTE, "tritonserver-cpu": 650 * MEGABYTE}
"""Unpacked bytes. NVIDIA's own image of Triton has more than 8,000 MB."""

BUILD_TOOLS = re.compile(
    r"(^|/)s?bin/([\w.+]+-)*(gcc|g\+\+|cc|c\+\+|cpp|clang(\+\+)?|as|ld|ld\.(bfd|gold|lld)|make|go|rustc|cargo|pip|apt|apt-get|"
    r"curl|wget|dpkg)[-\d.]*$|(^|/)s?bin/cpan[^/]*$|/(cc1|cc1plus|collect2)$"
)
"""By any name: ``x86_64-linux-gnu-gcc-12`` is ``gcc``."""
KEPT = {"usr/bin/dpkg"}
"""An essential package of Debian's. It needs root, and takes archives that are there."""


@pytest.fixture(params=sorted(LARGEST))
def image(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def config_of(archive: Path) -> dict:
    with tarfile.open(archive) as tar:
        manifest = json.load(tar.extractfile("manifest.json"))[0]
        return json.load(tar.extractfile(manifest["Config"]))["config"]


def files_of(archive: Path) -> dict[str, int]:
    """Paths and sizes of what the layers hold together."""
    found: dict[str, int] = {}
    with tarfile.open(archive) as tar:
        for layer in json.load(tar.extractfile("manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=tar.extractfile(layer)) as content:
                for entry in content:
                    folder, _, name = entry.name.rpartition("/")
                    if name.startswith(".wh."):
                        gone = f"{folder}/{name.removeprefix('.wh.')}"
                        found = {p: s for p, s in found.items() if p != gone and not p.startswith(f"{gone}/")}
                    elif not entry.isdir():
                        found[entry.name.removeprefix("./")] = entry.size
    return found


def test_it_runs_as_a_user_without_rights(images, image):
    assert config_of(images / f"{image}.tar")["User"] == "1000:1000"


def test_it_is_small_and_has_nothing_to_build_or_install_with(images, image):
    files = files_of(images / f"{image}.tar")
    assert sum(files.values()) < LARGEST[image]
    assert {path for path in files if BUILD_TOOLS.search(path)} <= KEPT
    assert [path for path in files if path.endswith("/pip/__init__.py") or "python-wheels/" in path] == []


@pytest.mark.parametrize(
    "path",
    [
        "usr/bin/gcc-12",
        "usr/bin/x86_64-linux-gnu-gcc",
        "usr/bin/x86_64-linux-gnu-g++-12",
        "usr/bin/c99-gcc",
        "usr/bin/clang",
        "usr/lib/llvm-14/bin/clang++",
        "usr/bin/x86_64-linux-gnu-ld.gold",
        "usr/bin/as",
        "usr/lib/gcc/x86_64-linux-gnu/12/cc1plus",
        "usr/local/go/bin/go",
        "opt/gravswell/bin/pip3.11",
        "usr/bin/apt-get",
        "bin/wget",
    ],
)
def test_a_tool_to_build_or_install_with_is_known_by_its_other_names_too(path):
    assert BUILD_TOOLS.search(path)


@pytest.mark.parametrize(
    "path",
    [
        "usr/bin/ld.so",
        "usr/bin/ldd",
        "usr/sbin/ldconfig",
        "usr/bin/basename",
        "usr/bin/dpkg-query",
        "usr/share/gcc/cc1.py",
    ],
)
def test_what_is_only_called_like_one_is_not_taken_for_it(path):
    assert not BUILD_TOOLS.search(path)


def test_its_bill_of_materials_lists_every_package_in_it(images, image):
    document = json.loads((images / f"{image}.cdx.json").read_text())
    listed = {component["purl"] for component in document["components"]}
    packages = [p for p in files_of(images / f"{image}.tar") if re.match(r"opt/.*\.dist-info/METADATA$", p)]
    python = {Path(path).parent.name.removesuffix(".dist-info").partition("-") for path in packages}
    wanted = {f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}" for name, _, version in python}
    assert wanted <= listed
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in listed)
    known = {"gravswell": "pkg:pypi/gravswell@0.1.0", "tritonserver-cpu": "pkg:pypi/nvidia-pytriton@0.7.0"}
    assert known[image] in listed
    removed = [purl for purl in listed if re.match(r"pkg:deb/debian/python3-(pip|setuptools)-whl@", purl)]
    assert not removed, "dpkg knows them still, and their files are gone"


def test_the_versions_in_it_are_the_pinned_ones(images, image):
    document = json.loads((images / f"{image}.cdx.json").read_text())
    file = {"gravswell": "requirements.txt", "tritonserver-cpu": "server-requirements.txt"}[image]
    lock = (Path(__file__).parents[2] / "images" / file).read_text()
    pinned = set(re.findall(r"^([a-z0-9_.-]+==\S+)", lock, re.MULTILINE))
    python = {f"{c['name']}=={c['version']}" for c in document["components"] if c["purl"].startswith("pkg:pypi/")}
    assert {name for name in python if not name.startswith("gravswell==")} <= pinned


def test_a_root_file_system_has_nothing_of_the_sources_that_this_machine_has_its_packages_from(tmp_path):
    ensure_packages({"mmdebstrap": "mmdebstrap"}, what="this test")
    archive = tmp_path / "root.tar"  # without a package in it, which takes seconds
    command, environment = bootstrapping("bookworm", archive, ["--variant=custom"], tmp_path)
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
    subprocess.run([*own, *command], env=environment, check=True, timeout=300)
    assert archive.with_name("machine.sources").exists(), "there was nothing to leave"
    with tarfile.open(archive) as tar:
        assert [name for name in tar.getnames() if name.startswith("./etc/apt/sources.list.d/")] == []


def test_a_build_that_is_killed_leaves_no_process_and_no_mount(tmp_path):
    work = tmp_path / "cache"  # empty: the base is made first, for which the machine's /sys and /dev are mounted
    command = [sys.executable, ROOT / "images/build.py", tmp_path / "output"]
    with subprocess.Popen(command, env=os.environ | {"GRAVSWELL_CACHE": str(work)}) as build:
        until(lambda: build.poll() is not None or mounts_in(work))
        build.kill()
        assert build.wait() == -9, "it ended by itself"
    assert str(work) not in Path("/proc/self/mountinfo").read_text()
    until(lambda: not processes_of(work))
    assert mounts_in(work) == []
    shutil.rmtree(work)  # hundreds of megabytes
