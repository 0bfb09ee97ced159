"""The programs of the development cluster: which ones, at which versions, and where they come from.

A program comes from, in this order: ``KUBEBUILDER_ASSETS`` (etcd, kube-apiserver, kubectl), our cache, the search
path where a version fits (kubectl, helm), a build from its Go module.
"""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

from gravswell.errors import InvalidInputError, UnavailableError
from gravswell_operator.devcluster import corednssource, kedasource, kuberoutersource, traefiksource
from gravswell_operator.devcluster.gobuild import BuildCancelledError, Module, Program, build

KUBERNETES = Module("kubernetes", "k8s.io/kubernetes", "v1.36.3", ("k8s.io/component-base/version.gitVersion",))
ETCD = Module("etcd", "go.etcd.io/etcd/server/v3", "v3.6.16")
KWOK = Module("kwok", "sigs.k8s.io/kwok", "v0.8.0", ("sigs.k8s.io/kwok/pkg/consts.Version",))
HELM = Module("helm", "helm.sh/helm/v4", "v4.3.1", ("helm.sh/helm/v4/internal/version.version",))
KARPENTER = Module("karpenter", "sigs.k8s.io/karpenter", "v1.14.0")
CONTAINERD = Module(
    "containerd",
    "github.com/containerd/containerd/v2",
    "v2.2.1",
    ("github.com/containerd/containerd/v2/version.Version",),
)
KEDA = Module("keda", "github.com/kedacore/keda/v2", "v2.21.0", change=kedasource.trim)
COREDNS = Module("coredns-trimmed", "github.com/coredns/coredns", "v1.14.7", change=corednssource.trim)
KUBE_ROUTER = Module(
    "kube-router-policies",
    kuberoutersource.PATH,
    "v2.6.3-k3s1",
    (f"{kuberoutersource.PATH}/pkg/version.Version",),
    change=kuberoutersource.trim,
    checksum="h1:RZjUBIuitXCuYoCzm1aM6p5EgQFC5k3N72j4pBIc2j4=",  # as k3s's own go.sum has it
)
METRICS = Module("metrics-server", "sigs.k8s.io/metrics-server", "v0.9.0")
PROMETHEUS_ADAPTER = Module("prometheus-adapter", "sigs.k8s.io/prometheus-adapter", "v0.12.0")
TRAEFIK = Module(
    "traefik-gateway",
    "github.com/traefik/traefik/v3",
    "v3.7.13",
    ("github.com/traefik/traefik/v3/pkg/version.Version",),
    change=traefiksource.trim,
)

_KUBERNETES_COMMANDS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")

PROGRAMS = MappingProxyType(
    {
        program.name: program
        for program in (
            Program("kube-apiserver", KUBERNETES, "k8s.io/kubernetes/cmd/kube-apiserver", room=4_000_000_000),
            *(Program(name, KUBERNETES, f"k8s.io/kubernetes/cmd/{name}") for name in _KUBERNETES_COMMANDS[1:]),
            Program("etcd", ETCD, "go.etcd.io/etcd/server/v3"),
            Program("kwok", KWOK, "sigs.k8s.io/kwok/cmd/kwok"),
            Program("helm", HELM, "helm.sh/helm/v4/cmd/helm", room=1_500_000_000),
            Program("karpenter", KARPENTER, "sigs.k8s.io/karpenter/kwok", room=1_500_000_000),
            *(Program(name, KUBERNETES, f"k8s.io/kubernetes/cmd/{name}") for name in ("kubelet", "kube-proxy")),
            *(
                Program(name, CONTAINERD, f"github.com/containerd/containerd/v2/cmd/{name}", room=1_500_000_000)
                for name in ("containerd", "containerd-shim-runc-v2", "ctr")
            ),
            Program("coredns", COREDNS, "github.com/coredns/coredns", room=1_500_000_000),
            Program("kube-router", KUBE_ROUTER, f"{kuberoutersource.PATH}/cmd/kube-router", room=1_500_000_000),
            Program("metrics-server", METRICS, "sigs.k8s.io/metrics-server/cmd/metrics-server", room=1_500_000_000),
            Program(
                "prometheus-adapter",
                PROMETHEUS_ADAPTER,
                "sigs.k8s.io/prometheus-adapter/cmd/adapter",
                room=1_500_000_000,
            ),
            *(
                Program(f"keda-{name}", KEDA, f"github.com/kedacore/keda/v2/cmd/{name}", room=2_500_000_000)
                for name in ("operator", "adapter")
            ),
            Program("traefik", TRAEFIK, traefiksource.PROGRAM, room=2_500_000_000),
        )
    }
)
"""Everything that :func:`ensure_binaries` knows, by name, in the order of building."""

CONTROL_PLANE = (*_KUBERNETES_COMMANDS, "etcd")
"""What a control plane needs; the others are had on request."""

REAL_NODE = ("kubelet", "kube-proxy", "kube-router", "containerd", "containerd-shim-runc-v2", "ctr", "coredns")
"""What a real node needs beside Debian's packages."""

ASSETS_ENV = "KUBEBUILDER_ASSETS"


@dataclass(frozen=True)
class Progress:
    """Where :func:`ensure_binaries` stands; given to its ``progress`` about twice a second."""

    program: str
    index: int
    """From 1 to ``total``."""
    total: int
    action: str
    """``waiting`` for another process, ``downloading``, ``building`` or ``ready``."""
    elapsed: float
    """Seconds since this program's turn began."""


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class Binaries:
    """Programs that stand ready, by name."""

    paths: MappingProxyType[str, Path]

    def __getitem__(self, name: str) -> Path:
        """Return the path of program ``name``."""
        try:
            return self.paths[name]
        except KeyError:
            raise InvalidInputError(f"{name} was not asked for; have {', '.join(sorted(self.paths))}") from None


def ensure_binaries(
    *,
    progress: ProgressCallback | None = None,
    names: Iterable[str] | None = None,
    cancelled: threading.Event | None = None,
    niceness: int = 0,
) -> Binaries:
    """Return the programs ``names`` (the control plane's by default), building what is not there yet.

    The first build of a control plane takes about five minutes on two cores and, with Go's own caches, 5 GB of disk.
    Each program that is finished is kept, so an interrupted build resumes at the one it was at.

    Args:
        progress: called about twice a second while there is something to wait for, and once for each ready program.
        names: keys of :data:`PROGRAMS`.
        cancelled: ends the build with :class:`BuildCancelledError` when it is set from another thread.
        niceness: scheduling niceness of the compilers, for builds in the background.

    Raises:
        InvalidInputError: a name that is not in :data:`PROGRAMS`.
        UnsupportedError: there is no Go toolchain, or it is too old, and something must be built.
        UnavailableError: a full disk, no network, or a failed build with its last lines.
    """
    wanted = tuple(CONTROL_PLANE if names is None else names)
    unknown = [name for name in wanted if name not in PROGRAMS]
    if unknown:
        raise InvalidInputError(f"no program is called {unknown[0]!r}; there are {', '.join(PROGRAMS)}")
    stop = cancelled or threading.Event()
    paths: dict[str, Path] = {}
    for index, name in enumerate(wanted, start=1):
        report = _reporter(progress, name, index, len(wanted))
        paths[name] = find(name) or build(PROGRAMS[name], cancelled=stop, tick=report, niceness=niceness)
        report("ready")
    return Binaries(MappingProxyType(paths))


def find(name: str) -> Path | None:
    """Return program ``name`` where it stands without building it, or None."""
    assets = os.environ.get(ASSETS_ENV)
    if assets and (given := Path(assets) / name).is_file():
        return given
    built = PROGRAMS[name].path
    if built.is_file():
        return built
    return _on_path(name)


def _on_path(name: str) -> Path | None:
    found = shutil.which(name) if name in {"kubectl", "helm"} else None
    if found is None:
        return None
    fits = _kubectl_fits if name == "kubectl" else _helm_fits
    return Path(found) if fits(found) else None


def _kubectl_fits(path: str) -> bool:
    """Whether it is within one minor version of our API server, as Kubernetes' skew policy asks."""
    try:
        said = json.loads(_ask(path, "version", "--client", "--output=json"))
        minor = re.match(r"\d+", said["clientVersion"]["minor"])
    except (ValueError, KeyError, TypeError):
        return False
    ours = int(KUBERNETES.version.split(".")[1])
    return minor is not None and abs(int(minor[0]) - ours) <= 1


def _helm_fits(path: str) -> bool:
    return _ask(path, "version", "--short").startswith(HELM.version.split(".")[0] + ".")


def _ask(path: str, *arguments: str) -> str:
    try:
        return subprocess.run([path, *arguments], capture_output=True, text=True, check=False, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""  # a broken program on the path is one that does not fit


def _reporter(progress: ProgressCallback | None, name: str, index: int, total: int) -> Callable[[str], None]:
    began = time.monotonic()

    def report(action: str) -> None:
        if progress is not None:
            progress(Progress(name, index, total, action, time.monotonic() - began))

    return report


class BackgroundBuild:
    """:func:`ensure_binaries` in a thread of its own, at low priority, while something else is shown.

    ::

        with BackgroundBuild() as building:
            ...                          # building.latest says where it stands
            binaries = building.wait()
    """

    def __init__(self, *, names: Iterable[str] | None = None, progress: ProgressCallback | None = None) -> None:
        self.latest: Progress | None = None
        self._names = None if names is None else tuple(names)
        self._progress = progress
        self._cancelled = threading.Event()
        self._result: Binaries | None = None
        self._error: Exception | None = None
        self._ended = threading.Event()  # for who is interrupted in its join, a thread counts as ended (CPython 3.11)
        self._thread = threading.Thread(target=self._run, name="gravswell-build", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._ended.is_set()

    def done_within(self, seconds: float) -> bool:
        """Whether it has ended, well or not, at the latest ``seconds`` from now: at once where nothing is missing."""
        return self._ended.wait(seconds)

    def wait(self, timeout: float | None = None) -> Binaries:
        """Return the programs, or raise what the build raised; :class:`UnavailableError` after ``timeout`` seconds."""
        self._ended.wait(timeout)
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise UnavailableError(f"the programs were not built after {timeout:.0f} s" if timeout else "not built")
        return self._result

    def cancel(self) -> None:
        """Stop the build if it runs, its compilers too; what is built is kept. Idempotent."""
        self._cancelled.set()
        if self._thread.is_alive():
            self._ended.wait(10)  # longer only while another process holds the lock; then nothing of ours runs

    def _run(self) -> None:
        try:
            self._result = ensure_binaries(
                progress=self._note, names=self._names, cancelled=self._cancelled, niceness=10
            )
        except Exception as error:  # noqa: BLE001  raised where it is waited for
            self._error = error
        finally:
            self._ended.set()

    def _note(self, progress: Progress) -> None:
        self.latest = progress
        if self._progress is not None:
            self._progress(progress)


__all__ = [
    "ASSETS_ENV",
    "CONTROL_PLANE",
    "PROGRAMS",
    "BackgroundBuild",
    "Binaries",
    "BuildCancelledError",
    "Progress",
    "ProgressCallback",
    "ensure_binaries",
    "find",
]
