"""Builds the two images of gravswell, as root and without a registry, with a bill of materials (CycloneDX) beside each.

    python images/build.py OUTPUT                   # on a base made of Debian's packages
    python images/build.py OUTPUT --base IMAGE      # on an image that buildah can pull

Leaves in OUTPUT: ``gravswell.tar`` (operator and agent) and ``tritonserver-cpu.tar``, which ``ctr image import``,
``docker load`` and ``kind load image-archive`` take, and ``<image>.cdx.json``. Needs Debian's packages ``buildah`` and,
without ``--base``, ``mmdebstrap``; it installs what is missing. It changes nothing where the sources are those of the
archives that stand in OUTPUT. Debian's packages come from where this machine has its own. All of it runs in namespaces
for mounts and processes of its own, so that nothing of it outlives the command, however that ends: the builders mount
the machine's /sys and /dev.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from bom import bill_of_materials

from gravswell.cache import cache_dir, locked
from gravswell.errors import GravswellError, UnavailableError, UnsupportedError
from gravswell_operator.devcluster.bootstrap import bootstrapping
from gravswell_operator.devcluster.debian import ensure_packages
from gravswell_operator.devcluster.processes import die_with

ROOT = Path(__file__).resolve().parents[1]
VERSION = version("gravswell")
IMAGES = {
    "gravswell": f"ghcr.io/gravswell/gravswell:{VERSION}",
    "tritonserver-cpu": "ghcr.io/gravswell/tritonserver-cpu:24.10-py3",
}
"""Archive, and the image's name in it. The server's tag is that of NVIDIA's image with the same Triton, 2.51."""
TARGETS = {"gravswell": (), "tritonserver-cpu": ("--target=server",)}

STAMP = "sources.sha256"
INSIDE = "--inside"
"""How this command starts itself again in namespaces of its own."""

BASE = "localhost/gravswell-base"
SUITE = "bookworm"
BASE_PACKAGES = "python3-venv,libpython3.11,libstdc++6,ca-certificates"
MERGED = "/usr/share/mmdebstrap/hooks/merged-usr"
"""mmdebstrap's own. Without it the package usrmerge leads ``/bin`` to ``/usr/bin``, for which it brings all of Perl."""
BASE_OPTIONS = (
    "--variant=essential",
    f"--include={BASE_PACKAGES}",
    f"--hook-dir={MERGED}",
    '--aptopt=APT::Install-Recommends "false"',
    *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "info", "locale", "man")),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)


def build(output: Path, base: str | None) -> None:
    """Build what is not in ``output`` yet, in a child with namespaces of its own."""
    if _is_current(output, base):
        return
    if os.geteuid() != 0:
        raise UnsupportedError("images are built as root (chroot and mounts); run it with sudo, or use docker build")
    tools = ("buildah",) if base else ("buildah", "mmdebstrap")  # packages are called as their programs
    ensure_packages({tool: tool for tool in tools}, what="building images")
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc"]
    again = [sys.executable, str(Path(__file__).resolve()), str(output), INSIDE]
    command = [*own, *again, *(["--base", base] if base else [])]
    child = subprocess.Popen(command, preexec_fn=die_with(os.getpid()))  # noqa: PLW1509  this process has one thread
    try:
        status = child.wait()
    finally:
        child.send_signal(signal.SIGKILL)  # what it is to end by: it hears no other
        child.wait()
    if status:
        sys.exit(status)


def build_inside(output: Path, base: str | None) -> None:
    """Build what is not in ``output`` yet; whatever is mounted meanwhile is unmounted by the end of this process."""
    output.mkdir(parents=True, exist_ok=True)
    work = cache_dir() / "images"
    with locked(work):
        if _is_current(output, base):
            return
        wanted = _digest(base)
        stamp = output / STAMP
        stamp.unlink(missing_ok=True)
        work.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(work / "storage/run", ignore_errors=True)  # says what is mounted, and nothing is
        _buildah(work, "rm", "--all")  # of builds that were killed
        python = base or _debian_base(work)
        for name, image in IMAGES.items():
            _buildah(
                work, "build-using-dockerfile", *_build_options(work, python, TARGETS[name]), "--tag", image, str(ROOT)
            )
            _export(work, name, image, output)
        _forget_other_bases(work, python)
        _buildah(work, "rmi", "--prune")  # layers of earlier sources
        stamp.write_text(wanted)


def _is_current(output: Path, base: str | None) -> bool:
    complete = all((output / f"{name}.tar").exists() and (output / f"{name}.cdx.json").exists() for name in IMAGES)
    try:
        return complete and (output / STAMP).read_text() == _digest(base)
    except FileNotFoundError:  # or another process has just begun to build
        return False


def _build_options(work: Path, python: str, target: Iterable[str]) -> list[str]:
    # The machine's own settings of pip and its certificates leave nothing in the image.
    secrets = {"pip": "/etc/pip.conf", "certificates": "/etc/ssl/certs/ca-certificates.crt"}
    return [
        f"--file={ROOT / 'Containerfile'}",
        "--isolation=chroot",
        _network(work),
        "--layers",
        "--format=docker",
        "--timestamp=0",
        f"--build-arg=PYTHON={python}",
        *(f"--secret=id={name},src={path}" for name, path in secrets.items() if Path(path).exists()),
        *target,
    ]


def _network(work: Path) -> str:
    return f"--cni-config-dir={work / 'cni'}"  # the machine's own folder would be made otherwise, if it has none


def _export(work: Path, name: str, image: str, output: Path) -> None:
    archive = output / f"{name}.tar"
    archive.unlink(missing_ok=True)  # buildah adds to an archive that is there
    _buildah(work, "push", "--quiet", image, f"docker-archive:{archive}:{image}")
    container = _buildah(work, "from", _network(work), "--pull-never", image).strip()
    try:
        root = Path(_buildah(work, "mount", container).strip())
        document = bill_of_materials(root, image)
        (output / f"{name}.cdx.json").write_text(json.dumps(document, indent=1) + "\n")
    finally:
        _buildah(work, "rm", container)


def _debian_base(work: Path) -> str:
    """Return the name of a base image of Debian's packages, made once for each list of them."""
    key = hashlib.sha256("\0".join((SUITE, *BASE_OPTIONS)).encode()).hexdigest()[:12]
    image = f"{BASE}:{key}"
    if image in _names(work):
        return image
    context = work / "base"
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    try:
        command, environment = bootstrapping(SUITE, context / "root.tar", BASE_OPTIONS, context)
        _run(*map(str, command), environment=environment)
        (context / "Containerfile").write_text("FROM scratch\nADD root.tar /\n")
        options = (_network(work), "--isolation=chroot")
        _buildah(work, "build-using-dockerfile", *options, "--tag", image, str(context))
    finally:
        shutil.rmtree(context, ignore_errors=True)
    return image


def _forget_other_bases(work: Path, python: str) -> None:
    for image in _names(work):
        if image.startswith(f"{BASE}:") and image != python:
            _buildah(work, "rmi", image)


def _names(work: Path) -> list[str]:
    return _buildah(work, "images", "--format={{.Name}}:{{.Tag}}").split()


def _digest(base: str | None) -> str:
    """What the images are made of: every file that the build sees."""
    listed = ["Containerfile", "pyproject.toml", "README.md", "LICENSE"]
    folders = ["repo_tools", "operator", "examples", "images"]
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
    digest = hashlib.sha256(repr((base, SUITE, BASE_OPTIONS)).encode())
    for path in [*(ROOT / name for name in listed), *files]:
        if "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _buildah(work: Path, *arguments: str) -> str:
    # A store of its own: nothing of a container engine that this machine's user has is touched.
    storage = work / "storage"
    return _run(
        "buildah", f"--root={storage / 'root'}", f"--runroot={storage / 'run'}", "--storage-driver=overlay", *arguments
    )


def _run(*command: str, environment: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, env=os.environ | (environment or {}), capture_output=True, text=True, check=False, timeout=1800
        )
    except FileNotFoundError:
        raise UnavailableError(f"{command[0]} is not installed here") from None
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{command[0]} did not end in {error.timeout:.0f} s; look at the network") from None
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise UnavailableError(f"{command[0]} {command[1]} failed with status {done.returncode}:\n{said}")
    return done.stdout


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description="Build the images of gravswell.")
    parser.add_argument("output", type=Path, help="folder of the archives")
    parser.add_argument("--base", help="image with Python to build on; one is made of Debian's packages without it")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        (build_inside if arguments.inside else build)(arguments.output.resolve(), arguments.base)
    except GravswellError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
