"""What ``docker build`` gets from registries elsewhere: the base image, and an index of Python's packages."""

import json
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

from gravswell_operator.devcluster.realnode import ADDRESS, Machine

from .engine import Docker

ROOT = Path(__file__).parents[2]
BASE = "gravswell.dev/python:1"
_PORT = 8080
"""In the machine's own network, where nobody else takes it."""


def build_options(docker: Docker, machine: Machine, images: Path, folder: Path) -> str:
    """Options with which ``docker build`` needs no registry, for as long as ``machine`` runs.

    The base is that of the images in ``images``, made of Debian's packages. Wheels are put into ``folder``.
    """
    _import_base(docker, images, folder)
    _download(folder / "wheels")
    _serve(machine, folder / "wheels")
    settings = folder / "pip.conf"
    settings.write_text(
        f"[global]\nno-index = true\nfind-links = http://{ADDRESS}:{_PORT}/\ntrusted-host = {ADDRESS}\n"
    )
    return shlex.join([f"--build-arg=PYTHON={BASE}", f"--secret=id=pip,src={settings}"])


def _import_base(docker: Docker, images: Path, folder: Path) -> None:
    layer = folder / "base.tar"
    with tarfile.open(images / "gravswell.tar") as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        [image] = json.load(manifest)
        lowest = archive.extractfile(image["Layers"][0])
        assert lowest is not None
        with layer.open("wb") as file:
            shutil.copyfileobj(lowest, file)
    docker.run("docker", "import", layer, BASE)
    layer.unlink()


def _download(wheels: Path) -> None:
    listed = [f"--requirement={file}" for file in sorted((ROOT / "images").glob("*requirements.txt"))]
    for one in listed:  # on their own: two lists may pin one package differently
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        of_the_base = "--python-version=3.11"  # Debian 12's
        options = ["--require-hashes", of_the_base, f"--dest={wheels}", one]
        subprocess.run([*command, *options], check=True, timeout=900)


def _serve(machine: Machine, wheels: Path) -> None:
    options = ["--bind", ADDRESS, "--directory", wheels, str(_PORT)]
    server = machine.spawn("index of packages", [sys.executable, "-m", "http.server", *options], "index.log")

    def answers() -> bool:
        try:
            with machine.network(), socket.create_connection((ADDRESS, _PORT), timeout=10):
                return True
        except OSError:
            return False

    machine.wait_for(server, answers)
